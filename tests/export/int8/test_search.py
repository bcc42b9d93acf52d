"""Which settings are tried, and in which order."""

import pytest

from birdinfer.export.int8 import search as int8_search
from birdinfer.export.int8.qdq import FORMATS
from birdinfer.export.int8.quantize import METHODS
from birdinfer.export.int8.search import Int8Search


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """A few sets of activations, measured for a moment."""
    monkeypatch.setattr(int8_search, "_N_FP32", (1, 2, 4, 8))
    monkeypatch.setattr(int8_search, "_N_LAST_CONVOLUTIONS", (1, 2))
    monkeypatch.setattr(int8_search, "_N_SENSITIVITY_WINDOWS", 4)
    monkeypatch.setattr(int8_search, "_ROUNDS", 1)
    monkeypatch.setattr(int8_search, "_SECONDS", 0.01)


@pytest.fixture
def search(awkward_calibrated, awkward_windows):
    """A search by the rank correlation that it needs, and its progress."""

    def make(needed, reported=None):
        steps = (lambda *step: reported.append(step)) if reported is not None else (lambda *step: None)
        return Int8Search(
            awkward_calibrated,
            awkward_windows[24:],
            number_format=FORMATS["vnni"],
            needed_spearman=needed,
            on_progress=steps,
        )

    return make


def test_where_ranks_are_kept_everything_is_tried_in_int8_first_and_nothing_else_is_looked_for(search):
    reported = []
    found = search(0.9, reported)
    first = next(found.attempts())
    assert set(found.methods) == set(METHODS)
    assert first.settings.fp32_activations == ()
    assert first.mean_spearman == max(one.mean_spearman for one in found.methods.values())
    assert reported == [("ways to choose ranges", done, 5) for done in range(1, 6)]


def test_where_that_is_not_enough_more_and_more_stays_in_fp32(search, monkeypatch):
    monkeypatch.setattr(int8_search, "_MOST_WORK", 2.0)
    monkeypatch.setattr(int8_search, "_MOST_TRIED", 3)
    found = search(0.9)
    plain, runner_up, *others = found.attempts()
    assert runner_up.settings.fp32_activations == ()
    assert runner_up.settings.method != plain.settings.method
    assert plain.mean_spearman >= runner_up.mean_spearman
    assert len(others) == 3
    assert {one.settings for one in (plain, *others)} < set(found.tried)
    assert len(found.tried) > len(METHODS) + 3
    assert all(one.settings.fp32_activations and one.settings.method == plain.settings.method for one in others)
    assert len({one.settings.fp32_activations for one in others}) == len(others)


def test_the_fastest_is_tried_first(search, monkeypatch):
    monkeypatch.setattr(int8_search, "_MOST_WORK", 2.0)
    monkeypatch.setattr(int8_search, "_MOST_TRIED", 100)

    def tried(speeds):
        monkeypatch.setattr(int8_search, "compare_speed", lambda graphs, *_: speeds(range(len(graphs))))
        return [one.settings.fp32_activations for one in search(0.9).attempts()][2:]

    assert tried(list) == tried(lambda order: [-index for index in order])[::-1]


def test_where_nothing_keeps_the_ranks_the_best_is_tried_all_the_same(search):
    found = search(2.0)
    (best,) = found.attempts()
    assert best.mean_spearman >= max(one.mean_spearman for one in found.methods.values())


def test_no_more_work_than_is_worth_it_goes_back_to_fp32(search, monkeypatch):
    monkeypatch.setattr(int8_search, "_MOST_WORK", 0.0)
    assert all(one.settings.fp32_activations == () for one in search(2.0).attempts())


def test_windows_that_are_all_answered_alike_promise_nothing_and_refute_nothing(awkward_calibrated, awkward_windows):
    one = awkward_windows[24:25]
    found = Int8Search(
        awkward_calibrated, one, number_format=FORMATS["vnni"], needed_spearman=0.9, on_progress=lambda *step: None
    )
    first = next(found.attempts())
    assert (first.least_spearman, first.mean_spearman, first.settings.fp32_activations) == (1.0, 1.0, ())


def test_a_tail_is_all_from_one_of_the_last_convolutions_on(search, awkward_calibrated, monkeypatch):
    monkeypatch.setattr(int8_search, "_MOST_WORK", 2.0)
    monkeypatch.setattr(int8_search, "_N_FP32", ())
    monkeypatch.setattr(int8_search, "_N_LAST_CONVOLUTIONS", (1, 2))
    _, _, *others = search(0.9).attempts()
    shorter, longer = sorted((set(one.settings.fp32_activations) for one in others), key=len)
    assert shorter < longer
    assert longer <= set(awkward_calibrated.observed.seen)
