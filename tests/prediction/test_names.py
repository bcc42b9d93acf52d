"""Whatever recordings are called: the tables of a run pass our own readers and pandas."""

import csv
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer import Bundle, PredictionSettings, predict_to_csv
from birdinfer.cli.blend import BlendSettings, blend_tables
from birdinfer.cli.score import score_submission
from birdinfer.submission.check import check_submission
from birdinfer.submission.problems import Kind
from birdinfer.tables.csv import csv_rows

pytestmark = pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
FOLDERS = ["n", "siteA", "site, B", b"H\xf6hle", "S\u00e3o", "Sa\u0303o", "-x", " ", "a\nb", "..b", "nan"]
STEMS = [
    "20250227_060000", "-", "--help", "a,b", 'a"b', "'", "a\nb", "a\rb", "\r\n", " a ", "a.b", ".", "..a", "a_5", "5",
    "#", "=1+1", "S\u00e3o", "Sa\u0303o", b"\xf6", b"\xed\xa0\x80", b"a\xff\xfeb", "\u2028", "\x07", "\x1b[2J", "\\xf6",
    "nan", "row_id", "\ufeff", "soundscape_1", "%s", "x" * 200,
]  # fmt: skip
ENDINGS = [".wav", ".WAV", ".flac", ".x.wav"]


def as_bytes(part):
    return part if isinstance(part, bytes) else part.encode()


any_name = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=20)
names = st.builds(
    lambda folder, stem, ending: as_bytes(folder) + b"/" + as_bytes(stem) + as_bytes(ending),
    st.sampled_from(FOLDERS),
    st.one_of(st.sampled_from(STEMS), any_name, st.binary(max_size=12).map(lambda raw: raw.translate(None, b"/\0"))),
    st.sampled_from(ENDINGS),
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    for index, ending in enumerate(("wav", "flac")):
        write_sound(folder / f"a.{ending}", tone(1.0, hz=500.0 * (index + 1)), SAMPLE_RATE)
    return folder


def written(path):
    with path.open(newline="", encoding="utf-8") as text:
        return list(csv.reader(text))


@settings(max_examples=15)
@given(paths=st.sets(names, min_size=2, max_size=6))
@example(paths={b"siteA/1.wav", b"siteA/1.flac", b"siteB/1.wav", b"siteB/\xf6.wav", b"siteB/\\xf6.wav"})
@example(paths={b"n/" + as_bytes(stem) + b".wav" for stem in STEMS})
def test_tables_of_any_names_pass_every_reader(tmp_path_factory, bundle, sound, paths):
    folder = tmp_path_factory.mktemp("any_names")
    files = set()
    for path in paths:
        made = folder / "in" / os.fsdecode(path)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes((sound / f"a.{made.name.rpartition('.')[2].lower()}").read_bytes())
        files.add(made)
    out, blended, truth = folder / "s.csv", folder / "b.csv", folder / "t.csv"
    outcome = predict_to_csv(Bundle.load(bundle), [folder / "in"], PredictionSettings(output=out, workers=1))
    assert outcome.n_damaged == 0
    header, *rows = written(out)
    row_ids = [row[0] for row in rows]
    assert row_ids == [f"{outcome.names[result.path]}_5" for result in outcome.results]
    assert len(set(row_ids)) == len(files)

    problems = {problem.kind for problem in check_submission(out, year=2026).problems if problem.is_error}
    assert problems <= ({Kind.prefix_twice} if any("soundscape_soundscape" in name for name in row_ids) else set())
    assert pd.read_csv(out)["row_id"].tolist() == row_ids
    side_table = pd.read_csv(out.with_suffix(".files.csv"))
    assert len(side_table) == len(files)
    with csv_rows(out.with_suffix(".files.csv")) as cells:
        assert len([row for row in cells if row]) == 1 + len(files)

    labels = header[1:]
    with truth.open("w", newline="", encoding="utf-8") as text:
        table = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        table.writerow(header)
        table.writerows(
            [row_id, *np.eye(len(labels), dtype=int)[at % len(labels)]] for at, row_id in enumerate(row_ids)
        )
    assert score_submission(out, truth).rows == len(files)
    blend_tables([out, out], blended, BlendSettings())
    assert written(blended) == written(out)

    # A table of one's own may be the sample of the next run.
    again = PredictionSettings(output=folder / "again.csv", sample_submission=out, workers=1)
    assert predict_to_csv(Bundle.load(bundle), [folder / "in"], again).written.fallback_rows == 0
    assert (folder / "again.csv").read_bytes() == out.read_bytes()


def test_sites_of_equal_names_resume_and_draw_apart(birdinfer, bundle, sound, tmp_path):
    for site in ("siteA", "siteB"):
        (tmp_path / site).mkdir()
        (tmp_path / site / "20250227_060000.WAV").write_bytes((sound / "a.wav").read_bytes())
    options = ("-o", tmp_path / "s.csv", "--bundle", bundle, "--plots", tmp_path / "plots")
    assert birdinfer("predict", tmp_path / "siteA", tmp_path / "siteB", *options, "-q") == (0, "", "")
    assert [row[0] for row in written(tmp_path / "s.csv")[1:]] == [
        f"{site}/20250227_060000_5" for site in ("siteA", "siteB")
    ]
    pictures = sorted(path.relative_to(tmp_path / "plots") for path in (tmp_path / "plots").rglob("*.png"))
    assert pictures == [Path("siteA/20250227_060000.png"), Path("siteB/20250227_060000.png")]


def test_what_cannot_be_opened_is_listed_with_exit_code_3(birdinfer, bundle, sound, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes((sound / "a.wav").read_bytes())
    (tmp_path / "in" / "b.wav").symlink_to("/gone/b.wav")
    (tmp_path / "in" / "c.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(64))
    (tmp_path / "in" / "notes.txt").touch()
    out = tmp_path / "s.csv"
    code, _, stderr = birdinfer("predict", tmp_path / "in", tmp_path / "empty", "-o", out, "--bundle", bundle)
    assert code == 3
    assert "no sound, left out: 1 .txt" in stderr
    listed = {Path(row[0]).name: (row[1], row[6]) for row in written(out.with_suffix(".files.csv"))[1:]}
    assert listed == {
        "a.wav": ("ok", ""),
        "b.wav": ("not opened", "links to /gone/b.wav, which is not there"),
        "c.m4a": ("unreadable", "is MP4 (AAC or ALAC), which cannot be decoded here - convert it to FLAC"),
        "empty": ("not opened", "holds no sound file"),
    }
    assert [row[0] for row in written(out)[1:]] == ["in/a_5"]
