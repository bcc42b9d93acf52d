"""Bundles to measure: timm backbones without a download, one channel, 206 labels.

Weights are seeded; BatchNorm takes its statistics from real windows and the classifier is fitted to known classes
(``classifier_fit``), so that scores spread as a trained model's do and a difference between two engines would show.
"""

import csv
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from birdinfer.audio.windows import read_window
from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.export.int8.quantize import calibrate_graph, write_int8
from birdinfer.export.onnx.torch_export import export_graph
from birdinfer.features import log_mel as mel
from birdinfer.inference.bundle import file_sha256, labels_sha256, save_manifest
from birdinfer.inference.manifest import FORMAT, Graph, Manifest, Member, Precision, Provenance, Tolerance
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species
from birdinfer.synthetic.soundscapes import write_training_data
from birdinfer.training.models.activation import swap_for_relu
from birdinfer.training.models.base import Logits
from birdinfer.training.models.timm_import import import_timm
from classifier_fit import fit_classifier, pooled_features, settle_batchnorm, targets_with_filler

LABELS = tuple(f"species{index:03d}" for index in range(206))
FRONTENDS = {
    "efficientnet_b0": FrontEndConfig(mel=MelConfig(n_fft=2048, hop_length=625, n_mels=256)),  # 256 x 256
    "eca_nfnet_l0": FrontEndConfig(mel=MelConfig(n_fft=2048, hop_length=512, n_mels=256)),  # 256 x 313
}
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
N_CLIPS = 160


class Measured(NamedTuple):
    """A bundle, and its members for torch."""

    folder: Path
    models: list[torch.nn.Module]
    frontend: FrontEndConfig


def write_measured(folder: Path, backbone: str, n_members: int, *, int8: bool, relu: bool = False) -> Measured:
    """Write a bundle of several members of one backbone.

    Args:
        folder: where to.
        backbone: a key of ``FRONTENDS``.
        n_members: how many, each of other weights.
        int8: with INT8 graphs beside those of fp32.
        relu: with ReLU in the place of SiLU, as after ``train --finetune-for-int8``.
    """
    folder.mkdir(parents=True)
    frontend = FRONTENDS[backbone]
    windows, targets = _windows(frontend, folder.with_name(f"{folder.name}_work"))
    models, members = [], []
    for index in range(n_members):
        model = make_model(backbone, seed=index)
        if relu:
            swap_for_relu(model)
        fit_classifier(model, windows, targets)
        _spread(model, windows)
        member = _write_member(folder, model, index, backbone, windows, int8=int8)
        models.append(model)
        members.append(member)
    _save_manifest(folder, LABELS, frontend, members, SPEED_ALONE if relu else TOLERANCE)
    return Measured(folder, models, frontend)


_SPREAD = 2.0  # standard deviation of each label's logits in a sparse bundle
_DIRECTIONS = 24  # of the features, in which they spread alike: its labels hardly depend on each other


def write_sparse(folder: Path, n_labels: int, recordings: Sequence[Path], per_window: float) -> Path:
    """Write a bundle of one efficientnet_b0 of many labels, few of which are present at a time, as of a trained one.

    Args:
        folder: where to.
        n_labels: columns of the last layer; all else is the same network.
        recordings: sound to which the scores are fitted, at least five minutes of it.
        per_window: labels that reach a probability of 0.1 in a window of it, on average.
    """
    folder.mkdir(parents=True)
    frontend, labels = FRONTENDS["efficientnet_b0"], tuple(f"species{index:05d}" for index in range(n_labels))
    places = [(path, begin) for path in recordings for begin in range(0, 60, 15)]
    windows = np.concatenate(
        [mel.windows_to_input(read_window(path, begin, frontend), 1, frontend) for path, begin in places]
    )
    model = make_model("efficientnet_b0", seed=0, n_labels=n_labels)
    settle_batchnorm(model, windows)
    features = pooled_features(model, windows)
    mean = features.mean(axis=0)
    _, deviations, directions = np.linalg.svd((features - mean) / len(features) ** 0.5, full_matrices=False)
    mixture = np.random.default_rng(0).normal(0, _SPREAD / _DIRECTIONS**0.5, (n_labels, _DIRECTIONS))
    weights = mixture @ (directions[:_DIRECTIONS] / deviations[:_DIRECTIONS, None])
    reached = np.quantile((features - mean) @ weights.T, 1 - per_window / n_labels)
    bias = math.log(0.1 / 0.9) - reached - weights @ mean
    classifier = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(weights))
        classifier.bias.copy_(torch.from_numpy(bias))
    member = _write_member(folder, model, 0, "efficientnet_b0", windows, int8=False, labels=labels)
    _save_manifest(folder, labels, frontend, [member], TOLERANCE)
    return folder


