"""Pseudo-labels: the scores of a prediction in another form, and nothing by a member that knows the recording."""

from dataclasses import replace

import numpy as np
import pytest
from make_bundles import LABELS, write_bundle

from birdinfer import Bundle, Predictor
from birdinfer.errors import ConfigError, InputNotFoundError, OutputError
from birdinfer.inference.trained_on import RECORD
from birdinfer.prediction.pseudo_label import PseudoLabelSettings, pseudo_label
from birdinfer.prediction.run import PredictionCallback
from birdinfer.tables.pseudo_labels import read_pseudo_labels

NAMES = [f"site_{index}.ogg" for index in range(3)]
ROWS = {"site_0.ogg": 12, "site_1.ogg": 3, "site_2.ogg": 2}


class Lines(PredictionCallback):
    def __init__(self):
        self.lines = []

    def on_message(self, line):
        self.lines.append(line)

    on_warning = on_message


def by_file(folder):
    """filename -> its windows and scores."""
    found = read_pseudo_labels(folder)
    return {
        name: (
            [window[1:] for window in found.windows if window.filename == name],
            np.array([row for window, row in zip(found.windows, found.scores, strict=True) if window.filename == name]),
        )
        for name in dict.fromkeys(window.filename for window in found.windows)
    }


def test_pseudo_label_writes_the_scores_of_a_prediction(bundle, soundscapes, tmp_path):
    loaded = Bundle.load(bundle)
    outcome = pseudo_label(loaded, soundscapes, PseudoLabelSettings(output=tmp_path / "p", power=1.7, keep=0.5))
    teacher, found = read_pseudo_labels(tmp_path / "p").teacher, by_file(tmp_path / "p")
    assert outcome.written.rows == sum(ROWS.values())
    assert list(found) == NAMES
    predictor = Predictor(loaded)
    for name, (windows, scores) in found.items():
        expected = predictor.predict(soundscapes / name)
        np.testing.assert_array_equal(scores, expected.astype(np.float16))  # neither power nor threshold is applied
        assert windows == [(5.0 * row, min(5.0 * (row + 1), 8.0 if "2" in name else 60.0)) for row in range(ROWS[name])]
    assert (teacher.labels, teacher.bundle, teacher.families) == (LABELS, loaded.sha256(), ("linear", "linear"))
    assert (teacher.power, teacher.keep, teacher.members) == (1.7, 0.5, ("fold0", "fold1"))
    assert not (tmp_path / "p.progress").exists()


@pytest.fixture
def with_record(tmp_path):
    """A bundle whose fold 0 holds the first recording out; the second one trained both folds."""
    folder = write_bundle(tmp_path / "b")
    (folder / RECORD).write_text("filename,primary_label,group,fold\nsite_0.ogg,x,,0\nsite_1.ogg,x,,-1\n")
    return Bundle.load(folder)


def test_a_recording_is_scored_out_of_fold_or_left_out(with_record, soundscapes, tmp_path):
    said = Lines()
    pseudo_label(with_record, soundscapes, PseudoLabelSettings(output=tmp_path / "p"), said)
    found = by_file(tmp_path / "p")
    assert list(found) == ["site_0.ogg", "site_2.ogg"]
    alone = Predictor(with_record.with_members({"fold0"}))
    np.testing.assert_array_equal(found["site_0.ogg"][1], alone.predict(soundscapes / "site_0.ogg").astype(np.float16))
    both = Predictor(with_record).predict(soundscapes / "site_2.ogg")
    np.testing.assert_array_equal(found["site_2.ogg"][1], both.astype(np.float16))
    assert read_pseudo_labels(tmp_path / "p").teacher.held_out == {"site_0.ogg": (0,)}
    assert any("site_1.ogg" in line and "left out" in line for line in said.lines)
    assert any("1 recordings are scored out of fold" in line for line in said.lines)


def test_recordings_that_all_members_know_are_refused(with_record, soundscapes, tmp_path):
    (with_record.folder / RECORD).write_text("filename,fold\n" + "".join(f"{name},-1\n" for name in NAMES))
    with pytest.raises(InputNotFoundError, match="no recording that may"):
        pseudo_label(with_record, soundscapes, PseudoLabelSettings(output=tmp_path / "p"))
    assert not (tmp_path / "p").exists()


def test_held_out_recordings_get_no_pseudo_labels(bundle, soundscapes, tmp_path):
    settings = PseudoLabelSettings(output=tmp_path / "p", leave_out=frozenset({"site_0", "site_1"}))
    pseudo_label(Bundle.load(bundle), soundscapes, settings)
    assert list(by_file(tmp_path / "p")) == ["site_2.ogg"]


def test_a_stopped_run_continues_with_the_same_result(bundle, soundscapes, tmp_path):
    whole, stopped = (PseudoLabelSettings(output=tmp_path / name, workers=1) for name in ("whole", "stopped"))
    pseudo_label(Bundle.load(bundle), soundscapes, whole)

    class Stop(PredictionCallback):
        def on_file(self, result):
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        pseudo_label(Bundle.load(bundle), soundscapes, stopped, Stop())
    with pytest.raises(OutputError, match="--resume"):
        pseudo_label(Bundle.load(bundle), soundscapes, stopped)
    said = Lines()
    pseudo_label(Bundle.load(bundle), soundscapes, replace(stopped, resume=True), said)
    assert any("done already" in line for line in said.lines)
    for name in ("index.csv", "scores.npy"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(("option", "values"), [("--power", {"power": 0.0}), ("--keep", {"keep": 1.5})])
def test_a_setting_out_of_range_is_refused(bundle, soundscapes, tmp_path, option, values):
    with pytest.raises(ConfigError, match=option):
        pseudo_label(Bundle.load(bundle), soundscapes, PseudoLabelSettings(output=tmp_path / "p", **values))


def test_another_folder_is_never_replaced(bundle, soundscapes, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match="other things"):
        pseudo_label(Bundle.load(bundle), soundscapes, PseudoLabelSettings(output=tmp_path))
    with pytest.raises(OutputError):
        pseudo_label(Bundle.load(bundle), soundscapes, PseudoLabelSettings(output=soundscapes))
