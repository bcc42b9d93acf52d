"""Which activations a network can least afford in 8 bits."""

from dataclasses import replace

import numpy as np
import pytest

from birdinfer.export.int8 import search as sensitivity
from birdinfer.export.int8.quantize import Int8Settings, chosen_ranges, int8_model
from birdinfer.export.int8.search import logit_error, logits_together, sensitivities


@pytest.fixture(scope="module")
def found(awkward_calibrated, awkward_windows):
    return sensitivities(awkward_calibrated, awkward_windows[24:], Int8Settings())


def test_every_activation_is_tried_once_and_moves_the_logits(awkward_calibrated, found):
    names = chosen_ranges(awkward_calibrated.model().graph, awkward_calibrated.observed, "window_error")
    assert sorted(one.name for one in found) == sorted(names)
    assert all(0 < one.error < 0.2 for one in found)
    assert all(0 < one.work < 0.9 for one in found)


def test_the_most_harm_for_the_least_work_comes_first(found):
    worth = [one.error / (one.work + 0.01) for one in found]
    assert worth == sorted(worth, reverse=True)


def test_a_spoilt_range_is_found_and_moves_its_activation_ahead(awkward_calibrated, awkward_windows):
    observed = awkward_calibrated.observed
    name = sorted(observed.seen)[3]
    seen = observed.seen[name]
    spoilt = observed._replace(seen={**observed.seen, name: replace(seen, highs=100 * seen.highs)})
    callback, windows = [], awkward_windows[24:]
    plain = sensitivities(awkward_calibrated, windows, Int8Settings("minmax"))
    ranked = sensitivities(
        replace(awkward_calibrated, observed=spoilt), windows, Int8Settings("minmax"), lambda *now: callback.append(now)
    )
    errors, before = ({one.name: one.error for one in found} for found in (ranked, plain))
    assert errors[name] > 5 * before[name]
    assert {other: error for other, error in errors.items() if other != name} == {
        other: error for other, error in before.items() if other != name
    }
    places = [[one.name for one in found].index(name) for found in (ranked, plain)]
    assert places[0] < places[1]
    assert callback == [(done, len(ranked)) for done in range(1, len(ranked) + 1)]


def test_errors_of_single_activations_predict_the_error_of_all(awkward_calibrated, awkward_windows, found):
    wanted = logits_together(awkward_calibrated.model(), awkward_windows[24:])
    whole = logit_error(wanted, logits_together(int8_model(awkward_calibrated), awkward_windows[24:]))
    # Independent errors add up as squares.
    assert 0.3 * whole < np.sqrt(sum(one.error**2 for one in found)) < 3 * whole


def test_logit_error_is_in_interquartile_ranges_and_blind_to_one_odd_window():
    wanted = np.random.default_rng(0).normal(0, 5, (100, 3)).astype(np.float32)
    spread = np.subtract(*np.percentile(wanted, [75, 25], axis=0))
    moved = (wanted + 0.1 * spread).astype(np.float32)
    assert logit_error(wanted, moved) == pytest.approx(0.1, rel=1e-3)
    assert logit_error(wanted, wanted) == 0
    moved[17] += 1000
    assert logit_error(wanted, moved) == pytest.approx(0.1, rel=1e-3)


def test_logits_do_not_depend_on_how_windows_are_put_together(awkward_calibrated, awkward_windows):
    model = awkward_calibrated.model()
    together = logits_together(model, awkward_windows[:19])
    assert together.shape == (19, 12)
    alone = np.concatenate([logits_together(model, window[None]) for window in awkward_windows[:19]])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_many_activations_are_tried_with_their_neighbours_and_the_worst_one_by_one(
    awkward_calibrated, awkward_windows, found, monkeypatch
):
    monkeypatch.setattr(sensitivity, "_N_GROUPS", 5)
    monkeypatch.setattr(sensitivity, "_N_OPENED", 1)
    callback = []
    grouped = sensitivities(awkward_calibrated, awkward_windows[24:], Int8Settings(), lambda *now: callback.append(now))
    alone, errors = ({one.name: one.error for one in ranked} for ranked in (found, grouped))
    assert errors.keys() == alone.keys()
    exact = [name for name in errors if errors[name] == alone[name]]
    assert 0 < len(exact) < len(errors) / 2
    assert [done for done, _ in callback] == list(range(1, len(callback) + 1))
    assert len(callback) < len(errors)
