"""Rewrites: the same answers from fewer kinds of nodes."""

from collections import Counter

import numpy as np
import onnx_ir as ir
from awkward_network import answers

from birdinfer.export.rewrites import rewrite, scaled_value


def test_rewrites_change_no_answer(awkward_graph, awkward_windows, tmp_path):
    rewritten = ir.load(awkward_graph)
    rewrite(rewritten.graph)
    ir.save(rewritten, tmp_path / "rewritten.onnx")
    wanted, found = (answers(path, awkward_windows) for path in (awkward_graph, tmp_path / "rewritten.onnx"))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    count = Counter(node.op_type for node in rewritten.graph)
    assert not {"Expand", "AveragePool", "Shape", "Concat"} & set(count)
    assert (count["ReduceMean"], count["GlobalAveragePool"], count["Pad"]) == (1, 2, 1)
    assert sum(scaled_value(node) is not None for node in rewritten.graph) == 1  # the gate's 1.4
