"""The folds of the report are those of training."""

import msgspec
import pytest
from made_data import noise, row, write_data, write_sound
from tiny_clips import TINY_FRONTEND

from birdinfer.callbacks import Callback
from birdinfer.report.survey import take_survey
from birdinfer.report.tables import make_tables
from birdinfer.training.data.folds_file import LEFT_OUT, folds_by_name
from birdinfer.training.recipe.schema import DataConfig, Recipe

PLAIN = Recipe(data=DataConfig(n_folds=3), frontend=TINY_FRONTEND)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Authors with several clips and labels, a copy, near-duplicates of one label and of two, and a rare species."""
    folder = tmp_path_factory.mktemp("survey")
    rows = [
        row(f"{label}/{n}.wav", author=f"author {(n + 5 * index) % 11}", latitude=n % 4, longitude=1)
        for index, label in enumerate("abc")
        for n in range(9)
    ]
    write_data(folder, [*rows, row("d/0.wav"), row("d/1.wav")], taxonomy="abcde", seconds=2)
    long = noise(5, seed=77)
    for name, part in (("a/0.wav", long[:32_000]), ("a/5.wav", long[8_000:]), ("b/7.wav", 0.3 * long[4_000:30_000])):
        write_sound(folder / "train_audio" / name, part)
    (folder / "train_audio" / "c" / "3.wav").write_bytes((folder / "train_audio" / "c" / "8.wav").read_bytes())
    return folder


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"duplicates": "group"},
        {"duplicates": "remove"},
        {"group_by": ("site",), "complete_fold0": True},
        {"val_share": 0.3, "test_share": 0.2},
        {"min_clips_per_species": 5},
    ],
    ids=str,
)
def test_take_survey_assigns_the_folds_of_training(data, tmp_path, keys):
    pytest.importorskip("torch")
    from birdinfer.training.data.prepare import prepare_data

    recipe = msgspec.structs.replace(PLAIN, data=msgspec.structs.replace(PLAIN.data, **keys))
    survey = take_survey(data, recipe, sound="duplicates" in keys, callback=Callback())
    found = {each.clip.filename: each.fold for each in survey.clips if each.fold != LEFT_OUT}
    prepare_data(recipe, data, tmp_path)
    trained = {name: fold for name, (_, fold) in folds_by_name(tmp_path / "folds.csv").items() if fold != LEFT_OUT}
    assert found == trained
    assert survey.fold_problem == ""


def test_tables_count_every_clip_once(data):
    tables = make_tables(take_survey(data, PLAIN, sound=False, callback=Callback()))
    n_clips = len(tables["clips"].rows)
    for name in ("species", "durations", "ratings", "formats", "authors", "collections", "sites", "months", "hours"):
        assert sum(tables[name].column("clips")) == n_clips, name
    folds = tables["folds"]
    assert sum(sum(row[2:-1]) for row in folds.rows) == n_clips
