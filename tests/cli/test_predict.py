"""`birdinfer predict` as a user meets it: one clear line and an exit code, whatever the input."""

import csv
import errno
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from make_bundles import LABELS, SAMPLE_RATE, tone, write_sound
from rich.console import Console

from birdinfer import Bundle, Predictor
from birdinfer.cli.options import parse_blend, parse_kernel, parse_post
from birdinfer.cli.predict import peak_memory_mb
from birdinfer.errors import ConfigError
from birdinfer.inference.bundle import save_manifest
from birdinfer.inference.ensemble import Blend
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.file_level import FileMax


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def with_int8(folder, name):
    """Give a member of a bundle an INT8 graph: here, its own."""
    manifest = Bundle.load(folder).manifest
    members = [
        msgspec.structs.replace(member, graphs={**member.graphs, "int8": member.graphs["fp32"]})
        if member.name == name
        else member
        for member in manifest.members
    ]
    save_manifest(folder, msgspec.structs.replace(manifest, members=tuple(members)))
    return folder


def test_a_good_run(birdinfer, bundle, soundscapes, tmp_path):
    out = tmp_path / "new" / "submission.csv"
    code, stdout, stderr = birdinfer("predict", soundscapes, "-o", out, "--bundle", bundle)
    assert code == 0
    assert stdout == ""
    rows = rows_of(out)
    assert rows[0] == ["row_id", *LABELS]
    assert len(rows) == 1 + 17
    scores = np.array([row[1:] for row in rows[1:13]], np.float32)
    np.testing.assert_allclose(scores, Predictor(Bundle.load(bundle)).predict(soundscapes / "site_0.ogg"), atol=1e-6)
    assert re.search(r"x real time \(onnxruntime:fp32, \d+ workers?, batch 3\), peak memory \d+ MB\n", stderr)
    assert "3 files (all ok), 17 windows" in stderr
    assert [row[1] for row in rows_of(out.with_suffix(".files.csv"))[1:]] == ["ok"] * 3


def test_quiet_says_nothing(birdinfer, bundle, soundscapes, tmp_path):
    assert birdinfer("predict", soundscapes, "-o", tmp_path / "s.csv", "--bundle", bundle, "-q") == (0, "", "")


class TestTheBundle:
    """None is taken silently, and the demo only by its name."""

    @pytest.fixture
    def exports(self, bundle, tmp_path, monkeypatch):
        """Two bundles, the one that was made later first by name, and a demo newer than both."""
        for age, name in enumerate(("demo", "b_new", "z_old")):
            shutil.copytree(bundle, tmp_path / "exports" / name)
            os.utime(tmp_path / "exports" / name / "manifest.json", (2e9 - age, 2e9 - age))
        monkeypatch.chdir(tmp_path)
        return tmp_path / "exports"

    def test_the_newest_of_exports_is_taken_and_named(self, birdinfer, exports, soundscapes):
        code, _, stderr = birdinfer("predict", soundscapes, "-o", "s.csv")
        assert code == 0
        assert stderr.startswith("bundle: exports/b_new, the newest of 2 in exports/\n")
        assert birdinfer("predict", soundscapes, "-o", "q.csv", "-q") == (0, "", "")

    @pytest.mark.parametrize("has_demo", [True, False])
    def test_without_one_of_ones_own_it_is_one_line_with_the_ways_to_one(
        self, birdinfer, exports, soundscapes, has_demo, tmp_path
    ):
        for name in ("b_new", "z_old", *([] if has_demo else ["demo"])):
            shutil.rmtree(exports / name)
        code, stdout, stderr = birdinfer("predict", soundscapes, "-o", "s.csv")
        assert (code, stdout) == (2, "")
        assert stderr.startswith("birdinfer: bundle: none is named, and exports/ holds none of your own - ")
        assert stderr.count("\n") == 1
        assert not (tmp_path / "s.csv").exists()
        assert birdinfer("predict", soundscapes, "--bundle", "demo", "-o", "s.csv")[0] == 0  # as the line says

    def test_a_folder_of_that_name_is_itself(self, birdinfer, exports, soundscapes, monkeypatch):
        monkeypatch.chdir(exports)
        assert birdinfer("predict", soundscapes, "--bundle", "demo", "-o", "s.csv")[0] == 0
        assert rows_of(exports / "s.csv")[0] == ["row_id", *LABELS]


