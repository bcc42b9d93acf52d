import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from birdinfer.plots.search import mark_axis, scale_of


def marked(*texts, drawn=None):
    """Axes that are marked for values, and what is written under them."""
    axes = Figure().subplots()
    mark_axis(axes, scale_of(texts, drawn))
    axes.figure.canvas.draw()
    return axes, [label.get_text() for label in axes.get_xticklabels()]


class TestScaleOf:
    @pytest.mark.parametrize(
        ("texts", "drawn", "layout"),
        [
            (["0.1", "2.0"], None, "linear"),
            (["0.1", "2.1"], None, "log"),
            (["0.1", "0.2"], "log", "log"),
            (["0.001", "0.5"], "linear", "linear"),
            (["0", "0.5"], "log", "linear"),
            (["-1", "100"], None, "linear"),
        ],
    )
    def test_numbers_lie_as_they_were_drawn_or_decade_by_decade_if_far_apart(self, texts, drawn, layout):
        assert scale_of(texts, drawn).layout == layout

    def test_words_booleans_and_lists_have_places_side_by_side(self):
        scale = scale_of(["true", "false", "true", "[3, 6]", ""])
        assert scale.words == ("[3, 6]", "false", "true")
        assert [scale.place(each) for each in ("[3, 6]", "false", "true")] == [0, 1, 2]
        assert math.isnan(scale.place(""))

    @pytest.mark.parametrize("odd", ["auto", "nan", "inf"])
    def test_numbers_among_which_one_is_none_are_words(self, odd):
        assert scale_of(["0.5", odd]).words == tuple(sorted(["0.5", odd]))

    def test_of_nothing_has_no_places(self):
        assert scale_of([""]).n_values == 0

    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
    def test_every_number_has_its_own_place(self, numbers):
        scale = scale_of([repr(each) for each in numbers])
        assert [scale.place(repr(each)) for each in numbers] == numbers
        assert scale.n_values == len(set(numbers))


class TestMarkAxis:
    def test_a_few_whole_numbers_are_all_named(self):
        assert marked("16", "128", "32")[1] == ["16", "32", "128"]
        axes, names = marked("8", "16", "256")
        assert (axes.get_xscale(), names) == ("log", ["8", "16", "256"])

    def test_decades_are_written_as_numbers(self):
        axes, names = marked("0.0001", "0.004", "0.01", drawn="log")
        assert axes.get_xscale() == "log"
        assert {"0.0001", "0.001", "0.01"} <= set(names)

    @pytest.mark.parametrize("texts", [("0.0001", "0.01"), ("0", "0.5"), ("7",), ("0",), ("-3", "5")])
    def test_all_numbers_lie_within(self, texts):
        low, high = marked(*texts)[0].get_xlim()
        assert low < min(map(float, texts)) <= max(map(float, texts)) < high

    def test_words_that_need_much_space_are_turned_and_cut(self):
        names = [f"{letter}{'_backbone' * 4}" for letter in "abcd"]
        axes, written = marked(*names)
        assert written == [f"{letter}_backbone_backbone_b…" for letter in "abcd"]
        assert {label.get_rotation() for label in axes.get_xticklabels()} == {35}
        assert {label.get_rotation() for label in marked("false", "true")[0].get_xticklabels()} == {0}
