"""What comes before the first fold, asked for by several processes at once."""

import threading

import msgspec
import pytest

from birdinfer.errors import CheckpointError, ConfigError, MetadataError
from birdinfer.training import preparation
from birdinfer.training.plan import Run, prepare
from birdinfer.training.report import Silent


def test_of_many_that_begin_at_once_one_lays_the_folds(plain_recipe, clips_dir, tmp_path, monkeypatch):
    laid, problems, lay_anew, together = [], [], preparation._laid_anew, threading.Barrier(5)

    def count(*arguments):
        laid.append(threading.get_ident())
        return lay_anew(*arguments)

    def begin():
        together.wait()
        try:
            assert prepare(Run(plain_recipe, clips_dir, tmp_path / "run", device="cpu"), Silent()) == (0, 1, 2)
        except BaseException as error:
            problems.append(error)

    monkeypatch.setattr(preparation, "_laid_anew", count)
    threads = [threading.Thread(target=begin) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert problems == []
    assert len(laid) == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["folds.csv", "recipe.toml"]


def test_data_that_cannot_be_read_leaves_nothing(plain_recipe, clips_dir, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("no,clips\n")
    with pytest.raises(MetadataError):
        prepare(Run(plain_recipe, tmp_path / "data", tmp_path / "runs" / "x", device="cpu"), Silent())
    assert not (tmp_path / "runs" / "x").exists()


def test_a_precision_that_the_processor_lacks_is_refused_before_clips_are_searched(plain_recipe, clips_dir, tmp_path):
    loop = msgspec.structs.replace(plain_recipe.loop, amp="fp16")
    recipe = msgspec.structs.replace(plain_recipe, loop=loop)
    with pytest.raises(ConfigError, match=r"loop\.amp: is fp16, a CPU has none"):
        prepare(Run(recipe, clips_dir, tmp_path / "run", device="cpu"), Silent())
    assert not (tmp_path / "run").exists()


def test_a_fold_that_is_there_is_refused_without_resume(plain_recipe, clips_dir, tmp_path):
    run = Run(plain_recipe, clips_dir, tmp_path, device="cpu")
    prepare(run, Silent())
    (tmp_path / "fold1").mkdir()
    (tmp_path / "fold1" / "last.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"fold1/last\.safetensors"):
        prepare(run, Silent())
