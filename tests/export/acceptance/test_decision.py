import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import ConfigError
from birdinfer.export.acceptance.decision import Limits, reasons_to_reject
from birdinfer.inference.manifest import Figures

GOOD = Figures(
    size_mb=5.0,
    windows_per_second=120.0,
    times_fp32=1.7,
    max_probability_difference=0.03,
    mean_probability_difference=0.001,
    n_windows=400,
    n_recordings=80,
    macro_auc=0.95,
    auc_fall=0.001,
    auc_fall_interval=(-0.001, 0.003),
    least_spearman=0.985,
    mean_spearman=0.995,
)


def changed(**figures):
    return msgspec.structs.replace(GOOD, **figures)


def test_what_keeps_every_limit_is_taken():
    assert reasons_to_reject(GOOD, Limits()) == ""


def test_what_equals_its_limits_is_taken():
    assert reasons_to_reject(changed(auc_fall=0.002, least_spearman=0.98, times_fp32=1.1), Limits()) == ""


@pytest.mark.parametrize(("most", "is_taken"), [(0.003, True), (0.0029, False)])
def test_who_bounds_the_interval_bounds_its_upper_end(most, is_taken):
    assert (reasons_to_reject(GOOD, Limits(max_auc_drop_upper=most)) == "") == is_taken


def test_a_gain_is_no_fall():
    assert reasons_to_reject(changed(auc_fall=-0.02), Limits()) == ""


def test_every_limit_that_fails_is_reported_in_one_line():
    bad = changed(auc_fall=0.0131, auc_fall_interval=(0.004, 0.0213), least_spearman=0.941, times_fp32=0.83)
    assert reasons_to_reject(bad, Limits(max_auc_drop_upper=0.01), least_similar="dog") == (
        "macro AUC falls by 0.0131 (95 % interval 0.004 to 0.0213), allowed is 0.002; "
        "macro AUC may fall by 0.0213 (upper end of 95 %), allowed is 0.01; "
        "Spearman 0.941 of 'dog', needed is 0.98; "
        "0.83 times as fast as fp32, needed is 1.1"
    )


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"auc_fall": 0.0021}, "macro AUC falls by 0.0021"),
        ({"least_spearman": 0.97999}, "Spearman 0.97999 of one species"),
        ({"times_fp32": 1.0999}, "1.0999 times as fast as fp32, needed is 1.1"),
    ],
)
def test_one_limit_is_enough(figures, reason):
    found = reasons_to_reject(changed(**figures), Limits())
    assert found.startswith(reason)
    assert ";" not in found


@pytest.mark.parametrize("unknown", [None, math.nan])
class TestUnknownFigures:
    def test_is_no_pass_without_labels(self, unknown):
        found = reasons_to_reject(changed(auc_fall=unknown, auc_fall_interval=None), Limits())
        assert found == "no labelled windows show whether macro AUC falls, allowed is 0.002"

    def test_is_no_pass_without_correlation(self, unknown):
        assert reasons_to_reject(changed(least_spearman=unknown), Limits()).startswith(
            "no windows to correlate its ranks"
        )

    def test_is_no_pass_without_an_interval_that_was_asked_for(self, unknown):
        interval = None if unknown is None else (unknown, unknown)
        found = reasons_to_reject(changed(auc_fall_interval=interval), Limits(max_auc_drop_upper=0.1))
        assert found == "too few recordings to bound how far macro AUC may fall, allowed is 0.1"


def test_a_speed_that_is_no_number_is_no_pass():
    assert reasons_to_reject(changed(times_fp32=math.nan), Limits()).startswith("nan times as fast as fp32")


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_who_allows_more_takes_no_fewer(fall, least):
    figures = changed(auc_fall=fall, least_spearman=least)
    strict, lax = Limits(), Limits(max_auc_drop=0.01, min_spearman=0.9)
    assert not reasons_to_reject(figures, lax) or reasons_to_reject(figures, strict)


@pytest.mark.parametrize("field", ["max_auc_drop", "min_spearman", "min_times_fp32", "max_auc_drop_upper"])
@pytest.mark.parametrize("value", [math.nan, -1.5, 2e3])
def test_limits_that_limit_nothing_are_refused(field, value):
    with pytest.raises(ConfigError, match=rf"{field}: is .*, allowed are"):
        Limits(**{field: value})
