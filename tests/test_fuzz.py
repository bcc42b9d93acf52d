"""A few hundred inputs that no user would make on purpose; benchmarks/test_fuzzing.py has ten thousand of them."""

import os
from pathlib import Path

import numpy as np
import pytest
from fuzzing import Tally, fuzz_audio, fuzz_bundles, fuzz_names, fuzz_tables
from mutants import audio_seeds, mutate, odd_audio, odd_name

from birdinfer.cli.score import score_submission
from birdinfer.inference.external.label_lists import read_label_list
from birdinfer.submission.formats import read_sample
from birdinfer.tables.scores import read_scores

TABLE = b"row_id,a,b,0012\nx_5,0.9,0.5,0.1\nx_10,0.2,0.4,0.2\nx_15,0.1,0.1,0.3\n"
LIST = b"primary_label,scientific_name,class_name\ncomcuc,Cuculus canorus,Aves\n1161364,Rana a,Amphibia\n"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return audio_seeds(tmp_path_factory.mktemp("seeds"))


def test_300_damaged_sound_files_are_read_or_refused_and_none_ends_the_process(tmp_path):
    tally = fuzz_audio(tmp_path, 300, seed=0, limit_seconds=60, batch=150)
    assert not tally.faults
    assert tally.inputs == 300
    assert min(tally.read, tally.refused) > 30  # else the damage is of one kind only


def test_fuzz_audio_reports_a_process_that_crashes_or_hangs_with_its_file(tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    child.write_text(
        "import os, sys, time\nfrom pathlib import Path\n"
        "folder, log = map(Path, sys.argv[1:])\n"
        "done = [line.split('\\t')[0] for line in log.read_text().splitlines()] if log.exists() else []\n"
        "for path in sorted(folder.iterdir()):\n"
        "    if path.name in done:\n        continue\n"
        "    with log.open('a') as lines:\n        lines.write(path.name)\n"
        "    if path.name.startswith('000002'):\n        os.abort()\n"
        "    if path.name.startswith('000004'):\n        time.sleep(60)\n"
        "    with log.open('a') as lines:\n        lines.write('\\t0.001\\tread\\n')\n"
    )
    monkeypatch.setattr("fuzzing.DECODE_FILES", child)
    tally = fuzz_audio(tmp_path / "fuzz", 6, seed=0, limit_seconds=2, batch=6)
    assert (tally.inputs, tally.read) == (6, 4)
    crashed, hung = tally.faults
    assert "000002" in crashed
    assert "exit -6" in crashed
    assert "000004" in hung
    assert "over the limit" in hung


def test_150_damaged_bundles_are_read_or_refused(bundle, tmp_path):
    tally = fuzz_bundles(bundle, tmp_path / "bundle", 150, seed=0)
    assert not tally.faults
    assert tally.refused > 75


def score(path: Path) -> None:
    truth = path.with_name("truth.csv")
    truth.write_bytes(TABLE.replace(b"0.9", b"1").replace(b"0.4", b"1"))
    score_submission(path, truth)


@pytest.mark.parametrize("read", [read_scores, read_sample, score])
def test_200_damaged_tables_are_read_or_refused(tmp_path, read):
    tally = fuzz_tables(TABLE, tmp_path / "a.csv", read, 200, seed=0)
    assert not tally.faults
    assert tally.refused > 20


def test_200_damaged_lists_of_labels_are_read_or_refused(tmp_path):
    tally = fuzz_tables(LIST, tmp_path / "a.csv", read_label_list, 200, seed=0)
    assert not tally.faults
    assert tally.refused > 20


def test_50_files_with_odd_names_are_predicted_by_the_command(bundle, tmp_path):
    tally = fuzz_names(tmp_path, bundle, 50, seed=0)
    assert not tally.faults
    assert tally.read + tally.refused == 50
    assert tally.read > 30


def test_tally_counts_exceptions_that_are_not_birdinfers(tmp_path):
    def fail(path: Path) -> None:
        raise RecursionError(path.name)

    tally = fuzz_tables(TABLE, tmp_path / "a.csv", fail, 3, seed=0)
    assert isinstance(tally, Tally)
    assert len(tally.faults) == 3
    assert "RecursionError" in tally.faults[0]


def test_the_same_seed_makes_the_same_inputs(seeds):
    one, two = ([odd_audio(np.random.default_rng([5, number]), seeds) for number in range(50)] for _ in range(2))
    assert one == two
    assert len({raw for _, raw in one}) > 45


def test_damage_does_damage(seeds):
    raw = seeds["flac.flac"]
    assert sum(mutate(np.random.default_rng(number), raw) != raw for number in range(50)) > 45


def test_odd_names_can_be_names_of_files(tmp_path):
    rng = np.random.default_rng(0)
    names = [odd_name(rng, number, b".wav") for number in range(300)]
    assert len(set(names)) == 300
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    assert max(map(len, names)) > 200
    assert any(b"\n" in name for name in names)
