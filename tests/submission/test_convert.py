"""A submission of one shape becomes another: what predict would have written, and back what is still there."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.audio.status import Status
from birdinfer.config import WindowConfig
from birdinfer.errors import ConfigError, MetadataError
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.writer import SubmissionWriter
from birdinfer.submission.check import check_submission
from birdinfer.submission.convert import Converted, convert_submission

WIDE = "row_id,comcuc,0012\n3575_COL_20170105_5,0.9,0.5\n3575_COL_20170105_10,0.1,0.4999999\n"
LISTS = "row_id,birds\n3575_COL_5,comcuc 0012\n3575_COL_10,nocall\n"
TRUTHS = (
    "row_id,target\n"
    "3575_COL_20170105_comcuc_5,True\n3575_COL_20170105_0012_5,True\n"
    "3575_COL_20170105_comcuc_10,False\n3575_COL_20170105_0012_10,False\n"
)
LABELS = ("comcuc", "0012", "nocall")


@pytest.fixture
def convert(tmp_path):
    """Converts text; what was written."""

    def run(content, year, sample=None, **options):
        (tmp_path / "given.csv").write_text(content)
        if sample:
            (tmp_path / "sample.csv").write_text(sample)
            options["sample"] = tmp_path / "sample.csv"
        convert_submission(tmp_path / "given.csv", tmp_path / "made.csv", year, **options)
        return (tmp_path / "made.csv").read_text()

    return run


def test_probabilities_to_lists_and_truths_by_hand(convert):
    assert convert(WIDE, 2021) == LISTS
    assert convert(WIDE, 2022) == TRUTHS
    assert convert(WIDE, 2021, threshold=0.91) == LISTS.replace("comcuc 0012", "nocall")


def test_truths_to_the_other_two_and_back(convert):
    wide = WIDE.replace("0.9,0.5", "1,1").replace("0.1,0.4999999", "0,0")
    assert convert(TRUTHS, 2021) == LISTS
    assert convert(TRUTHS, 2025) == wide
    assert convert(wide, 2022) == TRUTHS


def test_lists_go_back_where_a_sample_names_the_species(convert):
    wide = "row_id,0012,comcuc\n3575_COL_20170105_10,0,0\n3575_COL_20170105_5,1,1\n"
    assert convert(LISTS, 2026, sample=wide) == wide
    assert convert(LISTS, 2022, sample=TRUTHS) == TRUTHS


def test_a_sample_decides_rows_columns_and_order(convert):
    assert convert(WIDE, 2021, sample="row_id,birds\n3575_COL_10,\n") == "row_id,birds\n3575_COL_10,nocall\n"
    asked = "row_id,target\n3575_COL_20170105_0012_10,\n3575_COL_20170105_0012_5,\n"
    assert convert(WIDE, 2022, sample=asked) == (
        "row_id,target\n3575_COL_20170105_0012_10,False\n3575_COL_20170105_0012_5,True\n"
    )


def test_convert_returns_rows_and_years(tmp_path):
    (tmp_path / "given.csv").write_text(WIDE)
    assert convert_submission(tmp_path / "given.csv", tmp_path / "made.csv", 2022) == Converted(4, 2026, 2022)
    assert (tmp_path / "made.csv").read_text() == TRUTHS


@given(
    st.sampled_from([2021, 2022]),
    st.lists(st.sampled_from(["3575_COL_20170105", "soundscape_7", "a,b"]), min_size=1, unique=True),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_it_writes_what_predict_would_have(tmp_path, year, stems, threshold, seed):
    """Also of scores so near the threshold that seven digits put them on its other side."""
    chance = np.random.default_rng(seed)
    results = [SoundscapeResult(Path(f"{stem}.ogg"), Status.ok) for stem in stems]
    near = np.float32(threshold) + np.arange(-8, 8, dtype=np.float32) * np.float32(3e-8)
    score_store = ScoreStore(len(LABELS))
    for result in results:
        score_store.add(result.path, chance.choice(np.clip(np.append(near, 0.9), 0, 1), (3, len(LABELS))))
    for name, shape in (("wide", 2026), ("wanted", year)):
        writer = SubmissionWriter(LABELS, [0.1] * len(LABELS), WindowConfig(), year=shape, threshold=threshold)
        writer.write(tmp_path / f"{name}.csv", score_store, results)
    convert_submission(tmp_path / "wide.csv", tmp_path / "made.csv", year, threshold)
    assert (tmp_path / "made.csv").read_bytes() == (tmp_path / "wanted.csv").read_bytes()
    assert check_submission(tmp_path / "made.csv", tmp_path / "wanted.csv", year).is_ok


@pytest.mark.parametrize(
    ("content", "year", "sample", "error", "problem"),
    [
        (WIDE, 2024, None, ConfigError, "has the format of 2024 already - choose a year with another format"),
        (LISTS, 2021, None, ConfigError, "has the format of 2021 already"),
        (WIDE, 2020, None, ConfigError, "2020 is not known"),
        (LISTS, 2026, None, ConfigError, "--sample: is needed: lists name only the species .* sample of 2026"),
        (LISTS, 2022, LISTS, MetadataError, r"not those of 2022 \(row_id,target\)"),
        (LISTS, 2026, WIDE.replace("comcuc", "houspa"), MetadataError, "names 'comcuc', which the sample does not"),
        (LISTS.replace("nocall", ""), 2026, WIDE, MetadataError, "row '3575_COL_10' is empty"),
        (LISTS.replace("nocall", "a,b"), 2026, WIDE, MetadataError, "row 3 has 3 cells, the header 2"),
        (WIDE, 2022, TRUTHS.replace("0012", "houspa"), MetadataError, "lacks 1 labels that .* asks for: houspa"),
        (WIDE, 2021, LISTS + "3575_COL_15,\n", MetadataError, "lacks 1 rows that .*sample.csv asks for: 3575_COL_15"),
        (WIDE.replace("0.9", "3.2"), 2021, None, MetadataError, "holds 3.2, not a probability"),
        (WIDE.replace("0.9", "nan"), 2021, None, MetadataError, "holds 'nan' - a finite number is needed"),
        (WIDE.replace("05_10", "06_5"), 2021, None, MetadataError, "at second 5 would have one row id"),
        (TRUTHS.replace("True", "1", 1), 2021, None, MetadataError, "holds '1' - True or False is needed"),
        (TRUTHS.replace("0012_10,", "comcuc_05,"), 2021, None, MetadataError, "comcuc_05' is about the window"),
        (TRUTHS.rpartition("3575")[0], 2021, None, MetadataError, "lacks 1 rows: not every species is in every window"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused_and_nothing_is_written(
    convert, tmp_path, content, year, sample, error, problem
):
    with pytest.raises(error, match=problem) as caught:
        convert(content, year, sample)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made.csv").exists()
