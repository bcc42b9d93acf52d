"""QDQ form: weights and biases as they are rounded, and what a rounded convolution moves by."""

import numpy as np
import pytest
import torch

from birdinfer.export.int8.calibration import logits_of
from birdinfer.export.int8.qdq import FORMATS, TARGETS, insert_qdq, mean_shift
from birdinfer.export.int8.quantize import chosen_ranges
from birdinfer.export.onnx.edit import array_of, input_of, nodes_of


def quantised(calibrated, target="vnni", kept=()):
    """The network in QDQ form, its logits not corrected."""
    model = calibrated.model()
    ranges = chosen_ranges(model.graph, calibrated.observed, "window_error")
    insert_qdq(
        model.graph, ranges, calibrated.observed.channel_means, fp32_activations=kept, number_format=FORMATS[target]
    )
    return model


def int8_weights(graph):
    """Whole weights and their steps, of every convolution that has them."""
    found = []
    for node in nodes_of(graph, "Conv"):
        restore = input_of(node, 1).producer()
        if restore is not None:
            found.append((node, array_of(input_of(restore)), array_of(input_of(restore, 1))))
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_weights_are_rounded_to_steps_of_their_own_channel(awkward_calibrated, target):
    largest = FORMATS[target].largest_weight
    fp32 = {node.name: array_of(input_of(node, 1)) for node in nodes_of(awkward_calibrated.model().graph, "Conv")}
    weights = int8_weights(quantised(awkward_calibrated, target).graph)
    assert len(weights) == 7
    for node, whole, steps in weights:
        assert whole.dtype == np.int8
        np.testing.assert_array_equal(np.abs(whole).max(axis=(1, 2, 3)), largest)
        error = whole * steps[:, None, None, None] - fp32[node.name]
        assert (np.abs(error) <= 0.501 * steps[:, None, None, None]).all()


@pytest.mark.parametrize("target", TARGETS)
def test_activations_have_the_type_that_the_target_multiplies(awkward_calibrated, awkward_windows, target):
    model = quantised(awkward_calibrated, target)
    signed = FORMATS[target].is_activation_signed
    kinds = {array_of(input_of(node, 2)).dtype for node in nodes_of(model.graph, "QuantizeLinear")}
    assert kinds == {np.dtype(np.int8 if signed else np.uint8)}
    wanted, found = (logits_of(each, [awkward_windows]) for each in (awkward_calibrated.model(), model))
    assert np.sqrt(np.square(found - wanted).mean()) < 0.06 * wanted.std()


def test_a_bias_has_steps_of_input_times_weight(awkward_calibrated):
    for node, _, weight_steps in int8_weights(quantised(awkward_calibrated).graph):
        read, bias = input_of(node).producer(), input_of(node, 2).producer()
        np.testing.assert_array_equal(
            array_of(input_of(bias, 1)), np.float32(array_of(input_of(read, 1))) * weight_steps
        )
        assert array_of(input_of(bias)).dtype == np.int32


def test_what_reads_or_writes_a_kept_activation_stays_as_it_was(awkward_calibrated):
    fp32 = {node.name: node for node in nodes_of(awkward_calibrated.model().graph, "Conv")}
    every = {node.name for node, _, _ in int8_weights(quantised(awkward_calibrated).graph)}
    node = fp32[next(name for name in sorted(every))]
    kept = str(input_of(node).name)
    model = quantised(awkward_calibrated, kept=(kept,))
    still = {one.name for one, _, _ in int8_weights(model.graph)}
    assert node.name in every - still
    (same,) = (one for one in nodes_of(model.graph, "Conv") if one.name == node.name)
    assert input_of(same).name == kept
    np.testing.assert_array_equal(array_of(input_of(same, 1)), array_of(input_of(node, 1)))


def test_an_edge_pad_works_on_8_bits(awkward_calibrated):
    (pad,) = nodes_of(quantised(awkward_calibrated).graph, "Pad")
    assert input_of(pad).producer().op_type == "QuantizeLinear"
    assert {reader.op_type for reader in pad.outputs[0].consumers()} == {"DequantizeLinear"}


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_mean_shift_is_what_a_convolution_moves_by(groups):
    torch.manual_seed(0)
    values, error = torch.randn(3, 8, 9, 9) + 1, torch.randn(16, 8 // groups, 1, 1)
    moved = torch.nn.functional.conv2d(values, error, groups=groups).mean(dim=(0, 2, 3))
    means = values.mean(dim=(0, 2, 3)).numpy().astype(np.float64)
    np.testing.assert_allclose(mean_shift(error.numpy().astype(np.float64), means), moved.numpy(), atol=1e-5)
