"""10,000 inputs that no one would make on purpose: sound, bundles, tables, names. None may crash, hang or raise.

10,000 files more have headers that lie and ends that are cut: all sound that is there is read or reported missing.

BIRDINFER_FUZZ_INPUTS says how many in all, BIRDINFER_FUZZ_SEED which ones; an input at fault is named by its file or
by the seed that makes it again.
"""

import os

import pytest
from fuzzing import Tally, fuzz_audio, fuzz_bundles, fuzz_headers, fuzz_names, fuzz_tables
from test_fuzz import LIST, TABLE, score

from birdinfer.inference.bundle import demo_bundle_path
from birdinfer.inference.external.label_lists import read_label_list
from birdinfer.submission.formats import read_sample
from birdinfer.tables.scores import read_scores

N_INPUTS = int(os.environ.get("BIRDINFER_FUZZ_INPUTS", "10000"))
SEED = int(os.environ.get("BIRDINFER_FUZZ_SEED", "1"))
LIMIT_SECONDS = 120.0

pytestmark = pytest.mark.slow


def record(table: list[dict[str, str]], what: str, tally: Tally) -> None:
    table.append(
        {
            "what": f"fuzzing, {what}: {tally.inputs:,} inputs",
            "measured": f"{len(tally.faults)} faults",
            "bound": "0",
            "detail": f"{tally.read:,} read, {tally.refused:,} refused, longest {tally.longest_seconds:.2f} s",
        }
    )
    assert not tally.faults, "\n".join(tally.faults[:20])


@pytest.mark.timeout(3600)
def test_sound(tmp_path, table):
    record(table, "sound", fuzz_audio(tmp_path, N_INPUTS * 60 // 100, SEED, LIMIT_SECONDS))


@pytest.mark.timeout(3600)
def test_headers(tmp_path, table):
    record(table, "lies and cuts", fuzz_headers(tmp_path, N_INPUTS, SEED))


@pytest.mark.timeout(3600)
def test_bundles(tmp_path, table):
    record(table, "bundles", fuzz_bundles(demo_bundle_path(), tmp_path / "bundle", N_INPUTS * 15 // 100, SEED))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("what", "good", "read"),
    [
        ("score tables", TABLE, read_scores),
        ("sample submissions", TABLE, read_sample),
        ("scoring", TABLE, score),
        ("lists of labels", LIST, read_label_list),
    ],
)
def test_tables(tmp_path, table, what, good, read):
    record(table, what, fuzz_tables(good, tmp_path / "a.csv", read, N_INPUTS * 5 // 100, SEED))


@pytest.mark.timeout(3600)
def test_names(tmp_path, table):
    record(table, "names", fuzz_names(tmp_path, demo_bundle_path(), N_INPUTS * 5 // 100, SEED, LIMIT_SECONDS))
