"""Fixtures that many rooms share: small sound files, and a bundle that is made in milliseconds without torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from onnx import TensorProto, helper, numpy_helper

from birdinfer import mel
from birdinfer.bundle import FORMAT, Manifest, Member, Provenance, file_sha256, labels_sha256, save_manifest
from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, PostConfig, WindowConfig
from birdinfer.labels import Species

SAMPLE_RATE = 32_000
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

FRONTEND = FrontEndConfig(AudioConfig(), WindowConfig(), MelConfig(n_fft=1024, n_mels=32, normalisation="none"))
LABELS = ("comcuc", "0012", "1161364", "47158son16")
"""An eBird code, and three labels that a careless table reader would turn into numbers."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real recordings beside the checkout; a clone elsewhere has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real recordings (../shared/data), which are not part of the repository")
    return SHARED_DATA


def tone(seconds: float, rate: int = SAMPLE_RATE, hz: float = 2_000.0, seed: int = 0) -> np.ndarray:
    """A tone that swells and ebbs over faint noise: every window differs from its neighbours."""
    clock = np.arange(round(seconds * rate)) / rate
    swell = 0.3 + 0.2 * np.sin(2 * np.pi * clock / 7.3)
    noise = np.random.default_rng(seed).normal(0, 0.01, len(clock))
    return (swell * np.sin(2 * np.pi * hz * clock) + noise).astype(np.float32)


@pytest.fixture(scope="session")
def soundscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good files: 12, 3 and 2 windows."""
    folder = tmp_path_factory.mktemp("soundscapes")
    for index, seconds in enumerate((60.0, 15.0, 8.0)):
        soundfile.write(folder / f"site_{index}.ogg", tone(seconds, hz=1_000.0 * (index + 1), seed=index), SAMPLE_RATE)
    return folder


def write_linear_graph(path: Path, seed: int, labels: tuple[str, ...] = LABELS, n_mels: int = 32) -> None:
    """A graph small enough to check by hand: logits = mean over time of (log-mel / 20) @ weights."""
    weights = np.random.default_rng(seed).normal(0, 0.1, (n_mels, len(labels))).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["log_mel", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["batch", 1, n_mels, "frames"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(labels)])],
        [
            numpy_helper.from_array(np.array([1, 3]), "axes"),
            numpy_helper.from_array(np.float32(0.05), "scale"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"labels_sha256": labels_sha256(labels)})
    onnx.save(model, path)


def write_bundle(
    folder: Path,
    members: int = 2,
    frontend: FrontEndConfig = FRONTEND,
    labels: tuple[str, ...] = LABELS,
    kernel: tuple[float, ...] = (0.2, 0.6, 0.2),
) -> Path:
    """A whole, valid bundle of linear members."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for fold in range(members):
        path = folder / f"fold{fold}.onnx"
        write_linear_graph(path, fold, labels, frontend.mel.n_mels)
        listed.append(Member(path.name, file_sha256(path), fold, "linear"))
    manifest = Manifest(
        format=FORMAT,
        name=folder.name,
        species=tuple(Species(label) for label in labels),
        frontend=frontend,
        post=PostConfig(kernel),
        members=tuple(listed),
        frontend_fingerprint=tuple(mel.fingerprint(frontend)),
        fallback_probabilities=tuple(0.1 * (index + 1) for index in range(len(labels))),
        provenance=Provenance("2026-01-01T00:00:00Z", "tests", {}, {}),
    )
    save_manifest(folder, manifest)
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two linear members."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "linear")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Make a bundle of one's own, to break it."""
    return lambda **options: write_bundle(tmp_path / "bundle", **options)
