"""Join an encoder and the head that scores its embeddings to one graph: BattyBirdNET and its regional heads.

In: two ONNX files. Out: a graph that takes what the encoder takes and returns what the head returns, and the embedding.
"""

from collections.abc import Iterable
from pathlib import Path

import onnx.compose
import onnx.helper

import onnx
from birdinfer.errors import BundleError
from birdinfer.export.onnx.opset import opset_of, raised_to, read_graph


def join_head(encoder: Path, head: Path) -> onnx.ModelProto:
    """Put a head behind the embedding of an encoder: its output with as many numbers as the head takes.

    An embedding of frames [batch, frames, numbers] is averaged over them.

    Raises:
        BundleError: one is no graph, the head takes more than one row of numbers, or no output of the encoder fits.
    """
    models = [read_graph(path) for path in (encoder, head)]
    opset, ir_version = max(map(opset_of, models)), max(model.ir_version for model in models)
    first, second = (raised_to(model, opset, path) for model, path in zip(models, (encoder, head), strict=True))
    first.ir_version = second.ir_version = ir_version
    taken = _inputs(second)
    if len(taken) != 1 or len(_sizes(taken[0])) != 2 or not (n_numbers := _sizes(taken[0])[1]):
        raise BundleError(head, f"takes {_listed(taken)}, a head takes one embedding [batch, numbers]")
    fitting = [each for each in first.graph.output if len(_sizes(each)) in (2, 3) and _sizes(each)[-1] == n_numbers]
    flat = [each for each in fitting if len(_sizes(each)) == 2]
    if len(flat or fitting) != 1:
        what = f"gives {_listed(first.graph.output)}, of which {len(fitting)} have the {n_numbers} numbers"
        raise BundleError(encoder, f"{what} that the head takes", "name the head that belongs to it")
    embedding = (flat or fitting)[0].name if flat else _mean_over_frames(first, fitting[0].name, opset)
    second = onnx.compose.add_prefix(second, "head/")
    scores = [each.name for each in second.graph.output if _sizes(each)[-1:] != [n_numbers]]
    joined = onnx.compose.merge_models(
        first,
        second,
        io_map=[(embedding, f"head/{taken[0].name}")],
        outputs=[*(scores or [each.name for each in second.graph.output]), embedding],
    )
    if not any(each.name == embedding for each in joined.graph.output):
        kept = next(each for each in first.graph.output if each.name == embedding)
        joined.graph.output.append(kept)
    return joined


def _mean_over_frames(model: onnx.ModelProto, frames: str, opset: int) -> str:
    name = f"{frames}/mean"
    inputs = [frames]
    if opset >= 18:
        inputs.append(f"{frames}/axes")
        model.graph.initializer.append(onnx.helper.make_tensor(inputs[1], onnx.TensorProto.INT64, [1], [1]))
        node = onnx.helper.make_node("ReduceMean", inputs, [name], keepdims=0)
    else:
        node = onnx.helper.make_node("ReduceMean", inputs, [name], axes=[1], keepdims=0)
    model.graph.node.append(node)
    sizes = next(_sizes(each) for each in model.graph.output if each.name == frames)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [sizes[0] or "batch", sizes[-1]])
    )
    return name


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {each.name for each in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in constants]


def _sizes(value: onnx.ValueInfoProto) -> list[int | None]:
    return [each.dim_value if each.HasField("dim_value") else None for each in value.type.tensor_type.shape.dim]


def _listed(values: Iterable[onnx.ValueInfoProto]) -> str:
    return ", ".join(f"{each.name} [{', '.join(str(size or '?') for size in _sizes(each))}]" for each in values)
