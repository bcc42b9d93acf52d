"""Several processes train one model: what they share, and that they end where one process does."""

import os
import subprocess
import sys

import msgspec
import pytest
import torch

from birdinfer.errors import ConfigError
from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.fold_job import BEST
from birdinfer.training.processes import Processes, from_environment, joined
from birdinfer.training.recipe.augment import AugmentConfig
from birdinfer.training.recipe.file import write_recipe
from birdinfer.training.recipe.learning import LoopConfig, ModelConfig, OptimConfig

CPU = torch.device("cpu")


class TestAlone:
    def test_one_process_talks_to_itself(self, monkeypatch):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        alone = from_environment()
        assert (alone.rank, alone.n, alone.is_first) == (0, 1, True)
        with joined(alone, CPU):
            alone.wait()
            assert alone.everyones("x") == ["x"]
            model = torch.nn.Linear(1, 1)
            assert alone.parallel(model) is model

    def test_who_is_who_stands_in_the_environment(self, monkeypatch):
        for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
            monkeypatch.setenv(name, value)
        one = from_environment()
        assert (one.rank, one.n, one.local_rank, one.is_first) == (5, 8, 1, False)

    @pytest.mark.parametrize(("n", "accumulate"), [(3, 1), (2, 8)])
    def test_a_batch_that_cannot_be_dealt_out_is_refused(self, n, accumulate):
        with pytest.raises(ConfigError, match=f"make it a multiple of {n * accumulate}"):
            Processes(0, n).check_batch(LoopConfig(batch_size=8, accumulate=accumulate))
        Processes(0, 2).check_batch(LoopConfig(batch_size=8, accumulate=4))


@pytest.fixture(scope="module")
def exact_recipe(tiny_recipe):
    """Without chance per window and without BatchNorm, halves of a batch add up to the whole."""
    return msgspec.structs.replace(
        tiny_recipe,
        name="exact",
        augment=AugmentConfig(gain_probability=0.0, mixup_probability=0.0, mask_probability=0.0),
        model=ModelConfig(family="rnn", backbone="gru", hidden=8, layers=1, drop_rate=0.0),
        optim=OptimConfig(lr=3e-3, ema_decay=0.9),
        loop=LoopConfig(epochs=2, batch_size=4, val_windows=1),
    )


def test_two_processes_end_where_one_does(exact_recipe, clips_dir, tmp_path):
    """torchrun as a user starts it: shares of each batch, gradients averaged, each validates its share."""
    (tmp_path / "exact.toml").write_text(write_recipe(exact_recipe))
    arguments = ["-m", "birdinfer", "train", "--recipe", "exact.toml", "--data", str(clips_dir), "--device", "cpu"]
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, start in (("one", []), ("two", several)):
        done = subprocess.run(
            [sys.executable, *start, *arguments, "--name", name],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("fold0: macro AUC") == 1
    one, two = (load_checkpoint(tmp_path / "runs" / name / "fold0" / BEST) for name in ("one", "two"))
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(tensor, two.tensors[name], rtol=1e-3, atol=1e-5)
    tables = [(tmp_path / "runs" / name / "fold0" / "oof.csv").read_text().splitlines() for name in ("one", "two")]
    assert [row.split(",")[0] for row in tables[0]] == [row.split(",")[0] for row in tables[1]]
