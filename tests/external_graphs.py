"""External graphs: waveform in, scores out, small enough to be computed by hand."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

N_FRAMES = 5
N_BANDS, N_GROUPS = 16, 4


def loudness_weights(n_labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of every label: logit = slope * RMS of the window + offset."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(0, 4, n_labels).astype(np.float32),
        np.linspace(-2, 1, n_labels, dtype=np.float32),
    )


def loudness_logits(windows: np.ndarray, n_labels: int, seed: int = 0) -> np.ndarray:
    """Logits of :func:`write_external_graph` for windows [windows, samples]."""
    slope, offset = loudness_weights(n_labels, seed)
    rms = np.sqrt(np.mean(np.square(windows, dtype=np.float64), axis=1))
    return rms[:, None] * slope + offset


def write_external_graph(
    path: Path,
    n_labels: int,
    shape: tuple[object, ...] = ("batch", 160_000),
    ending: str = "",
    *,
    seed: int = 0,
    clip: bool = True,
    frames: bool = False,
    second_output: bool = False,
    depends_on_batch: bool = False,
    element: int = TensorProto.FLOAT,
    inputs: int = 1,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A graph that scores how loud a window is.

    ``ending``: "", "Sigmoid", "Softmax", or "Log", which returns -Inf for silence. ``depends_on_batch``: its
    scores depend on the loudest window of the batch.
    """
    slope, offset = loudness_weights(n_labels, seed)
    nodes = [
        helper.make_node("Cast", ["waveform"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "float"], ["power"]),
        helper.make_node("ReduceMean", ["power", "but_batch"], ["mean"], keepdims=0),
        helper.make_node("Sqrt", ["mean"], ["rms"]),
        helper.make_node("ReduceMax", ["rms"], ["loudest"], keepdims=1),
        helper.make_node(
            "Sub" if depends_on_batch else "Identity", ["rms", "loudest"][: 1 + depends_on_batch], ["level"]
        ),
        helper.make_node("Unsqueeze", ["level", "last"], ["column"]),
        helper.make_node("Mul", ["column", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["sum"]),
    ]
    if ending == "Log":
        nodes += [helper.make_node("Log", ["column"], ["log"]), helper.make_node("Add", ["sum", "log"], ["scores"])]
    else:
        nodes.append(helper.make_node(ending or "Identity", ["sum"], ["scores"]))
    batch = shape[0] if isinstance(shape[0], int) else "batch"
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, n_labels]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, 1]),
    ]
    outputs = outputs if clip else outputs[1:]
    nodes.append(helper.make_node("Identity", ["column"], ["embedding"]))
    if second_output:
        nodes.append(helper.make_node("Identity", ["scores"], ["again"]))
        outputs.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, [batch, n_labels]))
    if frames:
        nodes += [
            helper.make_node("Reshape", ["power", "in_frames"], ["cut"]),
            helper.make_node("ReduceMean", ["cut", "last_of_three"], ["frame_mean"], keepdims=1),
            helper.make_node("Sqrt", ["frame_mean"], ["frame_rms"]),
            helper.make_node("Mul", ["frame_rms", "slope"], ["frame_scaled"]),
            helper.make_node("Add", ["frame_scaled", "offset"], ["frame_scores"]),
        ]
        outputs.append(helper.make_tensor_value_info("frame_scores", TensorProto.FLOAT, [batch, N_FRAMES, n_labels]))
    constants = {
        "but_batch": np.arange(1, len(shape)),
        "last": np.array([1]),
        "slope": slope,
        "offset": offset,
        "last_of_three": np.array([2]),
    }
    if frames:
        constants["in_frames"] = np.array([-1, N_FRAMES, shape[-1] // N_FRAMES])
    names = ["waveform", *(f"more{index}" for index in range(1, inputs))]
    graph = helper.make_graph(
        nodes,
        "external",
        [helper.make_tensor_value_info(name, element, list(shape)) for name in names],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def write_list(path: Path, *lines: str) -> Path:
    """Write a list of labels, one on each line."""
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def write_picture_graph(path, shape, element=TensorProto.FLOAT):
    """A graph of pictures: its scores are 3 x the mean of each of four groups of 16 bands."""
    rank = len(shape)
    bands_axis = rank - 2 if shape[rank - 2] in (N_BANDS, None) else rank - 1
    constants = {
        "others": np.array([axis for axis in range(1, rank) if axis != bands_axis]),
        "groups": np.array([-1, N_GROUPS, N_BANDS // N_GROUPS]), "last": np.array([2]), "three": np.float32(3),
    }  # fmt: skip
    nodes = [
        helper.make_node("ReduceMean", ["picture", "others"], ["bands"], keepdims=0),
        helper.make_node("Reshape", ["bands", "groups"], ["grouped"]),
        helper.make_node("ReduceMean", ["grouped", "last"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "three"], ["scores"]),
    ]
    declared = ["batch", *("open" if size is None else size for size in shape[1:])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("picture", element, declared)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", N_GROUPS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
