"""A run of detections: what it writes follows from the scores of a prediction, whatever happens on the way."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
from make_bundles import LABELS, SAMPLE_RATE, tone, write_sound

from birdinfer import Bundle
from birdinfer.detections.clips import ClipSettings
from birdinfer.detections.page import PageSettings
from birdinfer.detections.species_filter import FilterSettings
from birdinfer.detections.summary import SummarySettings
from birdinfer.errors import BirdinferError, ConfigError, OutputError
from birdinfer.prediction.detect import DetectionSettings, detect_recordings
from birdinfer.prediction.run import PredictionCallback, PredictionSettings, predict_to_csv


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two sites with recorders that name their files alike, one file that is no sound, one that is cut."""
    folder = tmp_path_factory.mktemp("recordings")
    for index, site in enumerate(("siteA", "siteB")):
        (folder / site).mkdir()
        for hour in (6, 7):
            sound = tone(30.0, seed=index + hour, hz=700.0 * (index + hour - 5))
            write_sound(folder / site / f"20250227_{hour:02d}0000.wav", sound, SAMPLE_RATE)
    whole = folder / "siteA" / "20250227_060000.wav"
    (folder / "siteA" / "20250227_080000.wav").write_bytes(whole.read_bytes()[:500_000])
    (folder / "siteB" / "20250227_080000.wav").write_text("not sound")
    return folder


@pytest.fixture(scope="module")
def scores(bundle, recordings, tmp_path_factory):
    """What predict says: row id -> probabilities."""
    out = tmp_path_factory.mktemp("scores") / "s.csv"
    predict_to_csv(Bundle.load(bundle), [recordings], PredictionSettings(output=out))
    with out.open(newline="") as file:
        return {
            row.pop("row_id"): {label: float(value) for label, value in row.items()} for row in csv.DictReader(file)
        }


def threshold_of(scores):
    """A probability that about a third of the cells reach, between two of them."""
    values = np.unique([value for row in scores.values() for value in row.values()])
    place = len(values) * 2 // 3
    return float((values[place] + values[place - 1]) / 2)


def settings_for(out, scores, **options):
    return DetectionSettings(output=out, min_confidence=threshold_of(scores), **options)


