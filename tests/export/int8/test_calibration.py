"""What calibration sees of a network's activations."""

import numpy as np
import onnx_ir as ir
import pytest
from awkward_network import graph_logits

from birdinfer.export.int8.calibration import N_SAMPLES, histogram, logits_of, observe
from birdinfer.export.int8.prepare import int8_values, is_int8


def test_all_that_becomes_8_bit_is_seen_in_every_window(awkward_calibrated):
    observed = awkward_calibrated.observed
    graph = awkward_calibrated.model().graph
    assert set(observed.seen) == {str(value.name) for node in graph if is_int8(node) for value in int8_values(node)}
    for seen in observed.seen.values():
        assert seen.lows.shape == seen.highs.shape == (24,)
        assert seen.samples.shape == (24, N_SAMPLES)
        assert (seen.samples >= seen.lows[:, None]).all()
        assert (seen.samples <= seen.highs[:, None]).all()
        assert seen.counts.sum() % 24 == 0
        assert seen.extremes == (seen.lows.min(), seen.highs.max())


def test_extremes_means_and_samples_are_those_of_the_activations(awkward_calibrated, awkward_windows):
    model = awkward_calibrated.model()
    observed = awkward_calibrated.observed
    name = next(iter(observed.channel_means))
    value = next(value for node in model.graph for value in node.outputs if value.name == name)
    model.graph.outputs.clear()
    model.graph.outputs.append(value)
    maps = np.stack([logits_of(model, [window[None]])[0] for window in awkward_windows[:24]])
    seen = observed.seen[name]
    np.testing.assert_allclose(seen.lows, maps.min(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(seen.highs, maps.max(axis=(1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(observed.channel_means[name], maps.mean(axis=(0, 2, 3)), atol=1e-5)
    assert seen.counts.sum() == maps.size
    assert seen.samples.mean() == pytest.approx(maps.mean(), abs=0.1 * float(maps.std()))


def test_windows_are_asked_for_one_by_one_and_progress_ends_at_all(awkward_graph, awkward_calibrated, awkward_windows):
    class Decoded:
        """Windows that are decoded when asked for."""

        asked = 0

        def __len__(self):
            return 5

        def __getitem__(self, index):
            if index >= len(self):
                raise IndexError(index)
            self.asked += 1
            return awkward_windows[index : index + 1]

    reported, windows = [], Decoded()
    observed = observe(awkward_calibrated.model(), windows, lambda done, of: reported.append((done, of)))
    assert reported == [(done, 10) for done in range(1, 11)]
    assert windows.asked == 10
    held = observe(awkward_calibrated.model(), np.split(awkward_windows[:5], 5))
    for name, seen in held.seen.items():
        np.testing.assert_array_equal(observed.seen[name].samples, seen.samples)
        np.testing.assert_array_equal(observed.seen[name].counts, seen.counts)


def test_logits_are_those_of_the_graph(awkward_graph, awkward_windows):
    found = logits_of(ir.load(awkward_graph), np.split(awkward_windows, 40))
    np.testing.assert_allclose(found, graph_logits(awkward_graph, awkward_windows), atol=1e-4)


def test_a_histogram_is_numpys_but_for_values_at_the_bins_edges():
    values = np.random.default_rng(0).normal(0, 3, (4, 5000)).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    wanted = np.histogram(values, 4096, (low, high))[0]
    found = histogram(values, low, high)
    assert found.sum() == values.size
    assert np.abs(np.cumsum(found) - np.cumsum(wanted)).max() <= 5


def test_a_constant_activation_has_a_histogram():
    assert histogram(np.full(10, 3.0, np.float32), 3.0, 3.0).sum() == 10
