"""Activations as OpenVINO gets them."""

from collections import Counter

import numpy as np
import pytest

from birdinfer.inference.engines.openvino_graph import silus_as_quotients

openvino = pytest.importorskip("openvino")


def model_of(shape):
    """``x sigmoid(x)``, its two operators apart, as the exporter writes it; beside it a gate of another value."""
    from openvino import opset13

    value = opset13.parameter(shape, np.float32)
    other = opset13.parameter(shape, np.float32)
    silu = opset13.multiply(value, opset13.sigmoid(value))
    gated = opset13.multiply(value, opset13.sigmoid(other))
    return openvino.Model([opset13.result(silu), opset13.result(gated)], [value, other], "model")


def count(model):
    return Counter(node.get_type_name() for node in model.get_ordered_ops())


def test_a_silu_of_whole_activations_becomes_a_quotient_near_to_it():
    model = model_of([1, 2, 64, 64])
    silus_as_quotients(model)
    assert (count(model)["Sigmoid"], count(model)["Divide"]) == (1, 1)  # the gate of another value stays
    value = np.linspace(-60, 60, 2 * 64 * 64, dtype=np.float32).reshape(1, 2, 64, 64)
    run = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = run([value, np.zeros_like(value)])[0]
    wanted = value / (1 + np.exp(-value.astype(np.float64)))
    assert np.abs(found - wanted).max() < 2e-4
    assert np.allclose(found[value > 11], wanted[value > 11], rtol=2e-5, atol=0)


@pytest.mark.parametrize("shape", [[1, 8], [-1, 8, 1, 1]])
def test_a_silu_of_one_number_a_channel_stays(shape):
    model = model_of(shape)
    silus_as_quotients(model)
    assert (count(model)["Sigmoid"], count(model)["Divide"]) == (2, 0)
