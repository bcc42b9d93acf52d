"""What only a GPU can show; skipped by name where there is none."""

import csv

import msgspec
import pytest
import torch

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.runs.layout import BEST
from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.models.log_mel import LogMel
from birdinfer.training.recipe.schema import LossConfig
from birdinfer.training.run import Run, train_run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(
    "keys",
    [{}, {"compression": "pcen"}, {"compression": "log_pcen"}, {"normalisation": "minmax", "resize": (256, 256)}],
)
def test_the_front_end_is_the_cpus(keys):
    config = FrontEndConfig(mel=MelConfig(**keys))
    waveforms = torch.randn(4, config.window_samples + 2 * config.margin_samples) * 0.1
    there = LogMel(config).to("cuda")(waveforms.cuda()).cpu()
    torch.testing.assert_close(there, LogMel(config)(waveforms), rtol=0, atol=1e-3)


@pytest.mark.parametrize("amp", ["bf16", "fp16", "off"])
def test_trains_in_every_precision(amp, tiny_recipe, clips_dir, tmp_path):
    recipe = msgspec.structs.replace(tiny_recipe, loop=msgspec.structs.replace(tiny_recipe.loop, amp=amp))
    (result,) = train_run(Run(recipe=recipe, data_dir=clips_dir, run_dir=tmp_path, folds=(0,), device="cuda"))
    assert not result.problem
    with (tmp_path / "fold0" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["peak_gpu_mb"]) > 0 for row in rows)
    assert all(torch.isfinite(x).all() for x in load_checkpoint(tmp_path / "fold0" / BEST).tensors.values())


@pytest.mark.parametrize("name", ["ce", "focal", "asymmetric", "soft_auc"])
def test_every_loss_stays_on_the_device(name, plain_recipe, clips_dir, tmp_path):
    recipe = msgspec.structs.replace(plain_recipe, loss=LossConfig(name=name, class_weight_power=-0.5))
    (result,) = train_run(Run(recipe=recipe, data_dir=clips_dir, run_dir=tmp_path, folds=(0,), device="cuda"))
    assert not result.problem
