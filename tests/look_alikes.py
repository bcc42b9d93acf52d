"""Graphs with the names, shapes and values of public models, and random weights: small enough to be made in a test."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPES = {
    "birdnet-2.4": ("INPUT", 144_000, {"output": (6522,)}, ""),
    "birdnet-3.0": ("input", None, {"embeddings": (1280,), "predictions": (11560,)}, "Sigmoid"),
    "perch-v2": (
        "inputs",
        160_000,
        {"embedding": (1536,), "spatial_embedding": (16, 4, 1536), "spectrogram": (500, 128), "label": (14795,)},
        "",
    ),
    "nighthawk": ("waveform", 22_050, {"species": (82,), "group": (12,), "family": (25,), "order": (9,)}, ""),
    "aves": ("wav", None, {"out": ("frames", 768)}, ""),
}
"""Name of the input, its samples (None: open), outputs behind the batch, and what the scores end with."""
LOGIT = {"birdnet-2.4": -8.0, "birdnet-3.0": -6.0, "perch-v2": 0.0, "nighthawk": -4.0}
"""The mean of its logits: those of a softmax lie around 0."""
N_LABELS = {"birdnet-2.4": 6522, "birdnet-3.0": 11560, "perch-v2": 14795, "nighthawk": 82}


def write_look_alike(model: str, path: Path, seed: int = 0) -> Path:
    """Write a graph like a public model's: each output is a random product with three levels of the sound."""
    source, n_samples, shapes, ending = SHAPES[model]
    rng = np.random.default_rng(seed)
    constants = {"axis": np.array([1]), "floor": np.float32(1e-4)}
    nodes = [
        helper.make_node("Mul", [source, source], ["power"]),
        helper.make_node("ReduceMean", ["power", "axis"], ["mean"], keepdims=1),
        helper.make_node("ReduceMax", ["power", "axis"], ["top"], keepdims=1),
        helper.make_node("Abs", [source], ["size"]),
        helper.make_node("ReduceMean", ["size", "axis"], ["level"], keepdims=1),
        helper.make_node("Concat", ["mean", "top", "level"], ["features"], axis=1),
    ]
    outputs = []
    for number, (name, shape) in enumerate(shapes.items()):
        sizes = [16 if isinstance(size, str) else size for size in shape]
        weights = rng.normal(0, 2, (3, int(np.prod(sizes)))).astype(np.float32)
        bias = rng.normal(LOGIT.get(model, 0), 1, int(np.prod(sizes))).astype(np.float32)
        constants |= {f"w{number}": weights, f"b{number}": bias, f"s{number}": np.array([-1, *sizes])}
        is_score = ending and name == "predictions"
        nodes += [
            helper.make_node("Gemm", ["features", f"w{number}", f"b{number}"], [f"p{number}"]),
            helper.make_node("Reshape", [f"p{number}", f"s{number}"], [f"r{number}"]),
            helper.make_node(ending if is_score else "Identity", [f"r{number}"], [name]),
        ]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))
    graph = helper.make_graph(
        nodes,
        "look-alike",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", n_samples or "samples"])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def write_labels(model: str, folder: Path) -> Path:
    """Write a list of labels in the form in which the model's is published."""
    names = [f"Genus{number // 40} species{number}" for number in range(N_LABELS[model])]
    match model:
        case "birdnet-2.4":
            path, lines = folder / "Labels.txt", [f"{name}_Bird {number}" for number, name in enumerate(names)]
        case "birdnet-3.0":
            path = folder / "labels.csv"
            rows = [f"{number};{900 + number};{name};Bird {number};Aves;Order" for number, name in enumerate(names)]
            lines = ["\ufeffidx;id;sci_name;com_name;class;order", *rows]
        case "perch-v2":
            path, lines = folder / "labels.csv", ["inat2024_fsd50k", *names]
        case _:
            path, lines = folder / "species.txt", names
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path