class TestTheSample:
    """What does not fit the sample is reported, also if quiet, with exit code 3; a table is written all the same."""

    @pytest.fixture
    def predict(self, birdinfer, bundle, tmp_path):
        """Predict by a sample of these species and rows -> exit code, standard error, rows of the table."""

        def run(inputs, columns, row_ids, *options):
            sample, out = tmp_path / "sample.csv", tmp_path / "s.csv"
            cells = "," + ",".join(["0.3"] * len(columns))
            sample.write_text("\n".join([",".join(["row_id", *columns]), *(row_id + cells for row_id in row_ids)]))
            command = ("predict", inputs, "--bundle", bundle, "--sample-submission", sample, "-o", out)
            code, _, stderr = birdinfer(*command, "--quiet", *options)
            return code, stderr.replace(str(tmp_path), "TMP"), rows_of(out) if out.exists() else None

        return run

    @pytest.mark.parametrize(
        ("row_ids", "problem"),
        [
            (("BC_1_5", "BC_1_10"), "none of 3 files is in the sample, all 2 rows hold the fallback"),
            (("site_0_5", "BC_1_5"), "1 of its 2 recordings are not there, 1 rows hold the fallback"),
            (("site_0_5", "site_1_20"), "1 rows end where their recording has no window, they hold the fallback"),
        ],
    )
    def test_rows_without_a_recording_are_reported_also_if_quiet(self, predict, soundscapes, row_ids, problem):
        code, stderr, rows = predict(soundscapes, LABELS, row_ids)
        assert code == 3
        assert stderr.startswith(f"TMP/sample.csv: {problem}")
        assert stderr.count("\n") == 1
        assert [row[0] for row in rows] == ["row_id", *row_ids]

    def test_rows_that_all_have_one_are_exit_0_without_a_word(self, predict, soundscapes):
        assert predict(soundscapes, LABELS, ("site_1_15", "site_0_60"))[:2] == (0, "")

    def test_species_that_the_bundle_lacks_are_filled_when_asked_for(self, predict, soundscapes):
        code, stderr, rows = predict(soundscapes, ("houspa", *LABELS), ("site_0_5",), "--missing-species", "0.02")
        assert code == 0
        assert stderr == ("TMP/sample.csv: 1 of its species are not in the bundle and hold 0.02 in all rows: houspa\n")
        assert rows[1][1] == "0.02"

    def test_the_hint_of_the_refusal_works(self, predict, soundscapes):
        code, stderr, rows = predict(soundscapes, ("houspa", *LABELS), ("site_0_5",))
        assert (code, rows) == (2, None)
        hint = re.search(r"(--missing-species \w+) fills their columns", stderr)
        assert predict(soundscapes, ("houspa", *LABELS), ("site_0_5",), *hint[1].split())[0] == 0

    @pytest.mark.parametrize("text", ["fill", "1.5", "-0.1", "nan", ""])
    def test_what_is_no_way_to_fill_is_refused(self, predict, soundscapes, text):
        code, stderr, _ = predict(soundscapes, LABELS, ("site_0_5",), f"--missing-species={text}")
        assert code == 2
        assert (
            f"--missing-species: is {text!r}, allowed are error, prior, zero, genus and numbers from 0 to 1" in stderr
        )

    def test_a_folder_without_recordings_gives_its_rows(self, predict, tmp_path):
        """As in every public run: it holds a readme alone."""
        (tmp_path / "test_soundscapes").mkdir()
        (tmp_path / "test_soundscapes" / "readme.txt").touch()
        for options in ((), ("--time-budget", "1m"), ("--engine", "auto"), ("--resume",)):
            code, stderr, rows = predict(tmp_path / "test_soundscapes", LABELS, ("BC_5", "BC_10"), *options)
            assert code == 3
            assert "TMP/sample.csv: there is no recording, all 2 rows hold the fallback\n" in stderr
            assert rows == [["row_id", *LABELS], *([end, "0.1", "0.2", "0.3", "0.4"] for end in ("BC_5", "BC_10"))]

    def test_a_folder_that_is_not_there_is_refused(self, predict, tmp_path):
        code, stderr, rows = predict(tmp_path / "gone", LABELS, ("BC_5",))
        assert (code, rows) == (2, None)
        assert "gone: no such file or folder" in stderr


