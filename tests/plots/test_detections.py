from datetime import datetime, timedelta

import numpy as np
import pytest
from made_survey import recording, survey

from birdinfer.detections.summary import SummarySettings, summarise

pictures = pytest.importorskip("birdinfer.plots.detections")

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FIRST = datetime(2025, 5, 1, 5)


def summary_of(n_days=3, sites=("A", "$B_"), species=("owl", "wren"), **settings):
    """A survey of an hour a day at each site; a species is there for a minute times its number, on the first days."""
    return summarise(
        survey(
            *(
                (
                    recording(FIRST + timedelta(days=day), 3600, site),
                    [(label, 0, 60 * number) for number, label in enumerate(species, 1) if day < number],
                )
                for site in sites
                for day in range(n_days)
            )
        ),
        SummarySettings(**settings),
    )


def cells(axes):
    return np.ma.filled(axes.images[0].get_array(), np.nan)


def test_pictures_are_written(tmp_path):
    written = pictures.draw_summary(tmp_path / "summary", summary_of())
    assert [path.name for path in written] == ["activity_by_hour.png", "accumulation.png", "survey.png"]
    assert all(path.read_bytes().startswith(SIGNATURE) for path in written)


def test_what_is_not_known_is_not_drawn(tmp_path):
    undated = summarise(survey((recording(None), [("owl", 0, 5)])))
    assert pictures.draw_summary(tmp_path / "summary", undated) == []
    (only,) = pictures.draw_summary(tmp_path, summary_of(1, ("A",), ()))
    assert only.name == "survey.png"


def test_activity_is_minutes_in_an_hour_of_effort():
    hours, axes, _ = pictures.activity_figure(summary_of()).axes
    np.testing.assert_allclose([bar.get_height() for bar in hours.patches], np.eye(24)[5] * 6)
    # The owl: a minute on one of three days. The wren: two on two.
    assert [label.get_text() for label in axes.get_yticklabels()] == ["common wren", "common owl"]
    assert [text.get_text() for text in axes.texts] == ["1.3", "0.33"]
    np.testing.assert_array_equal(cells(axes)[:, 5], 1)
    assert np.isnan(np.delete(cells(axes), 5, axis=1)).all()
    assert axes.get_xlabel().endswith("(grey: no effort)")


def test_activity_shows_the_most_frequent_species_alone():
    figure = pictures.activity_figure(summary_of(40, ("A",), [f"s{number:02d}" for number in range(40)]))
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert (len(labels), labels[0], labels[-1]) == (30, "common s39", "common s10")


def test_accumulation_names_species_days_and_sites():
    (axes,) = pictures.accumulation_figure(summary_of()).axes
    assert axes.get_title(loc="left") == "2 species in 6 survey days of 2 sites"
    (line,) = axes.get_lines()
    assert line.get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert line.get_ydata()[-1] == 2


def test_a_survey_shows_species_and_gaps():
    found = survey(
        (recording(FIRST, 3600, "A"), [("owl", 0, 5), ("wren", 0, 5)]),
        (recording(FIRST + timedelta(days=9), 3600, "B"), []),
        (recording(FIRST + timedelta(days=9), 1, "A"), [("owl", 0, 1)]),
    )
    axes, _ = pictures.survey_figure(summarise(found)).axes
    np.testing.assert_array_equal(cells(axes), [[2, np.nan], [np.nan, 0]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2025-05-01", "2025-05-10"]
