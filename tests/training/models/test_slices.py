"""Each family's whole way: recipe -> network -> a training step -> checkpoint -> bundle -> scores of a file."""

import os

import msgspec
import numpy as np
import pytest
import torch
from make_bundles import tone, write_sound
from tiny_clips import LABELS, RATE, TINY_FRONTEND
from tiny_models import LOG_PCEN, TINY, windows

from birdinfer import Predictor
from birdinfer.export.onnx import choose_exporter as faster_export
from birdinfer.export.run import export_run
from birdinfer.export.settings import ExportSettings
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species
from birdinfer.training.checkpoint import MODEL, Header, Progress, save_checkpoint
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import DataConfig, Recipe

pytestmark = pytest.mark.no_cover
"""Modules have tests of their own; tracing two exporters at work takes half as long again."""
BOTH_EXPORTERS = "cnn" if os.environ.get("TEST_PROFILE") == "ci" else ""
"""The newer exporter takes ten times as long; it makes graphs of each family in tests/export."""
TWO_CHANNELS = "cnn-stages"
SECONDS = 4.6
"""Five rows of 1 s, the last of them not full."""


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "site.wav"
    write_sound(path, tone(SECONDS, RATE, hz=700.0), RATE)
    return path


def trained_for_a_step(recipe):
    torch.manual_seed(0)
    output = windows(recipe.model, 4)[1]
    if recipe.input_config == LOG_PCEN:
        output = output.repeat(1, 2, 1, 1)
    model = build_model(recipe.model, len(LABELS), recipe.input_config, start=True)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    logits = model(output)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.clip, torch.eye(4))
    loss.backward()
    optimiser.step()
    return model


def write_run(run, clips_dir, recipe):
    """A run of one fold that saw all clips, after one step."""
    (run / "fold0").mkdir(parents=True)
    clips = sorted(path.relative_to(clips_dir / "train_audio") for path in clips_dir.glob("train_audio/*/*.wav"))
    rows = [f"{clip},{clip.parts[0]},,-1" for clip in clips]
    (run / "folds.csv").write_text("\n".join(["filename,primary_label,group,fold", *rows, ""]))
    species = tuple(Species(label) for label in LABELS)
    header = Header(recipe, species, 0, Progress(epoch=1), str(clips_dir), {})
    tensors = {MODEL + name: tensor for name, tensor in trained_for_a_step(recipe).state_dict().items()}
    save_checkpoint(run / "fold0" / "best.safetensors", header, tensors)


@pytest.mark.parametrize("name", TINY)
def test_from_recipe_to_scores(name, clips_dir, recording, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    if name != BOTH_EXPORTERS:
        monkeypatch.setattr(faster_export, "_TOGETHER", (("torchscript",),))
    # Both exporters' graphs run beside each other, but for a moment: either may be kept here.
    monkeypatch.setattr(faster_export, "N_ROUNDS", 1)
    monkeypatch.setattr(faster_export, "TURN_SECONDS", 0.0)
    recipe = Recipe(
        name=name,
        data=DataConfig(all_data=True),
        frontend=LOG_PCEN if name == TWO_CHANNELS else TINY_FRONTEND,
        model=TINY[name],
        post=PostConfig((1.0,)),
    )
    write_run(tmp_path / "runs" / name, clips_dir, recipe)
    bundle = export_run(
        ExportSettings(run=tmp_path / "runs" / name, out=tmp_path / "bundle", engines=("onnxruntime", "openvino"))
    ).bundle
    scores = Predictor(bundle).predict(recording)
    assert scores.shape == (5, len(LABELS))
    assert np.isfinite(scores).all()
    assert ((scores > 0) & (scores < 1)).all()
    np.testing.assert_allclose(Predictor(bundle, "openvino").predict(recording), scores, atol=1e-4)
    assert msgspec.convert(bundle.manifest.provenance.recipe, Recipe) == recipe
