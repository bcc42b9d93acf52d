"""A location model made for the tests: species 0 in the north, 1 in the south, 2 in summer; 3 is in no list."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from birdinfer.species import Species

SPECIES = (
    Species("norbir", "Borealis avis", "Northern Bird"),
    Species("soubir", "Australis avis", "Southern Bird"),
    Species("Aestas avis_Summer Bird"),
    Species("frog1", "Rana ignota", "Unknown Frog"),
)
LIST = "7\tBorealis avis\tNorth Bird\n3\tAustralis vetus\tSouthern Bird\n9\tAestas avis\tSummer Bird\n"


def write_model(path, activation="Sigmoid", sizes=(1, 3), n_species=3):
    """Latitude decides on the first two species, the distance from week 24 on the third."""
    nodes = [
        helper.make_node("Add", ["place", "shift"], ["shifted"]),
        helper.make_node("Abs", ["shifted"], ["distance"]),
        helper.make_node("Concat", ["shifted", "distance"], ["both"], axis=1),
        helper.make_node("MatMul", ["both", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node(activation, ["logits"], ["scores"]),
    ]
    weights = np.zeros((2 * sizes[1], n_species), np.float32)
    weights[0, 0], weights[0, 1], weights[-1, 2] = 1, -1, -1
    shift = np.zeros(sizes[1], np.float32)
    shift[-1] = -24
    graph = helper.make_graph(
        nodes,
        "places",
        [helper.make_tensor_value_info("place", TensorProto.FLOAT, ["batch", sizes[1]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", n_species])],
        [
            numpy_helper.from_array(shift, "shift"),
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([0, 0, 4], np.float32), "bias"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
