"""``birdinfer detect`` on the screen, and what it refuses."""

import csv
from pathlib import Path

import pytest
from make_bundles import SAMPLE_RATE, tone, write_sound


@pytest.fixture
def detect(birdinfer, bundle, soundscapes, tmp_path):
    """Runs the command on three files; exit code, what was printed, and the folder."""

    def run(*options):
        out = tmp_path / "results"
        code, _, shown = birdinfer("detect", soundscapes, "-o", out, "--bundle", bundle, *options)
        return code, shown, out

    return run


def labels_of(folder):
    with (folder / "detections.csv").open(newline="") as file:
        return {row["Label"] for row in csv.DictReader(file)}


def test_the_summary_names_bundle_species_and_the_most_frequent(detect):
    code, shown, out = detect("--min-confidence", "0.5", "--no-page")
    assert code == 0
    (line,) = [line for line in shown.splitlines() if line.startswith(f"{out}: ")]
    labels = labels_of(out)
    assert f" detections of {len(labels)} of " in line
    assert "species in linear: " in line
    assert not (out / "index.html").exists()
    assert not Path(f"{out}.progress").exists()


def test_everything_is_in_one_folder(detect):
    code, _, out = detect(
        "--format", "csv, jsonl,raven,raven-combined,audacity,kaleidoscope", "--clips", "1", "--min-confidence", "0.5"
    )
    assert code == 0
    assert {path.name for path in out.iterdir()} == {
        "detections.json", "detections.csv", "detections.jsonl", "raven", "raven-combined", "audacity",
        "kaleidoscope.csv", "files.csv", "clips", "summary", "index.html", "page",
    }  # fmt: skip


def test_without_any_detection_all_tables_are_there(detect):
    code, shown, out = detect("--min-confidence", "1", "--format", "csv,raven", "--clips", "1")
    assert code == 0
    assert "0 detections of 0 of " in shown
    assert (out / "detections.csv").read_text().count("\n") == 1
    assert (out / "index.html").exists()


def test_a_bad_file_is_named_and_the_exit_code_says_so(birdinfer, bundle, tmp_path):
    write_sound(tmp_path / "good.wav", tone(10.0), SAMPLE_RATE)
    (tmp_path / "bad.wav").write_text("no sound")
    out = tmp_path.with_name("results_of_two")
    code, _, shown = birdinfer("detect", tmp_path, "-o", out, "--bundle", bundle, "--no-page", "--no-summary")
    assert code == 3
    assert "unreadable" in shown
    assert "--resume" in shown


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--format", "xls"), "there is no 'xls'"),
        (("--timezone", "Mars"), "Mars"),
        (("--lat", "50"), "is for a location model"),
        (("--species", "gone.txt"), "gone.txt: no such file"),
        (("--thresholds", "gone.csv"), "gone.csv: no such file"),
        (("--resume", "--force"), "give one of them"),
        (("--merge-gap", "-1"), "--merge-gap"),
        (("--time-budget", "5"), "--time-budget"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(detect, options, line):
    code, shown, out = detect(*options)
    assert code == 2
    assert line in " ".join(shown.split())
    assert not out.exists()


def test_embeddings_are_those_of_predict(birdinfer, embedding_bundle, embedded, soundscapes, tmp_path):
    words = ("detect", soundscapes, "--bundle", embedding_bundle.folder, "--no-page", "--no-summary", "-q")
    only = tmp_path / "species.txt"
    only.write_text("comcuc\n")
    assert birdinfer(*words, "-o", tmp_path / "r", "--embeddings", tmp_path / "e", "--species", only)[0] == 0
    for path in (embedded / "fold0").glob("*.*"):
        if path.suffix in {".npy", ".csv"}:
            assert (tmp_path / "e" / "fold0" / path.name).read_bytes() == path.read_bytes()
    code, _, err = birdinfer(*words, "-o", tmp_path / "s", "--embeddings", tmp_path / "f", "--time-budget", "60s")
    assert code == 2
    assert "--time-budget may leave some out" in err
