"""``birdinfer kaggle dry-run`` as a user types it."""

import sys

import pytest
from make_bundles import tone, write_sound
from packed_submission import plant, write_packed


@pytest.fixture
def packed(tmp_path, bundle):
    return write_packed(tmp_path / "packed", bundle)


@pytest.fixture
def sounds(tmp_path):
    (tmp_path / "sounds").mkdir()
    write_sound(tmp_path / "sounds" / "one.ogg", tone(5.0))
    return tmp_path / "sounds"


@pytest.fixture
def dry_run(birdinfer, packed, sounds):
    """With this Python, in one layout and with two soundscapes."""

    def run(*options):
        usual = ("--soundscapes", sounds, "--files", "2", "--python", sys.executable, "--layout", "2026")
        return birdinfer("kaggle", "dry-run", packed, *usual, *options)

    return run


def test_a_sound_submission_is_shown_in_a_table(dry_run, packed):
    plant(packed, "")
    code, out, err = dry_run()
    assert code == 0
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    assert [[row[1].strip(), row[2].strip(), row[5].strip(), row[7].strip()] for row in rows] == [
        ["public", "2026", "0", "ok"],
        ["hidden", "2026", "3", "ok"],
    ]
    assert "it would pass" in out
    assert "network: " in out
    assert "the hidden run, mounts of 2026" in err


def test_what_would_fail_is_shown_with_the_last_words_and_the_exit_code(dry_run, packed):
    plant(packed, "print('[red]my own words[/]'); raise SystemExit(5)")
    code, out, _ = dry_run()
    assert code == 3
    assert "would fail  public run, mounts of 2026: the notebook ends with 5" in out
    assert "[red]my own words[/]" in out
    assert "it would fail" in out
    assert "Traceback" not in out


def test_a_fault_of_the_folder_is_shown_without_a_run(dry_run, packed):
    (packed / "dataset" / "fold0.onnx").unlink()
    code, out, _ = dry_run()
    assert code == 3
    assert "would fail  the bundle: " in out
    assert "mounts" not in out


def test_missing_species_are_shown_and_no_pass(dry_run, packed):
    plant(packed, "")
    (packed / "sample_submission.csv").unlink()
    code, out, _ = dry_run()
    assert code == 3
    assert "missing species  the bundle knows 4 species, birdclef-2025 asks for 206: 202 would hold a constant" in out
    assert '--option="--missing-species prior"' in out
    assert "it would pass, but for these species" in out


def test_the_time_limit_is_read_as_every_other_duration(dry_run, packed):
    plant(packed, "import time; time.sleep(30)")
    code, out, _ = dry_run("--time-limit", "0.3s")
    assert code == 3
    assert "not done within 0.005 min" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--time-limit", "soon"), "--time-limit: 'soon' is no length of time"),
        (("--time-limit", "90"), "--time-limit: '90' has no unit - write 90m or 90s"),
        (("--sample", "nowhere.csv"), "nowhere.csv: no such file"),
        (("--soundscapes", "nowhere"), "nowhere: holds no .ogg file"),
        (("--python", "nothing"), "--python: nothing makes no environment"),
    ],
)
def test_wrong_use_is_one_line(dry_run, packed, options, message):
    plant(packed, "")
    code, _, err = dry_run(*options)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
