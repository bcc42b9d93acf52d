"""Each fault of a small data folder is found, once, as grave as it is, with the key that helps."""

import re
import shutil
from pathlib import Path

import msgspec
import pytest
from made_data import noise, row, write_data, write_sound, write_table
from tiny_clips import TINY_FRONTEND

from birdinfer.callbacks import Callback
from birdinfer.report.findings import Severity, find_all
from birdinfer.report.survey import take_survey
from birdinfer.training.recipe.schema import DataConfig, LabelConfig, Recipe, flatten

RECIPE = Recipe(data=DataConfig(n_folds=2), frontend=TINY_FRONTEND)
PLAIN = [row(f"{label}/{number}.wav", rating="4") for label in "ab" for number in range(5)]
"""Ten clips of two species with which nothing is wrong."""


def findings(folder, recipe=RECIPE, *, sound=False):
    return find_all(take_survey(folder, recipe, sound=sound, callback=Callback()))


def titles(folder, recipe=RECIPE, *, sound=False):
    """Severity and title of each finding, the gravest first."""
    return [(each.severity.name, each.title) for each in findings(folder, recipe, sound=sound)]


def with_data(**keys):
    return msgspec.structs.replace(RECIPE, data=msgspec.structs.replace(RECIPE.data, **keys))


def test_find_all_finds_nothing_where_nothing_is_wrong(tmp_path):
    assert titles(write_data(tmp_path, PLAIN, taxonomy="ab")) == []


def test_find_all_names_what_stops_training_first(tmp_path):
    rows = [*PLAIN, row("c/1.wav"), row("a/9.wav", secondary_labels="['b"), row("a/1.wav", primary_label="b")]
    found = findings(write_data(tmp_path, rows, taxonomy="ab"))
    assert [each.title for each in found if each.severity is Severity.stops] == [
        "1 row of the table cannot be used",
        "1 primary label is not in taxonomy.csv",
        "1 file has two primary labels",
    ]
    assert found == sorted(found, key=lambda each: each.severity)


def test_find_all_finds_missing_broken_and_unlisted_files(tmp_path):
    folder = write_data(tmp_path, PLAIN, taxonomy="ab")
    clips = folder / "train_audio"
    (clips / "a" / "0.wav").unlink()
    (clips / "a" / "1.wav").write_bytes(b"no sound")
    cut = clips / "a" / "2.wav"
    cut.write_bytes(cut.read_bytes()[:-2_000])
    write_sound(clips / "b" / "other.wav", noise(1))
    found = {each.title: each for each in findings(folder)}
    assert list(found)[:3] == [
        "1 sound file is missing",
        "1 clip cannot be decoded",
        "1 file is truncated, or has a header that is wrong",
    ]
    assert found["1 sound file in the folder of clips is in no row"].examples == ("b/other.wav",)
    assert found["1 file is truncated, or has a header that is wrong"].examples == (
        "a/2.wav (truncated: 0.9 of 1.0 s)",
    )


def test_find_all_without_a_folder_of_clips_reports_the_tables(tmp_path):
    folder = write_data(tmp_path, PLAIN, taxonomy="ab")
    shutil.rmtree(folder / "train_audio")
    assert titles(folder)[:2] == [
        ("stops", "There is no folder of clips"),
        ("stops", "The recipe's folds cannot be assigned"),
    ]


def test_find_all_finds_copies_and_those_with_another_label(tmp_path):
    folder = write_data(tmp_path, PLAIN, taxonomy="ab")
    for copy in ("a/1.wav", "b/1.wav"):
        shutil.copy(folder / "train_audio" / "a" / "0.wav", folder / "train_audio" / copy)
    same, other = "1 pair of clips have the same bytes", "1 pair of clips have the same bytes and other primary labels"
    found = titles(folder)
    assert {("misleads", same), ("misleads", other)} <= set(found)
    assert ("note", same) in titles(folder, with_data(duplicates="group"))


@pytest.mark.parametrize("sound", [False, True])
def test_find_all_finds_near_duplicates_by_their_sound_alone(tmp_path, sound):
    folder = write_data(tmp_path, PLAIN, taxonomy="ab", seconds=2)
    long = noise(6, seed=99)
    for name, part in (("a/0.wav", long[: 5 * 8_000]), ("a/1.wav", 0.5 * long[8_000:])):
        write_sound(folder / "train_audio" / name, part)
    found = [each for each in findings(folder, sound=sound) if "same sound" in each.title]
    assert [each.examples for each in found] == ([("a/0.wav = a/1.wav (4 s)",)] if sound else [])


def test_find_all_finds_silent_and_clipped_clips_by_their_sound(tmp_path):
    folder = write_data(tmp_path, PLAIN, taxonomy="ab", seconds=2)
    write_sound(folder / "train_audio" / "a" / "0.wav", noise(2) * 0)
    write_sound(folder / "train_audio" / "a" / "1.wav", noise(2, level=2.0).clip(-1, 1))
    found = {each.title: each.examples for each in findings(folder, sound=True)}
    assert found["1 clip is silent"] == ("a/0.wav",)
    (clipped,) = found["1 clip is clipped: samples lie at full scale"]
    assert clipped.startswith("a/1.wav (")


