"""What comes before the first fold, asked for by several processes at once."""

import threading

import msgspec
import pytest

from birdinfer.errors import CheckpointError, ConfigError, MetadataError
from birdinfer.training.data import prepare as preparation
from birdinfer.training.run import Run, prepare_run


def test_of_many_that_begin_at_once_one_assigns_the_folds(plain_recipe, clips_dir, tmp_path, monkeypatch):
    assigned, problems, real, together = [], [], preparation._assign, threading.Barrier(5)

    def count(*arguments):
        assigned.append(threading.get_ident())
        return real(*arguments)

    def begin():
        together.wait()
        try:
            assert prepare_run(
                Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=tmp_path / "run", device="cpu")
            ) == (
                0,
                1,
                2,
            )
        except BaseException as error:
            problems.append(error)

    monkeypatch.setattr(preparation, "_assign", count)
    threads = [threading.Thread(target=begin) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(assigned) == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["folds.csv", "recipe.toml"]


def test_data_that_cannot_be_read_leaves_nothing(plain_recipe, clips_dir, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("no,clips\n")
    with pytest.raises(MetadataError):
        prepare_run(
            Run(recipe=plain_recipe, data_dir=tmp_path / "data", run_dir=tmp_path / "runs" / "x", device="cpu"),
        )
    assert not (tmp_path / "runs" / "x").exists()


def test_a_precision_that_the_processor_lacks_is_refused_before_clips_are_searched(plain_recipe, clips_dir, tmp_path):
    loop = msgspec.structs.replace(plain_recipe.loop, amp="fp16")
    recipe = msgspec.structs.replace(plain_recipe, loop=loop)
    with pytest.raises(ConfigError, match=r"loop\.amp: is fp16, a CPU has none"):
        prepare_run(Run(recipe=recipe, data_dir=clips_dir, run_dir=tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run").exists()


def test_a_fold_that_is_there_is_refused_without_resume(plain_recipe, clips_dir, tmp_path):
    run = Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=tmp_path, device="cpu")
    prepare_run(run)
    (tmp_path / "fold1").mkdir()
    (tmp_path / "fold1" / "last.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"fold1/last\.safetensors"):
        prepare_run(run)
