"""Change a graph's inputs and outputs to those of a member, where that changes no value.

In: a graph as its authors export it. Out: the same graph with one float32 input: further inputs (``training``,
latitude, week) have become constants, float16 and float64 are cast, axes of size 1 behind or before the samples, and
around the outputs, are gone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from birdinfer.errors import BundleError, ConfigError
from birdinfer.export.onnx.edit import replace_value
from birdinfer.export.onnx.fourier import NodeWriter, ints
from birdinfer.typing import Array

_LEAST_SAMPLES = 1_000
"""Of an axis that can hold a window of sound, or a picture of it."""
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}
_HINT = "give it a value: --input"
Sizes = list[int | None]


def make_plain(model: ir.Model, path: Path, given: Mapping[str, str]) -> list[str]:
    """Change a graph in place; returns what was changed, one line each.

    Args:
        model: the graph.
        path: its file, for messages.
        given: values of further inputs, by name: a number, several with commas, ``true`` or ``false``.

    Raises:
        ConfigError: a value is missing, is for no input, or does not fit it.
        BundleError: no input, or several, can be the sound.
    """
    graph = model.graph
    inputs = [value for value in graph.inputs if value.name not in graph.initializers]
    unknown = next((name for name in given if name not in {value.name for value in inputs}), None)
    if unknown is not None:
        listed = ", ".join(_text(value) for value in inputs)
        raise ConfigError("--input", f"{unknown!r} is no input of {path.name}", f"it takes {listed}")
    sound = _sound_input(inputs, path, given)
    lines = [_fix(graph, value, sound, given, path) for value in inputs if value is not sound]
    lines += _plain_sound(graph, sound)
    lines += _plain_outputs(graph)
    return lines


def _sound_input(inputs: Sequence[ir.Value], path: Path, given: Mapping[str, str]) -> ir.Value:
    """The input that is not given a value and can hold sound."""
    if len(inputs) == 1:
        return inputs[0]
    if not inputs:
        raise BundleError(path, "takes no input", "export it again")
    fitting = [value for value in inputs if value.name not in given and value.dtype in _FLOATS and _is_large(value)]
    if len(fitting) != 1:
        listed = ", ".join(_text(value) for value in inputs) or "none"
        raise BundleError(path, f"takes {len(inputs)} inputs ({listed}), one is the sound", "give the others: --input")
    return fitting[0]


def _is_large(value: ir.Value) -> bool:
    """Whether an input has an axis behind the batch that is open, or as long as sound."""
    sizes = _sizes(value)
    behind = sizes[1:] or sizes
    return any(size is None for size in behind) or int(np.prod([size or 1 for size in behind])) >= _LEAST_SAMPLES


def _fix(graph: ir.Graph, value: ir.Value, sound: ir.Value, given: Mapping[str, str], path: Path) -> str:
    """Put a constant in the place of an input."""
    name = value.name or ""
    assert value.dtype is not None
    if name not in given and value.dtype != ir.DataType.BOOL:
        raise ConfigError(path, f"takes a further input, {_text(value)}", f"{_HINT} {name}=VALUE")
    text = given.get(name, "false")
    numbers = _parse(name, text, value.dtype)
    sizes = _sizes(value)
    is_of_batch = bool(sizes) and sizes[0] is None and (len(sizes) > 1 or numbers.size == 1)
    if len(sizes) and sizes[-1] is None:
        sizes[-1] = numbers.size
    shape = [1 if size is None else size for size in sizes]
    try:
        constant = np.broadcast_to(numbers if shape else numbers.reshape(()), shape).copy()
    except ValueError as error:
        raise ConfigError("--input", f"{name}={text} does not fit {_text(value)}") from error
    write = NodeWriter(f"input/{name}")
    if is_of_batch:
        batch = write("Slice", write("Shape", sound), ints(0), ints(1))
        new = write("Expand", constant, write("Concat", batch, ints(*shape[1:]), axis=0))
        for node in write.nodes:
            node.outputs[0].dtype = ir.DataType.INT64
    else:
        new = write("Identity", constant)
    new.dtype = value.dtype
    _insert(graph, write)
    replace_value(value, new)
    graph.inputs.remove(value)
    return f"input {name} is fixed to {text}"


def _parse(name: str, text: str, dtype: ir.DataType) -> Array:
    words = {"true": 1, "false": 0}
    try:
        numbers = [float(words.get(part.strip().lower(), part)) for part in text.split(",")]
        found = np.array(numbers).astype(dtype.numpy())
    except (ValueError, TypeError) as error:
        hint = "write a number, several with commas, true or false"
        raise ConfigError("--input", f"{name}={text} is no value for {dtype.name.lower()}", hint) from error
    if not np.array_equal(found.astype(np.float64), numbers) and not np.issubdtype(found.dtype, np.floating):
        raise ConfigError("--input", f"{name}={text} is no value for {dtype.name.lower()}")
    return found


def _plain_sound(graph: ir.Graph, sound: ir.Value) -> list[str]:
    """Let the sound be float32 [batch, samples], where the graph takes it with further axes of size 1 or none."""
    sizes, name = _sizes(sound), sound.name or ""
    long = [axis for axis, size in enumerate(sizes) if axis and size != 1]
    is_picture = len(long) > 1
    is_moved = not is_picture and (len(sizes) > 3 or len(sizes) == 1 or (len(sizes) == 3 and sizes[-1] == 1))
    n_fixed = _batch_of_outputs(graph) if sizes and sizes[0] is None else None
    if n_fixed is not None and sound.shape is not None:
        sound.shape = ir.Shape([n_fixed, *sound.shape[1:]])
    lines = [f"takes {n_fixed} windows a call, although its batch is open"] if n_fixed is not None else []
    if not is_moved and (sound.dtype == ir.DataType.FLOAT or sound.dtype not in _FLOATS):
        return lines
    write = NodeWriter(f"input/{name}")
    shape = sound.shape
    assert shape is not None
    if is_moved:
        shape = ir.Shape([1, *shape]) if len(sizes) == 1 else ir.Shape([shape[0], shape[(long or [1])[0]]])
    given = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    sound.name = f"{name}/given"
    new = given
    if is_moved:  # not Squeeze and Unsqueeze, whose axes are no inputs in older opsets
        ones = [1] * (len(sizes) - 1)
        target = [0, *ones] if ones else [-1]
        target[(long or [1])[0] if ones else 0] = -1
        new = write("Reshape", new, ints(*target))
    if sound.dtype != ir.DataType.FLOAT:
        assert sound.dtype is not None
        new = write("Cast", new, to=int(sound.dtype))
        new.dtype = sound.dtype
    replace_value(sound, new)
    graph.inputs[list(graph.inputs).index(sound)] = given
    _insert(graph, write)
    takes = f"takes {_text(sound).removeprefix(sound.name)[1:]}"
    return [*lines, f"{takes}; it is given float32" + (" of [batch, samples]" if is_moved else "")]


def _batch_of_outputs(graph: ir.Graph) -> int | None:
    """The batch that all outputs have, above 1, although the input's is open."""
    batches = {(sizes if len(sizes := _sizes(value)) > 1 else [None])[0] for value in graph.outputs}
    (only, *others) = batches or {None}
    return only if not others and only is not None and only > 1 else None


