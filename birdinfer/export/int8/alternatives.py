"""Two other ways to INT8: ONNX Runtime's dynamic quantisation, and OpenVINO's NNCF (extra ``nncf``) to compare with.

Dynamic quantisation needs no calibration: S8 weights per channel, and U8 activations whose 256 values span what one
call holds. That is the whole batch, so that a window's scores would depend on the others (by 0.46 of a probability with
an efficientnet_b0 and windows of unlike loudness); so the graph takes one window a call. Measured on one core with
AVX-512 VNNI, vit_tiny runs 1.9 times as fast as fp32, a two-layer LSTM 2.5 times, a GRU, which has no such kernel, 1.1.
ONNX Runtime's ``ConvInteger`` is six times slower than its fp32 convolution: a comparison only. OpenVINO reads such
graphs as well, with the same outputs at a third of ONNX Runtime's speed.
"""

import contextlib
import importlib
import io
import logging
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime.quantization

import onnx
from birdinfer.errors import ConfigError, MissingExtraError
from birdinfer.system.cpu import variable
from birdinfer.system.files import write_atomic
from birdinfer.typing import Float32

PRODUCTS = ("MatMul", "Gemm", "LSTM")  # operators that become faster
_CONVOLUTION = "Conv"
_INTEGER = {"MatMulInteger": "products", "ConvInteger": "convolutions", "DynamicQuantizeLSTM": "LSTMs"}


def quantize_dynamic(graph: Path, out: Path) -> str:
    """Write the dynamic INT8 form of an fp32 graph, for one window a call; return what was done, in a few words.

    Names and ``metadata_props`` stay. Raises ConfigError if nothing in it can be dynamic INT8.
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
    """Choose the operators to quantise: convolutions only if they hold most of the weights.

    In a transformer the one convolution that cuts patches would cost more than it saves; in a convolutional network
    without its convolutions nothing would be left to compare.
    """
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    weights: Counter[str] = Counter()
    for node in model.graph.node:
        weights[node.op_type] += sum(sizes.get(name, 0) for name in node.input)
    is_convolutional = weights[_CONVOLUTION] > sum(weights[kind] for kind in PRODUCTS)
    return (*PRODUCTS, _CONVOLUTION) if is_convolutional else PRODUCTS


def fix_batch_of_one(model: onnx.ModelProto) -> None:
    """Set the batch axis of input and outputs to 1, so that engines run one window at a time.

    Shapes inside the graph, which name the free axis, are removed; engines infer them again.
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
            # A product of two activations (attention) would need two ranges and be slower.
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop ONNX Runtime's advice, on the root logger, to fuse the graph first: simplifying has done that."""
    logger = logging.getLogger()
    logger.addFilter(_is_no_advice)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()


# ---- NNCF


def quantize_nncf(graph: Path, out: Path, windows: Sequence[Float32]) -> str:
    """Write the INT8 form of an fp32 graph that NNCF makes; names, batch axis and ``metadata_props`` stay as they are.

    ``windows`` are real ones [1, ...] each, 32 or more; one at a time is in memory. Returns what was done, in a few
    words. Raises MissingExtraError without nncf, ConfigError for no windows, windows that are not finite, or nothing in
    the graph that NNCF quantises.
    """
    if not windows:
        raise ConfigError("calibration", "holds no windows", "give 32 or more windows of real sound")
    if not all(np.isfinite(window).all() for window in windows):
        raise ConfigError("calibration", "holds values that are not finite", "leave those windows out")
    nncf, model = import_nncf(), onnx.load(graph)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    name = model.graph.input[0].name
    with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars of its own
        quantised: onnx.ModelProto = nncf.quantize(
            model,
            nncf.Dataset(list(windows), lambda window: {name: window}),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(windows),
        )
    n_int8 = sum(node.op_type == "QuantizeLinear" for node in quantised.graph.node)
    if not n_int8:
        raise ConfigError(graph, "holds nothing that NNCF makes INT8", "leave it in fp32")
    onnx.helper.set_model_props(quantised, metadata)
    onnx.checker.check_model(quantised, full_check=True)
    write_atomic(out, quantised.SerializeToString())
    return f"NNCF {nncf.__version__}, performance preset, {len(windows)} windows, {n_int8} values in INT8"


def import_nncf() -> Any:
    """Import NNCF without its telemetry; raise MissingExtraError if it is not installed."""
    try:
        # NNCF reads the variable, with which it does not report its use over the network, while it is imported.
        with variable("NNCF_CI", "1"):
            nncf = importlib.import_module("nncf")
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "nncf", "nncf") from error
    nncf.set_log_level("ERROR")
    return nncf
