"""What tests make: small sound files, and bundles that take milliseconds and no torch."""

from pathlib import Path

import numpy as np
import onnx
import soundfile
from onnx import TensorProto, helper, numpy_helper

from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WindowConfig
from birdinfer.features import log_mel as mel
from birdinfer.inference.bundle import file_sha256, labels_sha256, save_manifest
from birdinfer.inference.manifest import FORMAT, Graph, Manifest, Member, Provenance
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species

SAMPLE_RATE = 32_000

FRONTEND = FrontEndConfig(AudioConfig(), WindowConfig(), MelConfig(n_fft=1024, n_mels=32, normalisation="none"))
LABELS = ("comcuc", "0012", "1161364", "47158son16")
"""An eBird code, and three labels that a careless table reader would turn into numbers."""


def tone(seconds: float, rate: int = SAMPLE_RATE, hz: float = 2_000.0, seed: int = 0) -> np.ndarray:
    """A tone that swells and ebbs over faint noise: every window differs from its neighbours."""
    clock = np.arange(round(seconds * rate)) / rate
    swell = 0.3 + 0.2 * np.sin(2 * np.pi * clock / 7.3)
    noise = np.random.default_rng(seed).normal(0, 0.01, len(clock))
    return (swell * np.sin(2 * np.pi * hz * clock) + noise).astype(np.float32)


def write_sound(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE, subtype: str | None = None) -> None:
    """Write a sound file second by second.

    Not in one call: Vorbis keeps all that it is given at once on the stack, where 60 s just fit and 70 s crash.
    """
    n_channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, n_channels, subtype=subtype) as file:
        for begin in range(0, len(samples), rate):
            file.write(samples[begin : begin + rate])


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


def write_framewise_graph(path: Path, seed: int, n_frames: int, n_mels: int = 32) -> None:
    """A detector: each frame's logits are its bands @ weights, pooled to ``n_frames``; the clip's are their mean."""
    weights = np.random.default_rng(seed).normal(0, 0.1, (n_mels, len(LABELS))).astype(np.float32)
    nodes = [
        helper.make_node("Reshape", ["log_mel", "cut"], ["pieces"]),
        helper.make_node("ReduceMean", ["pieces", "last"], ["bands"], keepdims=0),
        helper.make_node("Transpose", ["bands"], ["in_time"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["in_time", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weights"], ["frames"]),
        helper.make_node("ReduceMean", ["frames", "time"], ["clip"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "framewise",
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, ["batch", 1, n_mels, "frames"])],
        [
            helper.make_tensor_value_info("clip", TensorProto.FLOAT, ["batch", len(LABELS)]),
            helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["batch", n_frames, len(LABELS)]),
        ],
        [
            numpy_helper.from_array(np.array([0, n_mels, n_frames, -1]), "cut"),
            numpy_helper.from_array(np.array([3]), "last"),
            numpy_helper.from_array(np.array([1]), "time"),
            numpy_helper.from_array(np.float32(0.05), "scale"),
            numpy_helper.from_array(weights, "weights"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def linear_member(path: Path, frontend: FrontEndConfig, fold: int) -> Member:
    """The manifest's entry for a linear graph."""
    return Member(
        name=path.stem,
        graphs={"fp32": Graph(path.name, file_sha256(path))},
        frontend=frontend,
        frontend_fingerprint=tuple(mel.fingerprint(frontend)),
        backbone="linear",
        fold=fold,
    )


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
        listed.append(linear_member(path, frontend, fold))
    manifest = Manifest(
        format=FORMAT,
        name=folder.name,
        species=tuple(Species(label) for label in labels),
        rows=frontend.window,
        post=PostConfig(kernel),
        members=tuple(listed),
        fallback_probabilities=tuple(min(0.1 * (index + 1), 1.0) for index in range(len(labels))),
        provenance=Provenance("2026-01-01T00:00:00Z", "tests", {}, {}),
    )
    save_manifest(folder, manifest)
    return folder
