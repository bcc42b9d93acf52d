"""Rewrites: the same answers from fewer kinds of nodes."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import torch
from awkward_network import INPUT_CONFIG, LogitsOf, graph_logits

from birdinfer.export.int8.prepare import rewrite, scaled_value
from birdinfer.export.onnx.torch_export import export_graph


def test_rewrites_change_no_answer(awkward_graph, awkward_windows, tmp_path):
    rewritten = ir.load(awkward_graph)
    rewrite(rewritten.graph)
    ir.save(rewritten, tmp_path / "rewritten.onnx")
    wanted, found = (graph_logits(path, awkward_windows) for path in (awkward_graph, tmp_path / "rewritten.onnx"))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    count = Counter(node.op_type for node in rewritten.graph)
    assert not {"Expand", "AveragePool", "Shape", "Concat"} & set(count)
    assert (count["ReduceMean"], count["GlobalAveragePool"], count["Pad"]) == (1, 2, 1)
    assert sum(scaled_value(node) is not None for node in rewritten.graph) == 1  # the gate's 1.4


def test_a_hard_swish_of_activations_becomes_a_product_and_one_of_single_numbers_stays(awkward_windows, tmp_path):
    torch.manual_seed(0)
    net = torch.nn
    model = net.Sequential(
        net.Conv2d(1, 8, 3), net.Hardswish(), net.Conv2d(8, 8, 3), net.Hardswish(), net.AdaptiveAvgPool2d(1),
        net.Conv2d(8, 8, 1), net.Hardswish(), net.Flatten(), net.Linear(8, 12),
    )  # fmt: skip
    export_graph(LogitsOf(model), INPUT_CONFIG, tmp_path / "fp32.onnx", {})
    rewritten = ir.load(tmp_path / "fp32.onnx")
    rewrite(rewritten.graph)
    ir.save(rewritten, tmp_path / "rewritten.onnx")
    count = Counter(node.op_type for node in rewritten.graph)
    assert (count["HardSigmoid"], count["Mul"], count["HardSwish"]) == (2, 2, 1)
    wanted, found = (graph_logits(tmp_path / name, awkward_windows) for name in ("fp32.onnx", "rewritten.onnx"))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
