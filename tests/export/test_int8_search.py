"""Which settings are tried, and in which order."""

from itertools import pairwise

import numpy as np
import pytest

from birdinfer.export import int8_search
from birdinfer.export.int8_format import FORMATS
from birdinfer.export.int8_search import search
from birdinfer.export.quantize import METHODS


def run_search(calibrated, windows, told=None):
    def steps(what, done, of):
        if told is not None:
            told.append((what, done, of))

    return search(calibrated, windows, FORMATS["vnni"], steps)


def test_where_ranks_are_kept_nothing_is_left_in_fp32(awkward_calibrated, awkward_windows, monkeypatch):
    monkeypatch.setattr(int8_search, "_LEAST_PROMISE", 0.9)
    told = []
    found = run_search(awkward_calibrated, awkward_windows[24:], told)
    assert set(found.methods) == set(METHODS)
    (only,) = found.attempts
    assert only.settings.kept == ()
    assert only.mean_spearman == max(one.mean_spearman for one in found.methods.values())
    assert told == [("ways to choose ranges", done, 5) for done in range(1, 6)]


def test_activations_are_left_in_fp32_until_ranks_are_kept(awkward_calibrated, awkward_windows, monkeypatch):
    plain = max(run_search(awkward_calibrated, awkward_windows[24:]).methods.values(), key=lambda one: one[2])
    promise = plain.least_spearman + 1e-6
    monkeypatch.setattr(int8_search, "_LEAST_PROMISE", promise)
    monkeypatch.setattr(int8_search, "_MOST_WORK", 1.5)
    found = run_search(awkward_calibrated, awkward_windows[24:]).attempts
    assert 1 <= len(found) <= 3
    assert all(one.least_spearman >= promise for one in found)
    n_kept = [len(one.settings.kept) for one in found]
    assert n_kept == sorted(set(n_kept))
    assert n_kept[0] > 0
    for fewer, more in pairwise(found):
        assert more.settings.kept[: len(fewer.settings.kept)] == fewer.settings.kept


def test_where_nothing_keeps_the_ranks_the_best_are_tried_all_the_same(
    awkward_calibrated, awkward_windows, monkeypatch
):
    monkeypatch.setattr(int8_search, "_LEAST_PROMISE", 2.0)
    attempts = run_search(awkward_calibrated, awkward_windows[24:]).attempts
    assert len(attempts) == 3
    means = [one.mean_spearman for one in attempts]
    assert means == sorted(means)


def test_no_more_work_than_is_worth_it_goes_back_to_fp32(awkward_calibrated, awkward_windows, monkeypatch):
    monkeypatch.setattr(int8_search, "_LEAST_PROMISE", 2.0)
    monkeypatch.setattr(int8_search, "_MOST_WORK", 0.0)
    (plain,) = run_search(awkward_calibrated, awkward_windows[24:]).attempts
    assert plain.settings.kept == ()
    assert plain.mean_spearman == pytest.approx(1.0, abs=0.1)
    assert np.isfinite(plain.least_spearman)