def rows_of(folder, name="detections.csv"):
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder):
    """The bytes of every file, by its path within the folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_detections_are_the_windows_that_reach_the_threshold(bundle, recordings, scores, tmp_path):
    detect_recordings(Bundle.load(bundle), [recordings], settings_for(tmp_path / "r", scores))
    found = set()
    for row in rows_of(tmp_path / "r"):
        name = row["File"].removesuffix(".wav")
        for end in range(round(float(row["Start (s)"])) + 5, round(float(row["End (s)"])) + 5, 5):
            found.add((f"{name}_{end}", row["Label"]))
    limit = threshold_of(scores)
    assert found == {(row_id, label) for row_id, row in scores.items() for label, p in row.items() if p >= limit}
    assert found


def test_what_is_not_well_has_no_detection_and_stands_in_the_table_of_files(bundle, recordings, scores, tmp_path):
    outcome = detect_recordings(Bundle.load(bundle), [recordings], settings_for(tmp_path / "r", scores))
    files = {row["file"].rpartition("recordings0/")[2]: row["status"] for row in rows_of(tmp_path / "r", "files.csv")}
    assert files["siteB/20250227_080000.wav"] == "unreadable"
    assert files["siteA/20250227_080000.wav"] == "truncated"
    assert outcome.n_damaged == 2
    assert "siteB/20250227_080000.wav" not in {row["File"] for row in rows_of(tmp_path / "r")}
    assert (tmp_path / "r.progress").is_dir()  # for --resume


def test_all_scores_are_those_of_a_prediction(bundle, recordings, scores, tmp_path):
    loaded = Bundle.load(bundle)
    detect_recordings(loaded, [recordings], replace(settings_for(tmp_path / "r", scores), scores=True))
    predict_to_csv(loaded, [recordings], PredictionSettings(output=tmp_path / "s.csv"))
    assert (tmp_path / "r" / "scores.csv").read_bytes() == (tmp_path / "s.csv").read_bytes()
    detect_recordings(loaded, [recordings], settings_for(tmp_path / "without", scores))
    assert rows_of(tmp_path / "without") == rows_of(tmp_path / "r")


class _Stop(PredictionCallback):
    def __init__(self, after):
        self._left = after

    def on_file(self, result):
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 3])
def test_a_stopped_run_ends_with_the_bytes_of_one_that_was_not(bundle, recordings, scores, tmp_path, after):
    loaded = Bundle.load(bundle)
    options = {
        "formats": ("csv", "jsonl", "raven", "audacity", "kaleidoscope"),
        "summary": SummarySettings(permutations=5),
        "clips": ClipSettings(per_species=1, format="wav"),
        "page": PageSettings(),
        "merge_gap": 5.0,
    }
    detect_recordings(loaded, [recordings], settings_for(tmp_path / "a", scores, **options))
    with pytest.raises(KeyboardInterrupt):
        detect_recordings(loaded, [recordings], settings_for(tmp_path / "b", scores, **options), _Stop(after))
    detect_recordings(loaded, [recordings], settings_for(tmp_path / "b", scores, resume=True, **options))
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_another_threshold_cannot_continue_a_run(bundle, recordings, scores, tmp_path):
    loaded, settings = Bundle.load(bundle), settings_for(tmp_path / "r", scores)
    detect_recordings(loaded, [recordings], settings)  # kept, since files are not well
    lower = DetectionSettings(output=tmp_path / "r", min_confidence=0.01, resume=True)
    with pytest.raises(OutputError, match="holds a run with other thresholds"):
        detect_recordings(loaded, [recordings], lower)


def test_a_species_list_leaves_the_others_out(bundle, recordings, scores, tmp_path):
    loaded, listed = Bundle.load(bundle), FilterSettings(species_list=tmp_path / "list.txt")
    detect_recordings(loaded, [recordings], settings_for(tmp_path / "all", scores))
    found = rows_of(tmp_path / "all")
    label = found[0]["Label"]
    (tmp_path / "list.txt").write_text(f"{label}\n")
    detect_recordings(loaded, [recordings], settings_for(tmp_path / "r", scores, species=listed))
    assert rows_of(tmp_path / "r") == [row for row in found if row["Label"] == label]
    assert {row["Label"] for row in found} > {label}


def test_thresholds_of_a_table_count_for_their_species(bundle, recordings, scores, tmp_path):
    (tmp_path / "t.csv").write_text(f"label,threshold\n{LABELS[0]},1\n")
    settings = settings_for(tmp_path / "r", scores, thresholds=tmp_path / "t.csv")
    detect_recordings(Bundle.load(bundle), [recordings], settings)
    assert LABELS[0] not in {row["Label"] for row in rows_of(tmp_path / "r")}


def test_a_second_run_replaces_the_first(bundle, recordings, scores, tmp_path):
    loaded, sites = Bundle.load(bundle), [recordings / "siteA", recordings / "siteB"]
    for site in sites:
        detect_recordings(loaded, [site], settings_for(tmp_path / "r", scores, formats=("csv", "raven"), force=True))
    detect_recordings(loaded, sites[1:], settings_for(tmp_path / "once", scores, formats=("csv", "raven")))
    assert content(tmp_path / "r") == content(tmp_path / "once")


def test_a_folder_of_other_things_is_left_alone(bundle, recordings, scores, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "detections.csv").write_text("mine")
    with pytest.raises(OutputError, match="no folder of detections"):
        detect_recordings(Bundle.load(bundle), [recordings], settings_for(tmp_path / "r", scores))
    assert (tmp_path / "r" / "detections.csv").read_text() == "mine"


def test_a_folder_that_holds_the_recordings_is_refused(bundle, recordings, scores, tmp_path):
    shutil.copytree(recordings, tmp_path / "r")
    before = content(tmp_path)
    for output in (tmp_path / "r", tmp_path):
        with pytest.raises(OutputError, match="an input of this command"):
            detect_recordings(Bundle.load(bundle), [tmp_path / "r"], settings_for(output, scores, force=True))
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"min_confidence": 1.5}, "--min-confidence"),
        ({"min_confidence": float("nan")}, "--min-confidence"),
        ({"top_k": 0}, "--top-k"),
        ({"merge_gap": -1.0}, "--merge-gap"),
        ({"formats": ("csv", "xls")}, "there is no 'xls'"),
    ],
)
def test_what_cannot_be_is_named_and_nothing_is_written(bundle, recordings, tmp_path, options, problem):
    with pytest.raises(BirdinferError, match=problem):
        detect_recordings(Bundle.load(bundle), [recordings], DetectionSettings(output=tmp_path / "r", **options))
    assert not (tmp_path / "r").exists()


def test_resume_and_force_exclude_each_other(bundle, recordings, tmp_path):
    with pytest.raises(ConfigError, match="--force"):
        detect_recordings(
            Bundle.load(bundle), [recordings], DetectionSettings(output=tmp_path / "r", resume=True, force=True)
        )


def test_a_dead_microphone_is_no_effort(bundle, tmp_path):
    (tmp_path / "siteA").mkdir()
    write_sound(tmp_path / "siteA" / "20250227_060000.wav", tone(30.0), SAMPLE_RATE)
    dead = np.zeros((20 * SAMPLE_RATE, 2), np.float32)
    write_sound(tmp_path / "siteA" / "20250227_070000.wav", dead, SAMPLE_RATE)
    settings = DetectionSettings(output=tmp_path / "r", min_confidence=0, summary=SummarySettings())
    detect_recordings(Bundle.load(bundle), [tmp_path / "siteA"], settings)
    (effort,) = rows_of(tmp_path / "r" / "summary", "effort_by_day.csv")
    assert (effort["recordings"], effort["effort_minutes"], effort["left_out_minutes"]) == ("2", "0.500", "0.333")
    days = rows_of(tmp_path / "r" / "summary", "species_by_day.csv")
    assert [(row["detections"], row["minutes"]) for row in days] == [("1", "0.500")] * len(LABELS)


def test_what_killed_writers_have_left_is_removed(bundle, recordings, scores, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".detections.csv.abc.part").touch()
    (tmp_path / "r" / ".raven.abc.part" / "new").mkdir(parents=True)
    (tmp_path / "r" / ".mine.part").touch()
    settings = settings_for(tmp_path / "r", scores, formats=("csv", "raven"), force=True)
    detect_recordings(Bundle.load(bundle), [recordings], settings)
    assert [path.name for path in (tmp_path / "r").glob(".*")] == [".mine.part"]


def test_what_an_earlier_run_has_left_is_named(bundle, recordings, scores, tmp_path):
    warnings = []

    class Noted(PredictionCallback):
        def on_warning(self, line):
            warnings.append(line)

    loaded = Bundle.load(bundle)
    for formats in (("csv", "jsonl"), ("csv",)):
        settings = settings_for(tmp_path / "r", scores, formats=formats, force=True)
        detect_recordings(loaded, [recordings / "siteA"], settings, Noted())
    assert [line for line in warnings if "earlier run" in line] == [
        f"{tmp_path / 'r'}: not renewed, of an earlier run: detections.jsonl"
    ]


class _Messages(PredictionCallback):
    def __init__(self):
        self.lines = []

    def on_message(self, line):
        self.lines.append(line)


def test_recordings_without_a_clock_time_are_named(bundle, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("first", "20250227_060000"):
        write_sound(tmp_path / "in" / f"{name}.wav", tone(10.0), SAMPLE_RATE)
    callback = _Messages()
    settings = DetectionSettings(output=tmp_path / "r", summary=SummarySettings())
    detect_recordings(Bundle.load(bundle), [tmp_path / "in"], settings, callback)
    assert any("which count in no day and no hour: 1 (" in line for line in callback.lines)
