"""What a bundle does to scores, stored in it, tables included."""

import pytest
from make_bundles import LABELS

from birdinfer import Bundle
from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.inference.bundle import store_settings, stored_post
from birdinfer.inference.ensemble import Blend
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.file_level import FileMax
from birdinfer.postprocess.priors import PriorShift
from birdinfer.postprocess.smoothing import TaxonKernels


@pytest.fixture
def prior(tmp_path):
    table = tmp_path / "tables" / "prior.csv"
    table.parent.mkdir()
    table.write_text(f"site,hour,windows,{','.join(LABELS)}\nS01,5,10,1,2,3,4\n")
    return table


def test_settings_stand_in_the_manifest_from_then_on(make_bundle):
    bundle = Bundle.load(make_bundle())
    post = PostConfig((1.0,), (FileMax(0.25),))
    stored = store_settings(bundle.folder, lambda old: old.with_overlap(2.5).with_scoring(Blend("rms"), post))
    again = Bundle.load(bundle.folder)
    assert again.manifest == stored.manifest
    assert (again.manifest.blend, again.manifest.post) == (Blend("rms"), post)
    assert {member.aggregation.stride_seconds for member in again.manifest.members} == {2.5}


def test_a_table_comes_along_into_the_bundle(make_bundle, prior):
    bundle = Bundle.load(make_bundle())
    post = PostConfig(steps=(PriorShift(table=str(prior)),))
    stored = store_settings(bundle.folder, lambda old: old.with_scoring(Blend(), post))
    assert stored.manifest.post.steps[0].table == "prior.csv"
    assert (bundle.folder / "prior.csv").read_bytes() == prior.read_bytes()
    prior.unlink()
    assert store_settings(bundle.folder, lambda old: old).manifest == stored.manifest


def test_tables_of_one_name_do_not_meet(tmp_path, prior):
    other = tmp_path / "prior.csv"
    other.write_text("another")
    folder = tmp_path / "bundle"
    folder.mkdir()
    steps = tuple(PriorShift(table=str(table)) for table in (prior, other, prior))
    stored = stored_post(PostConfig(steps=steps), folder)
    assert [step.table for step in stored.steps] == ["prior.csv", "prior_1.csv", "prior.csv"]
    assert (folder / "prior_1.csv").read_text() == "another"


@pytest.mark.parametrize(
    ("step", "error", "problem"),
    [
        (PriorShift(table="gone.csv"), InputNotFoundError, "gone.csv: no such table"),
        (TaxonKernels({"Pisces": (0.25, 0.5, 0.25)}), ConfigError, "Pisces"),
    ],
)
def test_what_does_not_fit_changes_nothing(make_bundle, monkeypatch, tmp_path, step, error, problem):
    monkeypatch.chdir(tmp_path)
    bundle = Bundle.load(make_bundle())
    before = (bundle.folder / "manifest.json").read_bytes()
    with pytest.raises(error, match=problem):
        store_settings(bundle.folder, lambda old: old.with_scoring(Blend(), PostConfig(steps=(step,))))
    assert (bundle.folder / "manifest.json").read_bytes() == before


def test_on_the_command_line(birdinfer, make_bundle, prior, soundscapes, tmp_path):
    folder = make_bundle()
    settings = (
        "--smooth",
        "none",
        "--post",
        f"prior_shift:table={prior}",
        "--post",
        "file_max:power=0.25",
        "--blend",
        "rms",
    )
    code, out, err = birdinfer("bundle", "set", folder, *settings)
    assert (code, err) == (0, "")
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [
        ["blend", "rms"], ["smoothing", "1"], ["then", "prior_shift:table=prior.csv"], ["then", "file_max:power=0.25"],
    ]  # fmt: skip
    assert "prior_shift:table=prior.csv" in birdinfer("bundle", "show", folder)[1]
    tables = []
    for options in ((), settings):
        assert birdinfer("predict", soundscapes, "-o", tmp_path / "s.csv", "--bundle", folder, *options)[0] == 0
        tables.append((tmp_path / "s.csv").read_bytes())
    assert tables[0] == tables[1]
    code, _, err = birdinfer("bundle", "set", folder, "--post", "file_maks")
    assert (code, err.count("\n")) == (2, 1)