def _plain_outputs(graph: ir.Graph) -> list[str]:
    """Remove axes of size 1 before or behind the batch of outputs, and add a batch where there is none."""
    is_single = _sizes(graph.inputs[0])[:1] == [1]
    lines = []
    for place, value in enumerate(list(graph.outputs)):
        sizes, name = _sizes(value), value.name or ""
        if len(sizes) == 1 and is_single and (sizes[0] or 2) > 1:
            target, new_sizes = [1, -1], [1, sizes[0]]
        elif len(sizes) == 3 and sizes[1] == 1 and sizes[2] != 1:
            target, new_sizes = [0, -1], [sizes[0], sizes[2]]
        elif len(sizes) == 3 and sizes[0] == 1 and sizes[1] is None and sizes[2] is not None and not is_single:
            target, new_sizes = [-1, sizes[2]], [None, sizes[2]]
        else:
            continue
        write = NodeWriter(f"output/{name}")
        value.name = f"{name}/given"
        new = write("Reshape", value, ints(*target))
        new.name, new.type, new.shape = name, value.type, ir.Shape(new_sizes)
        for constant in write.constants:
            graph.register_initializer(constant)
        graph.extend(write.nodes)
        graph.outputs[place] = new
        lines.append(f"output {name} [{', '.join(str(size or '?') for size in sizes)}] is a row for each window")
    return lines


def _insert(graph: ir.Graph, write: NodeWriter) -> None:
    for constant in write.constants:
        graph.register_initializer(constant)
    graph.insert_before(graph[0], write.nodes)


def _sizes(value: ir.Value) -> Sizes:
    return [size if isinstance(size, int) else None for size in value.shape or ()]


def _text(value: ir.Value) -> str:
    """``week [?, 1] float``."""
    kind = value.dtype.name.lower() if value.dtype is not None else "no tensor"
    return f"{value.name} [{', '.join('?' if size is None else str(size) for size in _sizes(value))}] {kind}"
