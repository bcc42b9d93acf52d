"""The tree that stands in for Kaggle: both layouts, both runs, and every year's names and rows."""

import csv
from pathlib import Path

import pytest
from make_bundles import LABELS, tone, write_sound

from birdinfer.audio.stream import AudioStream
from birdinfer.errors import AudioError, InputNotFoundError, OutputError
from birdinfer.kaggle.competitions import COMPETITIONS, competition
from birdinfer.kaggle.fake_kaggle import KagglePlan, Layout, Run, changes, state, write_tree
from birdinfer.submission.formats import read_sample
from birdinfer.tables.row_ids import misspelling, parse_row_id, row_stem


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A packed data set, with what Kaggle's client does not upload."""
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "nested").mkdir()
    for name in ("manifest.json", "fold0.onnx", "dataset-metadata.json", "nested/fold1.onnx"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    for index, seconds in enumerate((10.0, 5.0)):
        write_sound(folder / f"{index}.ogg", tone(seconds, seed=index))
    return tuple(sorted(folder.iterdir()))


@pytest.fixture
def make(tmp_path, dataset, sounds):
    def make(run, layout=Layout.mounts_2026, slug="birdclef-2025", n_test_files=3):
        plan = KagglePlan(
            competition=competition(slug), dataset=dataset, labels=LABELS, soundscapes=sounds, n_test_files=n_test_files
        )
        return write_tree(tmp_path / "kaggle", layout, run, plan)

    return make


@pytest.mark.parametrize(
    ("layout", "competition_at", "dataset_at"),
    [
        (Layout.mounts_2025, "birdclef-2025", "bundle-and-wheels"),
        (Layout.mounts_2026, "competitions/birdclef-2025", "datasets/owner/bundle-and-wheels"),
    ],
)
def test_inputs_are_mounted_where_the_layout_has_them(make, layout, competition_at, dataset_at):
    tree = make(Run.hidden, layout)
    assert tree.sample == tree.root / "input" / competition_at / "sample_submission.csv"
    mounted = tree.input / dataset_at
    assert sorted(path.name for path in mounted.iterdir()) == ["fold0.onnx", "manifest.json"]
    assert not any(path.is_symlink() for path in mounted.iterdir())
    assert list(tree.working.iterdir()) == []


def test_the_public_run_has_no_test_soundscapes_and_three_rows(make):
    tree = make(Run.public)
    place = tree.sample.parent
    assert not list((place / "test_soundscapes").glob("*.ogg"))
    assert len(list((place / "train_soundscapes").glob("*.ogg"))) == 16
    assert len(read_sample(tree.sample).row_ids) == 3
    assert (tree.n_files, tree.corrupt) == (0, None)


def test_the_hidden_runs_sample_asks_for_every_window_from_the_last_file_to_the_first(make):
    """Two soundscapes of 2 and 1 rows come round; the one in the middle is corrupt and counts as a minute."""
    tree = make(Run.hidden)
    sample = read_sample(tree.sample)
    assert sample.columns == LABELS
    assert tree.n_files == 4
    stems = list(dict.fromkeys(row_id.rpartition("_")[0] for row_id in sample.row_ids))
    assert stems == sorted(stems, reverse=True)
    assert [sum(row_id.startswith(stem) for row_id in sample.row_ids) for stem in stems] == [1, 12, 1, 2]
    assert tree.corrupt.stem == stems[1]


def test_the_corrupt_soundscape_holds_no_sound_and_its_source_is_whole(make, sounds):
    before = [path.read_bytes() for path in sounds]
    tree = make(Run.hidden)
    with pytest.raises(AudioError), AudioStream(tree.corrupt, 32_000) as stream:
        list(stream.blocks())
    assert [path.read_bytes() for path in sounds] == before


@pytest.mark.parametrize("slug", COMPETITIONS)
@pytest.mark.parametrize("run", Run)
def test_every_years_rows_are_spelt_as_kaggle_spells_them(make, slug, run):
    tree = make(run, slug=slug)
    year = COMPETITIONS[slug].year
    sample = read_sample(tree.sample)
    assert [misspelling(row_id, year) for row_id in sample.row_ids] == [None] * len(sample.row_ids)
    if run is Run.hidden:
        files = {row_stem(path.stem, year) for path in (tree.sample.parent / "test_soundscapes").glob("*.ogg")}
        assert {parse_row_id(row_id, year, Path()).stem for row_id in sample.row_ids} == files
    with tree.sample.open(newline="") as file:
        cells = {cell for row in list(csv.reader(file))[1:] for cell in row[1:]}
    assert cells == {2021: {"nocall"}, 2022: {"False"}}.get(year, {"0.250000"})


def test_a_touched_input_is_named(make):
    tree = make(Run.public)
    before = state(tree)
    assert changes(tree, before) == []
    tree.sample.write_text("row_id,a\n")
    (tree.input / "new.txt").write_text("")
    next(tree.input.rglob("manifest.json")).unlink()
    assert changes(tree, before) == [
        "competitions/birdclef-2025/sample_submission.csv",
        "datasets/owner/bundle-and-wheels/manifest.json",
        "new.txt",
    ]


def test_a_tree_that_cannot_be_made_is_one_line(make, tmp_path, dataset):
    make(Run.public)
    with pytest.raises(OutputError, match="cannot be written"):
        make(Run.public)
    plan = KagglePlan(
        competition=competition("birdclef-2025"), dataset=dataset, labels=LABELS, soundscapes=(), n_test_files=3
    )
    with pytest.raises(InputNotFoundError, match="there is none"):
        write_tree(tmp_path / "other", Layout.mounts_2025, Run.public, plan)
