"""The limit of differences from fp32: the bundle's tolerance, or what the export measured and half more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import FRONTEND

from birdinfer.inference.manifest import Figures, Graph, Member, Tolerance, Variant
from birdinfer.inference.precision_limits import MARGIN, Limit, acceptance_figures, compare_with_fp32, limit_of

TOLERANCE = Tolerance(0.05, 0.005)


def figures(most, mean):
    return Figures(1.0, 10.0, 2.0, most, mean, 100, 20, macro_auc=0.9, auc_fall=0.001, least_spearman=0.99)


def member(*variants, precisions=("int8",)):
    graphs = {precision: Graph(f"{precision}.onnx", "") for precision in ("fp32", *precisions)}
    return Member("fold0", graphs, frontend=FRONTEND, variants=variants)


def test_limit_without_figures_is_the_tolerance():
    limit = limit_of(member(), "int8", TOLERANCE)
    assert limit == Limit(0.05, 0.005, "the bundle's tolerance", "the bundle's tolerance")


@given(st.floats(0, 1), st.floats(0, 1))
def test_limit_is_the_wider_of_tolerance_and_export_for_largest_and_mean(most, mean):
    limit = limit_of(member(Variant("int8 static", "", figures(most, mean))), "int8", TOLERANCE)
    assert limit.max_probability_difference == max(0.05, MARGIN * most)
    assert limit.mean_probability_difference == max(0.005, MARGIN * mean)
    assert ("export" in limit.max_source) == (MARGIN * most > 0.05)
    assert ("export" in limit.mean_source) == (MARGIN * mean > 0.005)


GOOD = Variant("int8 static", "", figures(0.1, 0.01))
NOT_TESTED = Variant("int8 static", "", Figures(1.0, 10.0, 2.0, 0.1, 0.01, 100, 20))
BAD = Variant("int8 dynamic", "", figures(0.9, 0.4), refused="AUC falls by 0.05, allowed are 0.002")
HALF = Variant("fp16", "", figures(0.06, 0.006))


@pytest.mark.parametrize(
    ("variants", "precisions", "precision", "expected"),
    [
        ((BAD, GOOD, HALF), ("int8", "fp16"), "int8", GOOD),
        ((BAD, GOOD, HALF), ("int8", "fp16"), "fp16", HALF),
        ((BAD,), ("int8",), "int8", None),  # a graph from elsewhere, not the one that was refused
        ((NOT_TESTED,), ("int8",), "int8", None),
        ((NOT_TESTED, GOOD), ("int8",), "int8", GOOD),
        ((GOOD,), (), "int8", None),  # run in fp32
        ((GOOD,), ("int8",), "bf16", None),
        ((Variant("bf16", "", figures(0.1, 0.01)),), (), "bf16", Variant("bf16", "", figures(0.1, 0.01))),
        ((Variant("", "", figures(0.1, 0.01)),), ("int8",), "int8", None),
    ],
)
def test_acceptance_figures_are_those_of_the_accepted_variant(variants, precisions, precision, expected):
    assert acceptance_figures(member(*variants, precisions=precisions), precision) == (expected and expected.figures)


def scores(**probabilities):
    return {name: np.asarray(values, np.float32) for name, values in probabilities.items()}


USUAL, ACCEPTED = Limit(0.05, 0.005), Limit(0.3, 0.1, "1.5 times what its export measured", "the bundle's tolerance")
NOTHING = np.zeros(1_000)


def one(value, n=1_000):
    return np.r_[np.full(1, value), np.zeros(n - 1)]


def test_compare_with_fp32_covers_all_members():
    most, mean, refused = compare_with_fp32(
        scores(a=NOTHING, b=NOTHING), scores(a=one(0.04), b=one(-0.02)), {"a": USUAL, "b": USUAL, "another": ACCEPTED}
    )
    assert most == pytest.approx(0.04)
    assert mean == pytest.approx(0.06 / 2_000)
    assert refused == ""


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (one(0.2), NOTHING, "0.2 is more than 0.05 (the bundle's tolerance)"),
        (NOTHING, one(0.2), ""),
        (NOTHING, one(0.4), "0.4 is more than 0.3 (1.5 times what its export measured)"),
        (NOTHING + 0.01, NOTHING, "0.01 on average is more than 0.005 (the bundle's tolerance)"),
        (NOTHING, NOTHING + 0.01, ""),
        (NOTHING, one(np.nan), "nan is more than 0.3"),
        (one(np.nan), NOTHING, "nan is more than 0.05"),
    ],
)
def test_compare_with_fp32_uses_each_members_limit(a, b, reason):
    _, _, refused = compare_with_fp32(scores(a=NOTHING, b=NOTHING), scores(a=a, b=b), {"a": USUAL, "b": ACCEPTED})
    assert refused.startswith(reason) if reason else not refused


def test_compare_with_fp32_takes_members_of_one_limit_together():
    """The mean is over all of them, as for a bundle without figures."""
    candidate = scores(a=NOTHING + 0.008, b=NOTHING)
    assert not compare_with_fp32(scores(a=NOTHING, b=NOTHING), candidate, {"a": USUAL, "b": USUAL})[2]
    alone = {"a": USUAL, "b": Limit(0.05, 0.006)}
    assert "0.008 on average" in compare_with_fp32(scores(a=NOTHING, b=NOTHING), candidate, alone)[2]
