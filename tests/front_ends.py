"""Graphs that take the waveform and compute a spectrogram in one of the ways of the exporters, with a small head."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SAMPLES, N_FFT, HOP, N_BANDS, N_LABELS = 8_000, 128, 40, 12, 5
RATE = 8_000
KINDS = ("stft", "stft of 3 axes", "dft", "matmul", "conv", "two convs", "real part", "unfolded")
PADS = {"": 0, "reflect": N_FFT // 2, "constant": N_FFT // 2}


def write_front_end(path: Path, kind: str, pad: str = "", *, normalised: bool = False, batch: object = "batch") -> Path:
    """Write a graph: waveform -> (peak to 1) -> (pad) -> spectrum -> power -> bands -> log -> mean -> ``scores``.

    ``kind``: how the spectrum is computed, of :data:`KINDS`; ``real part`` keeps that alone, ``unfolded`` has a median
    in the frames, which is not linear.
    """
    rng = np.random.default_rng(0)
    n_samples = SAMPLES + 2 * PADS[pad]
    n_frames = (n_samples - N_FFT) // HOP + 1
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
    turns = 2 * np.pi * (np.outer(np.arange(N_FFT), np.arange(N_FFT // 2 + 1)) % N_FFT) / N_FFT
    cos, sin = (
        (np.cos(turns) * window[:, None]).astype(np.float32),
        (-np.sin(turns) * window[:, None]).astype(np.float32),
    )
    constants: dict[str, np.ndarray] = {
        "window": window, "hop": np.array(HOP), "length": np.array(N_FFT), "one": np.array([1]), "two": np.array(2),
        "last": np.array([-1]), "zero_at": np.array(0), "one_at": np.array(1), "axis": np.array([1]), "cos": cos,
        "sin": sin, "both": np.concatenate([cos, sin], axis=1).T[:, None].copy(), "floor": np.float32(1e-6),
        "cos_taps": cos.T[:, None].copy(), "sin_taps": sin.T[:, None].copy(), "last_axis": np.array(2),
        "index": np.arange(n_frames)[:, None] * HOP + np.arange(N_FFT), "pads": np.array([0, PADS[pad]] * 2),
        "bands": rng.random((N_FFT // 2 + 1, N_BANDS)).astype(np.float32), "deep": np.array([3]),
        "square": np.float32(2),
        "head": rng.normal(0, 1, (N_BANDS, N_LABELS)).astype(np.float32), "halves": np.array([N_FFT // 2 + 1] * 2),
    }  # fmt: skip
    nodes = []

    def add(op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"{op}_{len(nodes)}_{place}" for place in range(outputs)]
        nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0]

    sound = "waveform"
    if normalised:
        sound = add("Div", sound, add("Add", add("ReduceMax", add("Abs", sound), "axis", keepdims=1), "floor"))
    if pad:
        sound = add("Pad", sound, "pads", mode=pad)
    real = imaginary = ""
    if kind.startswith("stft"):
        deep = add("Unsqueeze", sound, "last") if "3" in kind else sound
        both = add("STFT", deep, "hop", "window", "length")
    elif kind in ("dft", "real part"):
        frames = add("Mul", add("Gather", sound, "index", axis=1), "window")
        both = add("DFT", add("Unsqueeze", frames, "deep"), axis=2, onesided=1)
    if kind.startswith("stft") or kind == "dft":
        real, imaginary = add("Gather", both, "zero_at", axis=3), add("Gather", both, "one_at", axis=3)
    elif kind == "real part":
        real = add("MatMul", add("Gather", both, "zero_at", axis=3), "bands")
    elif kind == "matmul":
        frames = add("Gather", sound, "index", axis=1)
        real, imaginary = add("MatMul", frames, "cos"), add("MatMul", frames, "sin")
    elif kind == "unfolded":
        frames = add("Relu", add("Gather", sound, "index", axis=1))
        real, imaginary = add("MatMul", frames, "cos"), add("MatMul", frames, "sin")
    elif kind == "conv":
        found = add(
            "Split", add("Conv", add("Unsqueeze", sound, "axis"), "both", strides=[HOP]), "halves", axis=1, outputs=2
        )
        real, imaginary = (add("Transpose", each, perm=[0, 2, 1]) for each in (found, found[:-1] + "1"))
    elif kind == "two convs":
        deep = add("Unsqueeze", sound, "axis")
        real, imaginary = (
            add("Transpose", add("Conv", deep, taps, strides=[HOP]), perm=[0, 2, 1])
            for taps in ("cos_taps", "sin_taps")
        )
    power = add("Mul", real, real)
    if imaginary:
        power = add("MatMul", add("Add", power, add("Pow", imaginary, "square")), "bands")
    level = add("ReduceMean", add("Log", add("Add", power, "floor")), "axis", keepdims=0)
    nodes.append(helper.make_node("MatMul", [level, "head"], ["scores"]))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes, "front end", [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [batch, SAMPLES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, N_LABELS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def sounds(count: int = 3) -> np.ndarray:
    """Noise, a chirp in noise, and silence [count, samples]."""
    rng = np.random.default_rng(5)
    clock = np.arange(SAMPLES) / RATE
    chirp = 0.3 * np.sin(2 * np.pi * (500 * clock + 1_200 * clock**2)) + 0.01 * rng.normal(size=SAMPLES)
    every = [0.1 * rng.normal(size=SAMPLES), chirp, np.zeros(SAMPLES)]
    return np.stack(every[:count]).astype(np.float32)