def test_find_all_finds_parts_of_one_recording_where_folds_part_them(tmp_path):
    cells = {"author": "one", "latitude": "1", "longitude": "2"}
    rows = [*PLAIN, *(row(f"a/XC{number}.wav", **cells) for number in (10, 11, 13))]
    folder = write_data(tmp_path, rows, taxonomy="ab")
    assert titles(folder) == [
        ("note", "1 set of clips may be cut from one recording each, and stay on one side of each fold")
    ]
    parted = with_data(group_by=("recording",))
    assert ("misleads", "1 set of clips that may be one recording is on both sides of a fold") in titles(folder, parted)


def test_find_all_finds_species_that_hang_on_one_author(tmp_path):
    rows = [*PLAIN, *(row(f"c/{number}.wav", author="one" if number else "two") for number in range(6))]
    found = findings(write_data(tmp_path, rows, taxonomy="abc"))
    assert [each.examples for each in found if "Of 1 species one author" in each.title] == [("c (5 of 6 by one)",)]


def test_find_all_finds_species_that_no_fold_validates(tmp_path):
    rows = [*PLAIN, *(row(f"c/{number}.wav", author="one") for number in range(5))]
    assert ("misleads", "1 species has a single independent set of clips, and is never validated") in titles(
        write_data(tmp_path, rows, taxonomy="abc")
    )


def test_find_all_finds_given_folds_that_part_an_author(tmp_path):
    rows = [row(f"{label}/{n}.wav", author=f"{n // 2}", part=n % 2) for label in "ab" for n in range(6)]
    recipe = with_data(fold_column="part")
    found = [each for each in findings(write_data(tmp_path, rows, taxonomy="ab"), recipe) if "both sides" in each.title]
    assert [each.examples for each in found] == [("3 authors are on both sides of a fold, first '0': scores flatter",)]


def test_find_all_finds_an_uneven_table(tmp_path):
    rows = [row(f"a/{number}.wav") for number in range(33)]
    rows += [row(f"{label}/{number}.wav") for label in "bcd" for number in range(3)]
    found = titles(write_data(tmp_path, rows, taxonomy="abcde"))
    assert ("costs", "1 species has more than 10 times the clips of the median one (3)") in found
    assert ("costs", "3 species have fewer than 5 clips") in found
    assert ("costs", "1 species has no clip that can be used") in found


def test_find_all_finds_what_the_recipe_asks_for_and_the_table_lacks(tmp_path):
    rows = [each | {"author": "", "rating": ""} for each in PLAIN]
    recipe = msgspec.structs.replace(RECIPE, labels=LabelConfig(rating_weight=0.5))
    found = titles(write_data(tmp_path, rows, taxonomy="ab"), recipe)
    assert ("misleads", "10 clips have no author") in found
    assert ("note", "10 clips have no rating") in found


def test_find_all_finds_clips_of_another_length_or_rate_than_the_window(tmp_path):
    folder = write_data(tmp_path, PLAIN, taxonomy="ab")
    write_sound(folder / "train_audio" / "a" / "0.wav", noise(0.5))
    write_sound(folder / "train_audio" / "a" / "1.wav", noise(301))
    assert titles(folder) == [
        ("note", "1 clip is shorter than the recipe's window of 1 s"),
        ("note", "1 clip is longer than 5 minutes"),
    ]
    high = msgspec.structs.replace(
        RECIPE, frontend=msgspec.structs.replace(RECIPE.frontend, audio=type(RECIPE.frontend.audio)(16_000))
    )
    assert ("costs", "10 clips have a lower rate than the recipe's 16000 Hz") in titles(folder, high)


def test_find_all_finds_faults_of_soundscapes(tmp_path):
    folder = write_data(tmp_path, PLAIN, taxonomy="abc")
    write_sound(folder / "train_soundscapes" / "s1.wav", noise(1))
    window = {"filename": "s1.wav", "start": 0, "end": 5, "primary_label": "c;z"}
    write_table(folder / "train_soundscapes_labels.csv", [window, window, window | {"filename": "s2.wav"}])
    assert titles(folder) == [
        ("costs", "1 species is in labelled soundscapes alone"),
        ("costs", "1 label of soundscapes is not in the taxonomy"),
        ("costs", "1 labelled soundscape is missing"),
        ("note", "1 row of the table of soundscapes stand there before"),
    ]


def test_every_key_in_an_advice_is_one_of_the_recipe():
    """The keys stand between backticks in the source, where no folder could bring all of them about."""

    from birdinfer.report import findings as module

    named = set(
        re.findall(r"`((?:data|labels|augment|frontend|loss|loop)\.[\w.]+)`", Path(module.__file__).read_text())
    )
    assert len(named) >= 12
    assert named <= set(flatten(Recipe()))
