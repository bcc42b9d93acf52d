"""fp32 graph -> INT8 graph without calibration: each activation's range is taken anew in every call.

In: a graph of ``graphs/onnx.py``. Out: S8 weights per channel and U8 activations, whose 256 values span what
the call holds. That is the whole batch: of one window among others the answer would depend on its company (by 0.46 of a
probability with an efficientnet_b0 and windows of unlike loudness). So the graph takes one window a call, which engines
honour, and its batch axis says so.

Matrix products and LSTMs gain: measured on one core of an AVX-512 VNNI processor, one window a call, vit_tiny runs 1.9
times as fast as fp32, a two-layer LSTM 2.5 times. A GRU has no such kernel (1.1). ONNX Runtime's ``ConvInteger`` is six
times slower than its fp32 convolution: a convolutional network is made so for comparison only, :mod:`quantize` is for
it. OpenVINO reads such graphs, too, and gives the same answers at a third of ONNX Runtime's speed.
"""

import logging
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnxruntime.quantization

from birdinfer.errors import ConfigError
from birdinfer.files import write_atomic

PRODUCTS = ("MatMul", "Gemm", "LSTM")
"""What gains."""

_CONVOLUTION = "Conv"
_INTEGER = {"MatMulInteger": "products", "ConvInteger": "convolutions", "DynamicQuantizeLSTM": "LSTMs"}


def quantize_dynamic(graph: Path, out: Path) -> str:
    """Write the dynamic INT8 form of a graph, for one window a call; names and ``metadata_props`` stay as they are.

    Args:
        graph: an fp32 graph, [batch, ...] in and out.
        out: where to.

    Returns:
        What was done, in a few words.

    Raises:
        ConfigError: nothing in it can be dynamic INT8.
        OutputError: the graph cannot be written there.
    """
    model = onnx.load(graph)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    quantised = _quantised(model, int8_operators(model))
    made = Counter(_INTEGER[node.op_type] for node in quantised.graph.node if node.op_type in _INTEGER)
    if not made:
        raise ConfigError(graph, "has no product with stored weights that could be dynamic INT8", "leave it in fp32")
    onnx.helper.set_model_props(quantised, metadata)
    fix_batch_of_one(quantised)
    onnx.checker.check_model(quantised, full_check=True)
    write_atomic(out, quantised.SerializeToString())
    return f"{', '.join(f'{count} {what}' for what, count in made.items())} in INT8; one window a call"


def int8_operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """The kinds of operators to quantise: convolutions only where they hold most of the weights.

    In a transformer the one convolution that cuts patches would cost more than it saves; without those of a
    convolutional network nothing would be left to compare.
    """
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    weights: Counter[str] = Counter()
    for node in model.graph.node:
        weights[node.op_type] += sum(sizes.get(name, 0) for name in node.input)
    is_convolutional = weights[_CONVOLUTION] > sum(weights[kind] for kind in PRODUCTS)
    return (*PRODUCTS, _CONVOLUTION) if is_convolutional else PRODUCTS


def fix_batch_of_one(model: onnx.ModelProto) -> None:
    """Let input and outputs have a batch axis of 1, so that whoever runs the graph gives it one window at a time.

    Shapes inside the graph, which name the free axis, are forgotten; engines infer them again.
    """
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def _quantised(model: onnx.ModelProto, operators: tuple[str, ...]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        onnxruntime.quantization.quantize_dynamic(
            model,
            path,
            op_types_to_quantize=list(operators),
            per_channel=True,
            weight_type=onnxruntime.quantization.QuantType.QInt8,
            # A product of two activations (attention) would take two ranges to be slower.
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime advises, on the root logger, to fuse the graph first; simplifying has done that."""
    logger = logging.getLogger()
    logger.addFilter(_is_no_advice)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()
