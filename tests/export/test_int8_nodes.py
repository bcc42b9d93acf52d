"""Which values of a graph are quantised in which way."""

import onnx_ir as ir

from birdinfer.export.int8_nodes import is_read_by_silu_alone
from birdinfer.export.rewrites import rewrite


def test_which_values_a_silu_alone_reads(awkward_graph):
    rewritten = ir.load(awkward_graph)
    rewrite(rewritten.graph)
    alone = {node.op_type: [] for node in rewritten.graph}
    for node in rewritten.graph:
        alone[node.op_type].append(is_read_by_silu_alone(node.outputs[0]))
    # The stem, expand, depthwise and squeeze lead to a SiLU alone; so do both sums.
    assert (sum(alone["Conv"]), sum(alone["Add"])) == (4, 2)
