"""INT8 graphs whose products overflow 16 bits where a processor adds two of them there: AVX2 without VNNI."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

N_IN, N_OUT = 64, 16
KINDS = ("dynamic product", "static convolution")
EXACT = 64.0
"""What each output is of an input of ones."""


def saturating_graph(kind: str) -> tuple[bytes, tuple[int, ...]]:
    """A graph ``x`` -> ``y`` with S8 weights of 127 and U8 activations, and the shape of a window."""
    dynamic = kind == "dynamic product"
    weight = np.full((N_IN, N_OUT) if dynamic else (N_OUT, N_IN, 1, 1), 127, np.int8)
    constants = {
        "w": weight, "w_zero": np.int8(0), "zero": np.uint8(0), "x_scale": np.float32(1 / 255),
        "w_scale": np.float32(1 / 127), "y_scale": np.float32(0.5),
    }  # fmt: skip
    if dynamic:
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "q_zero"]),
            helper.make_node("MatMulInteger", ["q", "w", "q_zero", "w_zero"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["sums"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["scale", "w_scale"], ["step"]),
            helper.make_node("Mul", ["sums", "step"], ["y"]),
        ]
    else:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "x_scale", "zero"], ["x8"]),
            helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w8"]),
            helper.make_node("Conv", ["x8", "w8"], ["sums"]),
            helper.make_node("QuantizeLinear", ["sums", "y_scale", "zero"], ["y8"]),
            helper.make_node("DequantizeLinear", ["y8", "y_scale", "zero"], ["y"]),
        ]
    size = () if dynamic else (4, 4)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, n, *size])
            for name, n in (("x", N_IN), ("y", N_OUT))]  # fmt: skip
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, kind, ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString(), (N_IN, *size)
