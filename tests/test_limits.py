"""How far from fp32 is too far: the bundle's tolerance, or what the gate has measured and a half more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import FRONTEND

from birdinfer.limits import MARGIN, Limit, gate_figures, hold, limit_of
from birdinfer.manifest import Figures, Graph, Member, Tolerance, Variant

TOLERANCE = Tolerance(0.05, 0.005)


def figures(most, mean):
    return Figures(1.0, 10.0, 2.0, most, mean, 100, 20, macro_auc=0.9, auc_fall=0.001, least_spearman=0.99)


def member(*variants, precisions=("int8",)):
    graphs = {precision: Graph(f"{precision}.onnx", "") for precision in ("fp32", *precisions)}
    return Member("fold0", graphs, frontend=FRONTEND, variants=variants)


def test_without_figures_the_tolerance_is_the_limit():
    limit = limit_of(member(), "int8", TOLERANCE)
    assert limit == Limit(0.05, 0.005, "the bundle's tolerance", "the bundle's tolerance")


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_limit_is_the_wider_of_tolerance_and_gate_for_largest_and_mean_alone(most, mean):
    limit = limit_of(member(Variant("int8 static", "", figures(most, mean))), "int8", TOLERANCE)
    assert limit.max_probability_difference == max(0.05, MARGIN * most)
    assert limit.mean_probability_difference == max(0.005, MARGIN * mean)
    assert ("export" in limit.max_source) == (MARGIN * most > 0.05)
    assert ("export" in limit.mean_source) == (MARGIN * mean > 0.005)


GOOD = Variant("int8 static", "", figures(0.1, 0.01))
NOT_JUDGED = Variant("int8 static", "", Figures(1.0, 10.0, 2.0, 0.1, 0.01, 100, 20))
BAD = Variant("int8 dynamic", "", figures(0.9, 0.4), refused="AUC falls by 0.05, allowed are 0.002")
HALF = Variant("fp16", "", figures(0.06, 0.006))


@pytest.mark.parametrize(
    ("variants", "precisions", "precision", "found"),
    [
        ((BAD, GOOD, HALF), ("int8", "fp16"), "int8", GOOD),
        ((BAD, GOOD, HALF), ("int8", "fp16"), "fp16", HALF),
        ((BAD,), ("int8",), "int8", None),  # a graph from elsewhere, not the one that was refused
        ((NOT_JUDGED,), ("int8",), "int8", None),
        ((NOT_JUDGED, GOOD), ("int8",), "int8", GOOD),
        ((GOOD,), (), "int8", None),  # run in fp32
        ((GOOD,), ("int8",), "bf16", None),
        ((Variant("bf16", "", figures(0.1, 0.01)),), (), "bf16", Variant("bf16", "", figures(0.1, 0.01))),
        ((Variant("", "", figures(0.1, 0.01)),), ("int8",), "int8", None),
    ],
)
def test_the_figures_are_those_of_the_variant_that_was_taken(variants, precisions, precision, found):
    assert gate_figures(member(*variants, precisions=precisions), precision) == (found and found.figures)


def said(**probabilities):
    return {name: np.asarray(values, np.float32) for name, values in probabilities.items()}


USUAL, GATED = Limit(0.05, 0.005), Limit(0.3, 0.1, "1.5 times what its export measured", "the bundle's tolerance")
NOTHING = np.zeros(1_000)


def one(value, n=1_000):
    return np.r_[np.full(1, value), np.zeros(n - 1)]


def test_largest_and_mean_are_of_all_members():
    most, mean, refused = hold(
        said(a=NOTHING, b=NOTHING), said(a=one(0.04), b=one(-0.02)), {"a": USUAL, "b": USUAL, "unheard": GATED}
    )
    assert most == pytest.approx(0.04)
    assert mean == pytest.approx(0.06 / 2_000)
    assert refused == ""


@pytest.mark.parametrize(
    ("a", "b", "complaint"),
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
def test_each_member_is_held_against_its_own_limit(a, b, complaint):
    _, _, refused = hold(said(a=NOTHING, b=NOTHING), said(a=a, b=b), {"a": USUAL, "b": GATED})
    assert refused.startswith(complaint) if complaint else not refused


def test_members_of_one_limit_are_judged_together():
    """As a bundle without figures always was: the mean is over all of them."""
    found = said(a=NOTHING + 0.008, b=NOTHING)
    assert not hold(said(a=NOTHING, b=NOTHING), found, {"a": USUAL, "b": USUAL})[2]
    alone = {"a": USUAL, "b": Limit(0.05, 0.006)}
    assert "0.008 on average" in hold(said(a=NOTHING, b=NOTHING), found, alone)[2]