@pytest.mark.parametrize("workers", ["1", "3"])
def test_workers_and_order_change_nothing(birdinfer, bundle, soundscapes, tmp_path, workers):
    birdinfer("predict", soundscapes, "-o", tmp_path / "a.csv", "--bundle", bundle, "-j", "2")
    birdinfer("predict", soundscapes, "-o", tmp_path / "b.csv", "--bundle", bundle, "-j", workers)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_bad_files_are_listed_filled_and_cost_no_good_one(birdinfer, bundle, soundscapes, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "text.ogg").write_text("not sound")
    (bad / "zero.ogg").touch()
    (bad / "cut.ogg").write_bytes((soundscapes / "site_0.ogg").read_bytes()[:200_000])
    wave = tone(5.0)
    wave[7] = np.nan
    write_sound(bad / "nan.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    write_sound(bad / "silence.wav", np.zeros(5 * SAMPLE_RATE), SAMPLE_RATE)
    write_sound(bad / "stereo44.wav", np.stack([tone(5.0, 44_100)] * 2, 1), 44_100)
    out = tmp_path / "s.csv"
    code, _, stderr = birdinfer("predict", soundscapes, bad, "-o", out, "--bundle", bundle)
    assert code == 3
    for line in (
        f"unreadable  {bad / 'text.ogg'}: cannot be decoded",
        f"unreadable  {bad / 'zero.ogg'}: is empty (0 bytes)",
        f" truncated  {bad / 'cut.ogg'}: truncated after",
        f"non-finite  {bad / 'nan.wav'}: 1 samples are not finite, taken as 0",
        f"    silent  {bad / 'silence.wav'}: all samples are 0",
    ):
        assert line in stderr
    assert "9 files (4 ok, 2 unreadable, 1 truncated, 1 non-finite, 1 silent)" in stderr
    rows = {row[0]: np.array(row[1:], float) for row in rows_of(out)[1:]}
    assert not [row for row in rows if "text" in row or "zero" in row]
    assert len([row for row in rows if "site_0" in row]) == 12
    assert all(np.isfinite(values).all() for values in rows.values())
    status = {row[0].rsplit("/", 1)[-1]: row[1] for row in rows_of(tmp_path / "s.files.csv")}
    assert status["silence.wav"] == "silent"
    assert status["stereo44.wav"] == status["site_2.ogg"] == "ok"


def test_silence_and_shortness_are_reported_and_are_no_failure(birdinfer, bundle, tmp_path):
    write_sound(tmp_path / "silence.wav", np.zeros(5 * SAMPLE_RATE), SAMPLE_RATE)
    write_sound(tmp_path / "short.wav", tone(0.1), SAMPLE_RATE)
    out = tmp_path / "s.csv"
    code, _, stderr = birdinfer("predict", tmp_path, "-o", out, "--bundle", bundle)
    assert code == 0
    assert f"    silent  {tmp_path / 'silence.wav'}: all samples are 0" in stderr
    assert f" too short  {tmp_path / 'short.wav'}: 0.100 s, a row takes 0.5 s at least" in stderr
    assert "2 files (1 too short, 1 silent), 2 windows" in stderr


def test_many_bad_files_do_not_flood_the_screen(birdinfer, bundle, tmp_path):
    for index in range(30):
        (tmp_path / f"{index}.ogg").touch()
    code, _, stderr = birdinfer("predict", tmp_path, "-o", tmp_path / "s.csv", "--bundle", bundle)
    assert code == 3
    assert stderr.count("is empty") == 20
    assert f"and 10 more, all listed in {tmp_path / 's.files.csv'}" in stderr


def refusals(tmp_path, bundle, soundscapes):
    """What a user may get wrong: (arguments, what the one line says)."""
    empty = tmp_path / "empty"
    empty.mkdir(exist_ok=True)
    texts = tmp_path / "texts"
    texts.mkdir(exist_ok=True)
    (texts / "readme.txt").touch()
    no_row_id = tmp_path / "no_row_id.csv"
    no_row_id.write_text("id,comcuc\na_5,0\n")
    unknown = tmp_path / "unknown.csv"
    unknown.write_text("row_id,houspa\na_5,0\n")
    blocked = tmp_path / "file"
    blocked.touch()
    good = [soundscapes, "--bundle", bundle]
    return {
        "missing directory": ([tmp_path / "gone", "--bundle", bundle], "gone: no such file or folder"),
        "empty directory": ([empty, "--bundle", bundle], "empty: holds no sound file - name a sound file"),
        "no audio in it": ([texts, "--bundle", bundle], "texts: holds no sound file"),
        "no bundle": ([soundscapes, "--bundle", empty], "empty: is not a bundle (no manifest.json)"),
        "csv without a needed column": ([*good, "--sample-submission", no_row_id], "needed is 'row_id'"),
        "unknown label": ([*good, "--sample-submission", unknown], "does not score: houspa"),
        "no sample": ([*good, "--sample-submission", tmp_path / "x.csv"], "x.csv: no such file"),
        "output in a file": ([*good, "-o", blocked / "s.csv"], "s.csv: cannot be written"),
        "output is a folder": ([*good, "-o", empty], "empty: is a folder"),
        "year": ([*good, "--year", "1999"], "--year: 1999 is not known"),
        "engine": ([*good, "--engine", "tflite"], "--engine: 'tflite' is not an engine"),
        "precision": ([*good, "--engine", "onnxruntime:bf16"], "onnxruntime does not compute in 'bf16'"),
        "graphs": (
            [*good, "--engine", "onnxruntime:int8"],
            "--engine: onnxruntime:int8, but no member has int8 graphs, only fp32",
        ),
        "overlap": ([*good, "--overlap", "5"], "--overlap: 5 s, but windows of member 'fold0' last 5 s"),
        "nothing to measure": (
            [texts / "readme.txt", "--bundle", bundle, "--engine", "auto"],
            "none of 1 files can be",
        ),
        "step": ([*good, "--post", "file_maks"], "file_max"),
        "step's value": ([*good, "--post", "file_max:power=-1"], "power"),
        "blend": ([*good, "--blend", "rank:me.weight=1"], "--blend: group 'me' has no members"),
        "ranks of 2021": ([*good, "--blend", "rank", "--year", "2021"], "--year: 2021 asks for species above a thre"),
        "groups": ([*good, "--group-tables", tmp_path / "groups"], "--group-tables: are those of a blend by rank"),
        "gate": ([*good, "--blend", "gate:by=me,threshold=0.5"], "the gate is by 'me', which is no member"),
        "budget": ([*good, "--time-budget", "soon"], "--time-budget: "),
        "unit": ([*good, "--time-budget", "90"], "--time-budget: '90' has no unit - write 90m or 90s"),
        "kernel": ([*good, "--smooth", "0.5,0.5"], "--smooth: '0.5,0.5': smoothing_kernel has 2 weights"),
    }


@pytest.mark.parametrize(
    "what",
    ["missing directory", "empty directory", "no audio in it", "no bundle", "csv without a needed column",
     "unknown label", "no sample", "output in a file", "output is a folder", "year", "engine", "precision",
     "graphs", "overlap", "kernel", "step", "step's value", "blend", "ranks of 2021", "groups", "gate", "budget",
     "unit"],
)  # fmt: skip
def test_wrong_input_is_one_line_and_exit_2(birdinfer, bundle, soundscapes, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    arguments, problem = refusals(tmp_path, bundle, soundscapes)[what]
    code, stdout, stderr = birdinfer("predict", *arguments)
    assert (code, stdout) == (2, "")
    assert problem in stderr
    assert stderr.startswith("birdinfer: ")
    assert stderr.count("\n") == 1
    assert not (tmp_path / "submission.csv").exists()


def test_auto_shows_its_trials_once_and_its_choice_always(birdinfer, bundle, soundscapes, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("birdinfer.inference.autotune.MEASURE_SECONDS", 0.01)
    command = ("predict", soundscapes, "-o", tmp_path / "s.csv", "--bundle", bundle, "--engine", "auto")
    code, _, first = birdinfer(*command)
    assert code == 0
    assert "rows/s" in first
    assert "onnxruntime:fp32, " in first
    assert "taken" in first
    code, _, again = birdinfer(*command)
    assert code == 0
    assert "rows/s" not in again
    assert "measured before, kept in" in again
    code, _, silent = birdinfer(*command, "--quiet")
    assert (code, silent) == (0, "")


def test_auto_shows_on_a_terminal_what_it_has_measured_so_far(birdinfer, bundle, soundscapes, tmp_path, monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr("birdinfer.cli.console.stderr", lambda: terminal)
    monkeypatch.setattr("birdinfer.inference.autotune.MEASURE_SECONDS", 0.01)
    birdinfer("predict", soundscapes, "-o", tmp_path / "s.csv", "--bundle", bundle, "--engine", "auto")
    assert re.search(r"measuring engines: \S+, \d workers?, batch \d: \d+\.\d rows/s\W", screen.getvalue())


def test_auto_uses_the_default_engine_if_there_is_nothing_to_measure(birdinfer, bundle, tmp_path):
    (tmp_path / "bad.ogg").write_text("no sound")
    out = tmp_path / "s.csv"
    code, _, err = birdinfer("predict", tmp_path / "bad.ogg", "-o", out, "--bundle", bundle, "--engine", "auto")
    assert code == 3
    assert "none of 1 files can be read" in err
    assert "continuing with onnxruntime:fp32" in err
    assert out.is_file()


def test_members_that_are_not_run_in_the_precision_asked_for_are_counted(birdinfer, make_bundle, soundscapes, tmp_path):
    folder = with_int8(make_bundle(), "fold1")
    for engine, said in (
        ("onnxruntime:int8", "batch 3; 1 of 2 members in int8, the others in fp32), peak memory"),
        ("onnxruntime:fp32", "batch 3), peak memory"),
    ):
        out = tmp_path / "s.csv"
        code, _, err = birdinfer("predict", soundscapes, "-o", out, "--bundle", folder, "--engine", engine)
        assert code == 0, err
        assert said in err


def test_batch_size_and_workers_change_no_row(birdinfer, bundle, soundscapes, tmp_path):
    for name, options in (("a", ()), ("b", ("--batch-size", "7", "--jobs", "3"))):
        assert birdinfer("predict", soundscapes, "-o", tmp_path / f"{name}.csv", "--bundle", bundle, *options)[0] == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_overlap_and_merge_change_the_scores(birdinfer, bundle, soundscapes, tmp_path):
    tables = set()
    for options in ((), ("--overlap", "2.5"), ("--overlap", "2.5", "--merge", "max")):
        out = tmp_path / "s.csv"
        assert birdinfer("predict", soundscapes, "-o", out, "--bundle", bundle, *options)[0] == 0
        assert len(rows_of(out)) == 1 + 17
        tables.add(out.read_bytes())
    assert len(tables) == 3


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder in which not even root may write: /sys")
def test_a_read_only_folder_is_named_before_any_work(birdinfer, bundle, soundscapes, monkeypatch):
    def too_late(*_):
        raise AssertionError("predicted although the result cannot be written")

    def refused(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Predictor, "score_batch", too_late)
    monkeypatch.setattr("birdinfer.system.files.tempfile.TemporaryFile", refused)  # root may write everywhere
    code, _, stderr = birdinfer("predict", soundscapes, "--bundle", bundle, "-o", "s.csv")
    assert code == 2
    assert "s.csv: cannot be written (Permission denied)" in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "kernel"), [(None, None), ("none", (1.0,)), ("0.25,0.5,0.25", (0.25, 0.5, 0.25)), ("1", (1.0,))]
)
def test_kernels_on_the_command_line(text, kernel):
    assert parse_kernel(text) == kernel


def test_steps_and_blends_on_the_command_line():
    own = PostConfig((0.25, 0.5, 0.25), (FileMax(0.5),))
    assert parse_post(own, None, None) == own
    assert parse_post(own, "none", None) == PostConfig((1.0,), (FileMax(0.5),))
    assert parse_post(own, None, ["none"]) == PostConfig((0.25, 0.5, 0.25))
    assert parse_post(own, None, ["file_max:power=0.25", "file_max"]).steps == (FileMax(0.25), FileMax())
    assert parse_blend("rms") == Blend("rms")
    assert parse_blend("gate:by=a,threshold=0.25") == Blend("gate", "a", 0.25)
    for wrong in ("", "average", "gate", "gate:by=a", "mean:by=a", "gate:by=a,threshold=x", "gate:limit=3"):
        with pytest.raises(ConfigError, match="--blend"):
            parse_blend(wrong)


def test_steps_and_blends_change_the_scores(birdinfer, bundle, soundscapes, tmp_path):
    tables = set()
    for options in ((), ("--smooth", "none"), ("--post", "file_max:power=0.5"), ("--blend", "minimum")):
        out = tmp_path / "s.csv"
        assert birdinfer("predict", soundscapes, "-o", out, "--bundle", bundle, *options)[0] == 0
        tables.add(out.read_bytes())
    assert len(tables) == 4


@pytest.mark.parametrize("text", ["", "a,b,c", "0.1,0.8,0.2", "nan"])
def test_kernels_that_are_none(text):
    with pytest.raises(ConfigError, match="--smooth"):
        parse_kernel(text)


def test_progress_in_plain_lines(birdinfer, bundle, soundscapes, tmp_path, monkeypatch):
    monkeypatch.setattr("birdinfer.cli.progress._PLAIN_LINE_SECONDS", 0.0)
    lines = birdinfer("predict", soundscapes, "-o", tmp_path / "s.csv", "--bundle", bundle)[2].splitlines()
    assert any(line.startswith("3/3 recordings, ") and "x real time" in line and "s left" in line for line in lines)


def test_progress_as_a_bar(birdinfer, bundle, soundscapes, tmp_path, monkeypatch):
    monkeypatch.setattr("birdinfer.cli.console.stderr", lambda: Console(stderr=True, force_terminal=True, width=100))
    (tmp_path / "bad.ogg").touch()
    inputs = [tmp_path / "bad.ogg", *sorted(soundscapes.iterdir())]
    _, _, shown = birdinfer("predict", *inputs, "-o", tmp_path / "s.csv", "--bundle", bundle)
    assert "4/4 recordings" in shown
    assert "1 failed" in shown


def test_plots_are_drawn_for_each_file_that_was_scored(birdinfer, bundle, soundscapes, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "bad.ogg").touch()
    inputs = [soundscapes / "site_2.ogg", tmp_path / "bad.ogg"]
    code, _, _ = birdinfer(
        "predict", *inputs, "--bundle", bundle, "-o", tmp_path / "s.csv", "--plots", tmp_path / "pictures"
    )
    assert code == 3
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["site_2.png"]


def test_plots_without_matplotlib_say_what_to_install(birdinfer, bundle, soundscapes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "birdinfer.plots.soundscape", None)
    code, _, stderr = birdinfer(
        "predict", soundscapes, "--bundle", bundle, "-o", tmp_path / "s.csv", "--plots", tmp_path / "pictures"
    )
    assert code == 2
    assert 'pip install "birdinfer[report]"' in stderr
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.slow
def test_a_plot_of_a_long_recording_shows_its_beginning(birdinfer, bundle, tmp_path, monkeypatch):
    plots = pytest.importorskip("birdinfer.plots.soundscape")
    drawn = {}

    def draw(path, title, samples, probabilities, *_, **__):
        drawn[path.name] = (title, len(samples) / SAMPLE_RATE, len(probabilities))

    monkeypatch.setattr(plots, "draw_soundscape", draw)
    write_sound(tmp_path / "long.wav", tone(700.0))
    write_sound(tmp_path / "short.wav", tone(12.0))
    birdinfer("predict", tmp_path, "--bundle", bundle, "-o", tmp_path / "s.csv", "--plots", tmp_path / "pictures")
    assert drawn == {"long.png": ("long.wav (first 10 min)", 600.0, 120), "short.png": ("short.wav", 15.0, 3)}


def test_a_plot_that_fails_costs_no_table(birdinfer, bundle, soundscapes, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "pictures" / "site_0.png").mkdir(parents=True)
    code, _, stderr = birdinfer(
        "predict", soundscapes, "--bundle", bundle, "-o", tmp_path / "s.csv", "--plots", tmp_path / "pictures"
    )
    assert code == 2
    assert "site_0.png: is a folder" in stderr
    assert (tmp_path / "s.csv").exists()
    assert (tmp_path / "s.files.csv").exists()


def test_peak_memory_is_the_process_own(tmp_path, monkeypatch):
    """Not that of its parent: a child of a process with 200 MB more must not report them."""
    ballast = np.ones(25_000_000)
    code = "from birdinfer.cli.predict import peak_memory_mb; print(peak_memory_mb())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < ballast.nbytes / 1e6 / 2
    monkeypatch.setattr("birdinfer.cli.predict._PROCESS_STATUS", tmp_path / "gone")
    assert peak_memory_mb() > ballast.nbytes / 1e6
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory_mb() is None
