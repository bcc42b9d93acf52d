"""Bundles to measure: timm backbones without a download, one channel, 206 labels.

Weights are seeded; BatchNorm takes its statistics from real windows and the classifier is fitted to real classes
(``classifier_fit``), so that scores spread as a trained model's do and a difference between two engines would show.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from birdinfer import mel
from birdinfer.bundle import file_sha256, labels_sha256, save_manifest
from birdinfer.config import FrontEndConfig, MelConfig, PostConfig
from birdinfer.export.onnx import export_graph
from birdinfer.export.quantize import quantize_static
from birdinfer.labels import Species
from birdinfer.manifest import FORMAT, Graph, Manifest, Member, Provenance, Tolerance
from birdinfer.training.torchvision_shim import import_timm
from birdinfer.windows import read_window
from classifier_fit import fit_classifier, targets_with_filler

LABELS = tuple(f"species{index:03d}" for index in range(206))
FRONTENDS = {
    "efficientnet_b0": FrontEndConfig(mel=MelConfig(n_fft=2048, hop_length=625, n_mels=256)),  # 256 x 256
    "eca_nfnet_l0": FrontEndConfig(mel=MelConfig(n_fft=2048, hop_length=512, n_mels=256)),  # 256 x 313
}
N_CLASSES = 10


class Measured(NamedTuple):
    """A bundle, and its members for torch."""

    folder: Path
    models: list[torch.nn.Module]
    frontend: FrontEndConfig


def write_measured(folder: Path, backbone: str, n_members: int, soundscapes: list[Path], *, int8: bool) -> Measured:
    """Write a bundle of several members of one backbone.

    Args:
        folder: where to.
        backbone: a key of ``FRONTENDS``.
        n_members: how many, each of other weights.
        soundscapes: real one-minute files; their windows settle, fit and calibrate.
        int8: with INT8 graphs beside those of fp32.
    """
    folder.mkdir(parents=True)
    frontend = FRONTENDS[backbone]
    windows, targets = _windows(soundscapes, frontend)
    models, members = [], []
    for index in range(n_members):
        model = make_model(backbone, seed=index)
        fit_classifier(model, windows, targets)
        member = _write_member(folder, model, index, backbone, windows, int8=int8)
        models.append(model)
        members.append(member)
    manifest = Manifest(
        format=FORMAT,
        name=folder.name,
        species=tuple(Species(label) for label in LABELS),
        rows=frontend.window,
        post=PostConfig(),
        members=tuple(members),
        fallback_probabilities=(0.01,) * len(LABELS),
        provenance=Provenance("2026-01-01T00:00:00Z", "benchmark", {}, {}),
        tolerance=TOLERANCE,
    )
    save_manifest(folder, manifest)
    return Measured(folder, models, frontend)


TOLERANCE = Tolerance(max_probability_difference=0.1, mean_probability_difference=0.01)
"""What the benchmarks accept of a faster precision; the scores spread over 0.05 to 0.95."""


def make_model(backbone: str, seed: int) -> torch.nn.Module:
    """A network with one input channel; the same weights each time."""
    torch.manual_seed(seed)
    model: torch.nn.Module = import_timm().create_model(backbone, in_chans=1, num_classes=len(LABELS))
    return model.eval()


def _write_member(
    folder: Path, model: torch.nn.Module, index: int, backbone: str, windows: npt.NDArray[np.float32], *, int8: bool
) -> Member:
    frontend, name = FRONTENDS[backbone], f"fold{index}"
    shape = (frontend.mel.n_mels, frontend.frames_per_window)
    path = folder / f"{name}.onnx"
    export_graph(model, shape, path, {"labels_sha256": labels_sha256(LABELS)})
    graphs = {"fp32": Graph(path.name, file_sha256(path))}
    if int8:
        quantised = folder / f"{name}.int8.onnx"
        quantize_static(path, quantised, np.array_split(windows[::3], 8))
        graphs["int8"] = Graph(quantised.name, file_sha256(quantised))
    return Member(
        name=name,
        graphs=graphs,
        frontend=frontend,
        frontend_fingerprint=tuple(mel.fingerprint(frontend)),
        backbone=backbone,
        fold=index,
    )


def _windows(
    soundscapes: list[Path], frontend: FrontEndConfig
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Real windows of ten soundscapes, and as their classes which soundscape it was: another place, other voices."""
    starts = np.arange(0, 55, 5.0)
    heard = [
        (mel.windows_to_input(read_window(path, at, frontend), 1, frontend), index)
        for index, path in enumerate(soundscapes[:: max(1, len(soundscapes) // N_CLASSES)][:N_CLASSES])
        for at in starts
    ]
    classes = np.array([index for _, index in heard])
    return np.concatenate([window for window, _ in heard]), targets_with_filler(classes, len(LABELS))