def _save_manifest(
    folder: Path, labels: Sequence[str], frontend: FrontEndConfig, members: Sequence[Member], tolerance: Tolerance
) -> None:
    manifest = Manifest(
        format=FORMAT,
        name=folder.name,
        species=tuple(Species(label) for label in labels),
        rows=frontend.window,
        post=PostConfig(),
        members=tuple(members),
        fallback_probabilities=(0.01,) * len(labels),
        provenance=Provenance("2026-01-01T00:00:00Z", "benchmark", {}, {}),
        tolerance=tolerance,
    )
    save_manifest(folder, manifest)


TOLERANCE = Tolerance(max_probability_difference=0.1, mean_probability_difference=0.01)
"""What the benchmarks accept of a faster precision; the scores spread over 0.05 to 0.95."""

SPEED_ALONE = Tolerance(max_probability_difference=1.0, mean_probability_difference=1.0)
"""Of a ReLU network without a second training, whose random features 8 bits harm beyond any gate."""


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return find_spec("openvino") is not None


def has_bf16() -> bool:
    """Whether ``openvino:bf16`` runs here: OpenVINO is installed, and the processor computes in bf16."""
    if not has_openvino():
        return False
    from birdinfer.inference.engines.openvino import has_bf16 as processor_has_bf16

    return processor_has_bf16()


def make_model(backbone: str, seed: int, n_labels: int = len(LABELS)) -> torch.nn.Module:
    """A network with one input channel; the same weights each time.

    Gains that begin at 0 (the last one of a residual branch in NFNets, RegNets and RepViT) are those of a network that
    has learned something: a branch whose sum is 0 costs OpenVINO nothing in INT8.
    """
    torch.manual_seed(seed)
    model: torch.nn.Module = import_timm().create_model(backbone, in_chans=1, num_classes=n_labels)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("bias") and not parameter.any():
                parameter.fill_(0.5)
    return model.eval()


class Answering(torch.nn.Module):
    """A timm network that answers as birdinfer's own do."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model

    def forward(self, log_mel: torch.Tensor) -> Logits:
        """[windows, 1, rows, columns] -> clip logits [windows, labels]."""
        return Logits(self._model(log_mel))


def _spread(model: torch.nn.Module, windows: npt.NDArray[np.float32]) -> None:
    """Let answers differ as a trained model's do: random features of some backbones separate classes only faintly.

    Where the logits' standard deviation is below 1 the classifier is scaled to it, about a base rate of 0.25.
    """
    classifier = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        logits = torch.cat([model(torch.from_numpy(batch)) for batch in np.array_split(windows[::4], 8)])
        spread = float(logits.std(dim=0).mean())
        if spread < 1:
            classifier.weight.mul_(1 / spread)
            logits = torch.cat([model(torch.from_numpy(batch)) for batch in np.array_split(windows[::4], 8)])
            classifier.bias.sub_(logits.mean(dim=0) + 1.1)


def _write_member(
    folder: Path,
    model: torch.nn.Module,
    index: int,
    backbone: str,
    windows: npt.NDArray[np.float32],
    *,
    int8: bool,
    labels: tuple[str, ...] = LABELS,
) -> Member:
    frontend, name = FRONTENDS[backbone], f"fold{index}"
    path = folder / f"{name}.onnx"
    export_graph(Answering(model), frontend, path, {"labels_sha256": labels_sha256(labels)})
    graphs: dict[Precision, Graph] = {"fp32": Graph(path.name, file_sha256(path))}
    if int8:
        quantised = folder / f"{name}.int8.onnx"
        calibration = windows[::3]
        write_int8(calibrate_graph(path, np.split(calibration, len(calibration))), quantised)
        graphs["int8"] = Graph(quantised.name, file_sha256(quantised))
    return Member(
        name=name,
        graphs=graphs,
        frontend=frontend,
        frontend_fingerprint=tuple(mel.fingerprint(frontend)),
        backbone=backbone,
        fold=index,
    )


def _windows(frontend: FrontEndConfig, folder: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Windows of clips whose class is known, and the targets to fit: real ones where they are beside the checkout."""
    data = SHARED_DATA / "esc10"
    if not data.is_dir():
        data = write_training_data(folder / "clips", N_CLIPS // 8, seed=1)
    with (data / "train.csv").open(newline="") as file:
        clips = [(row["filename"], row["primary_label"]) for row in csv.DictReader(file)]
    clips = clips[:: max(1, len(clips) // N_CLIPS)]
    names = sorted({label for _, label in clips})
    classes = np.array([names.index(label) for _, label in clips])
    windows = [
        mel.windows_to_input(read_window(data / "train_audio" / name, 0.0, frontend), 1, frontend) for name, _ in clips
    ]
    return np.concatenate(windows), targets_with_filler(classes, len(LABELS))
