from hypothesis import given
from hypothesis import strategies as st

from birdinfer.report.charts import _marks, bars_chart, columns_chart, heat_table, map_chart, ranks_chart

DEGREES = st.floats(-90, 90).map(lambda value: round(value, 2))


def test_charts_write_every_value_as_text_and_no_markup_of_names():
    for chart in (columns_chart("<t>", [("<a>", 1_234.0)]), bars_chart("<t>", [("<a>", 1_234.0)])):
        assert "1,234" in chart
        assert "&lt;a&gt;" in chart
        assert "<a>" not in chart
        assert "<t>" not in chart
    assert ">3<" in heat_table("t", ["species", "fold 0", ""], [("a", [3], "")])


def test_charts_of_nothing_are_no_fault():
    assert columns_chart("t", [])
    assert columns_chart("t", [("a", 0)])
    assert ranks_chart("t", [], "none")
    assert heat_table("t", ["species", "fold 0", ""], [("a", [0], "")])
    assert map_chart("t", []) == ""


@given(st.lists(st.tuples(DEGREES, DEGREES), min_size=1, max_size=5))
def test_map_chart_shows_every_site_within_the_picture(places):
    import re

    chart = map_chart("t", [(f"{north:.2f},{east:.2f}", 1) for north, east in places])
    circles = re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', chart)
    assert len(circles) == len(places)
    assert all(0 <= float(x) <= 720 and 0 <= float(y) <= 360 for x, y in circles)


@given(st.floats(-180, 179), st.floats(0.06, 720))
def test_marks_are_few_and_within(low, span):
    marks = _marks(low, low + span)
    assert len(marks) <= 10
    assert all(low - 0.01 <= mark <= low + span + 0.01 for mark in marks)
