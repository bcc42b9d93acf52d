"""Runs whose folds are written, not trained, on the clips of ``tiny_clips``: only their form matters."""

import csv
import hashlib
from pathlib import Path

import torch
from tiny_clips import LABELS, TINY_FRONTEND, write_table

from birdinfer.export import member as members
from birdinfer.export.acceptance import measure
from birdinfer.export.acceptance.decision import Limits
from birdinfer.export.callbacks import ExportCallback
from birdinfer.export.int8 import search as int8_search
from birdinfer.export.onnx import choose_exporter as faster_export
from birdinfer.export.onnx.torch_export import export_graph
from birdinfer.export.run import export_run
from birdinfer.export.settings import ExportSettings
from birdinfer.inference.bundle import Bundle
from birdinfer.species import Species
from birdinfer.training.checkpoint import MODEL, EpochRow, Header, Progress, save_checkpoint
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import ModelConfig, Recipe

N_FOLDS = 3
N_HELD_OUT = 16
"""Windows of a fold's held-out clips: two of each of eight clips."""
RECIPE = Recipe(name="tiny", frontend=TINY_FRONTEND, model=ModelConfig(backbone="test_efficientnet"))


class RecordingCallback(ExportCallback):
    """Keeps what is reported."""

    def __init__(self):
        self.lines, self.steps, self.members = [], [], []

    def on_message(self, line):
        self.lines.append(line)

    on_warning = on_message

    def on_progress(self, task, done, total):
        self.steps.append((task, done, total))

    def on_member(self, member):
        self.members.append(member)


_GRAPHS: dict[str, tuple[bytes, tuple[str, ...]]] = {}
"""What ``export_once`` has exported: the file and the names of its outputs."""


def export_once(model, input_config, path, metadata, exporter="dynamo"):
    """Export a network as ``export_graph`` does, or copy what it has made of an equal one: most runs here are equal."""
    digest = hashlib.sha256(repr((model, input_config, sorted(metadata.items()), exporter)).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    if merge := getattr(model, "merge", None):  # how outputs become species is no part of a network's weights
        digest.update(repr((merge.columns.tolist(), merge._share, merge._power)).encode())
    key = digest.hexdigest()
    if key not in _GRAPHS:
        outputs = export_graph(model, input_config, path, metadata, exporter)
        _GRAPHS[key] = path.read_bytes(), outputs
    path.write_bytes(_GRAPHS[key][0])
    return _GRAPHS[key][1]


def hasten(monkeypatch, times_fp32: float = 2.0) -> None:
    """The quicker exporter alone, once for equal networks; a short search for INT8; speeds are given, not measured."""
    monkeypatch.setattr(faster_export, "export_graph", export_once)
    monkeypatch.setattr(members, "export_graph", export_once)
    monkeypatch.setattr(faster_export, "_TOGETHER", (("torchscript",),))
    monkeypatch.setattr(int8_search, "METHODS", ("percentile", "minmax"))
    monkeypatch.setattr(int8_search, "_N_FP32", (2,))
    monkeypatch.setattr(int8_search, "_N_LAST_CONVOLUTIONS", (1,))
    monkeypatch.setattr(int8_search, "_N_SENSITIVITY_WINDOWS", 4)
    monkeypatch.setattr(int8_search, "_MOST_TRIED", 2)
    monkeypatch.setattr(int8_search, "compare_speed", lambda graphs, *_: [100.0] * len(graphs))
    monkeypatch.setattr(measure, "compare_speed", lambda graphs, *_: [100.0 * times_fp32, 100.0][: len(graphs)])


def few_windows(**others) -> ExportSettings:
    """Settings with few windows, and limits that a tiny network keeps in 8 bits."""
    few = {"n_calibration_windows": 8, "n_tuning_windows": 8}
    return ExportSettings(**{**few, "limits": Limits(max_auc_drop=0.1, min_spearman=0.9), **others})


def export_bundle(run, out, callback=None, **others) -> Bundle:
    """Export a run as :func:`few_windows` says."""
    return export_run(few_windows(run=run, out=out, **others), callback or ExportCallback()).bundle


def seeded(recipe, fold):
    """A network of a recipe with weights of the fold's own; its logits are as far apart as those of a trained one."""
    torch.manual_seed(fold)
    network = build_model(recipe.model, len(LABELS), recipe.input_config, start=False)
    with torch.no_grad():
        for weights in network.parameters():
            if weights.ndim == 2 and len(weights) == len(LABELS):
                weights.mul_(30)
    return network


def write_run(run: Path, data: Path, n_folds: int = 1, recipe: Recipe = RECIPE, network_of=seeded) -> Path:
    """The first folds of three: each third clip of a label is held out of one of them.

    Args:
        run: its folder.
        data: what ``tiny_clips.write_clips`` has written.
        n_folds: how many were trained.
        recipe: of all of them.
        network_of: recipe and fold -> the network as it was trained.
    """
    with (data / "train.csv").open(newline="") as file:
        clips = [(row["filename"], row["primary_label"]) for row in csv.DictReader(file)]
    all_data = recipe.data.all_data
    folds = [-1 if all_data else int(Path(name).stem.removeprefix("XC")) % N_FOLDS for name, _ in clips]
    run.mkdir(parents=True)
    rows = [[name, label, "", fold] for (name, label), fold in zip(clips, folds, strict=True)]
    write_table(run / "folds.csv", ["filename", "primary_label", "group", "fold"], rows)
    for fold in range(n_folds):
        _write_checkpoint(run / f"fold{fold}", fold, data, recipe, network_of(recipe, fold))
        held_out = [[name, label, *[0.1] * len(LABELS)] for name, label, _, own in rows if own == fold]
        if not all_data:
            write_table(run / f"fold{fold}" / "oof.csv", ["filename", "primary_label", *LABELS], held_out)
    return run


def _write_checkpoint(folder, fold, data, recipe, network):
    auc = None if recipe.data.all_data else 0.75
    row = EpochRow(1, 0.5, 0.6, auc, 0.5, 0.5, 1e-3, 1.0, 0.0, None)
    progress = Progress(epoch=1, best_epoch=1, best_auc=auc, history=[row])
    header = Header(recipe, tuple(Species(label) for label in LABELS), fold, progress, str(data), {"torch": "2"})
    folder.mkdir()
    tensors = {MODEL + name: tensor for name, tensor in network.state_dict().items()}
    save_checkpoint(folder / "best.safetensors", header, tensors)


def loud(recipe, fold):
    """A network that 8 bits cannot hold: in each layer one channel is 1000 times as loud as those that decide."""
    network = seeded(recipe, fold)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight[0] *= 1000
            elif isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)) and module.weight.shape[1] > 3:
                module.weight[:, 0] = 0  # all but what reads the spectrogram, or each channel alone
    return network
