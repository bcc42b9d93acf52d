"""What a message of training says to do is done, and then it works."""

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_clips import LABELS, write_clips, write_table

from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.folds import assign_folds
from birdinfer.training.data.folds_file import write_folds
from birdinfer.training.data.metadata import read_metadata, without_rare
from birdinfer.training.recipe.schema import DataConfig, Recipe
from birdinfer.training.recipe.toml import change


@st.composite
def tables(draw):
    """Few clips of few authors, with or without a column of folds."""
    folds = st.sampled_from(draw(st.sampled_from(["", "01", "012", "0x", ["-2", "0"], ["0", ""]])) or [""])
    people = st.sampled_from(["", "Field Team", "Anna"][: draw(st.integers(2, 3))])
    n_clips = draw(st.integers(1, 12))
    labels = st.sampled_from("abc"[: draw(st.integers(1, 3))])
    return [
        Clip(f"{index:02}", Path("x"), draw(labels), author=draw(people), given_fold=draw(folds))
        for index in range(n_clips)
    ]


def configs():
    return st.builds(
        lambda n_folds, share, test_share, by_column: DataConfig(
            n_folds=n_folds,
            val_share=0.0 if by_column else share,
            test_share=test_share,
            fold_column="fold" if by_column else "",
        ),
        st.integers(2, 6),
        st.sampled_from([0.0, 0.0, 0.2]),
        st.sampled_from([0.0, 0.0, 0.3]),
        st.booleans(),
    )


def refusal(clips, config, seed):
    try:
        assign_folds(clips, config, seed)
    except ConfigError as error:
        return error
    return None


def check_hints_of_folds(clips, config, seed):
    """Obey each setting that a refusal names; how many it names."""
    refused = refusal(clips, config, seed)
    if refused is None:
        return 0
    settings = re.findall(r"(?:set|or) (data\.\S+(?: with data\.\S+)*)", refused.hint)
    assert settings, str(refused)
    for setting in settings:
        changed = change(Recipe(data=config), setting.split(" with "))
        assert len(assign_folds(clips, changed.data, seed)) == len(clips)
    return len(settings)


@given(tables(), configs(), st.integers(0, 3))
def test_settings_that_a_refusal_of_folds_names_work(clips, config, seed):
    check_hints_of_folds(clips, config, seed)


def test_recordings_of_one_author_are_refused_with_what_they_share():
    clips = [Clip(f"{label}{i}", Path("x"), label, author="Field Team") for label in "abc" for i in range(3)]
    with pytest.raises(ConfigError) as caught:
        assign_folds(clips, DataConfig(), 0)
    assert str(caught.value) == (
        "data.n_folds: is 5, only 1 sets of recordings share no author or recording; 9 of 9 clips share the author "
        """'Field Team' - set data.group_by=["recording"] or data.all_data=true"""
    )
    assert check_hints_of_folds(clips, DataConfig(), 0) == 2


def test_folds_of_a_file_are_refused_with_their_number(tmp_path):
    clips = [Clip(f"{i}", Path("x"), "a") for i in range(9)]
    write_folds(tmp_path / "folds.csv", clips, [i % 3 for i in range(9)])
    assert check_hints_of_folds(clips, DataConfig(folds_file=str(tmp_path / "folds.csv")), 0)


CELLS = {
    "no label": (["", "0012/XC0.wav", "[]"], "fill it in", ["0012", "0012/XC0.wav", "[]"]),
    "no label, row out": ([" nan", "0012/XC0.wav", "[]"], "take the row out", None),
    "no file": (["0012", "", "[]"], "fill it in", ["0012", "0012/XC0.wav", "[]"]),
    "near miss": (["0012 ", "0012/XC0.wav", "[]"], "write it as in taxonomy.csv", ["0012", "0012/XC0.wav", "[]"]),
    "unknown": (["new", "0012/XC0.wav", "[]"], "take its rows out", None),
    "two labels": (["comcuc", "0012/XC1.wav", "[]"], "keep one of the rows", None),
    "cut list": (["0012", "0012/XC0.wav", "['comcuc"], "mend the row", ["0012", "0012/XC0.wav", "['comcuc']"]),
    "NUL": (["0012", "0012/\0XC0.wav", "[]"], "copy the table again", ["0012", "0012/XC0.wav", "[]"]),
}


@pytest.mark.parametrize("case", CELLS)
def test_rows_that_are_mended_as_a_refusal_says_are_read(tmp_path, case):
    wrong, hint, right = CELLS[case]
    data, header = write_clips(tmp_path / "data", 2), ["primary_label", "filename", "secondary_labels"]
    write_table(data / "train.csv", header, [["0012", "0012/XC1.wav", "[]"], wrong])
    with pytest.raises(BirdinferError, match=r"rows? (2 and )?3\b") as caught:
        read_metadata(data)
    assert hint in caught.value.hint
    write_table(data / "train.csv", header, [["0012", "0012/XC1.wav", "[]"], *([right] if right else [])])
    assert len(read_metadata(data).clips) == (2 if right else 1)


def test_a_species_that_is_added_as_a_refusal_says_is_one(tmp_path):
    data = write_clips(tmp_path / "data", 2)
    write_table(data / "train.csv", ["primary_label", "filename"], [["new", "0012/XC1.wav"]])
    with pytest.raises(BirdinferError, match="add the species there"):
        read_metadata(data)
    with (data / "taxonomy.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["new", "Aves"])
    assert read_metadata(data).labels == (*LABELS, "new")


def test_a_least_number_of_clips_that_is_lowered_as_a_refusal_says_leaves_some(tmp_path):
    metadata = read_metadata(write_clips(tmp_path / "data", 2))
    with pytest.raises(ConfigError, match="lower it to 2") as caught:
        without_rare(metadata, 9)
    assert without_rare(metadata, int(caught.value.hint.split()[-1])).clips == metadata.clips
