"""Rows leave a file's sheet as they are finished, with the bits that they would have had at its end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import SAMPLE_RATE, tone, write_sound

from birdinfer import Bundle, Predictor, file_scores
from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, TimelineConfig, WindowConfig
from birdinfer.ensemble import WeightedMean
from birdinfer.file_scores import FileScores, Smoother, join_pieces
from birdinfer.listener import Opinion
from birdinfer.postprocess.smoothing import smooth
from birdinfer.timeline import Timeline
from birdinfer.windows import place

HEARING = FrontEndConfig(AudioConfig(), WindowConfig(), MelConfig())
KERNEL = (0.2, 0.6, 0.2)
N_LABELS = 3


def sheet(n_members=1, kernel=KERNEL):
    timeline = TimelineConfig()
    placement = place(HEARING, timeline, WindowConfig())
    return FileScores(
        [Timeline(placement, timeline, N_LABELS) for _ in range(n_members)],
        WeightedMean([1.0] * n_members, [None] * n_members, [0.5] * N_LABELS),
        kernel,
        N_LABELS,
    )


def some_scores(n_rows, seed=0):
    return np.random.default_rng(seed).random((n_rows, N_LABELS), np.float32)


@given(
    cuts=st.lists(st.integers(0, 9), max_size=12),
    kernel=st.sampled_from([(1.0,), KERNEL, (0.1, 0.2, 0.4, 0.2, 0.1), (0.5, 0.0, 0.5), (1 / 9,) * 9]),
)
def test_smoothing_as_rows_come_gives_the_bits_of_smoothing_the_file(cuts, kernel):
    rows = some_scores(sum(cuts), seed=len(cuts))
    smoother, begin, pieces = Smoother(kernel, N_LABELS), 0, []
    for n_rows in cuts:
        pieces.append(smoother.push(rows[begin : begin + n_rows]))
        begin += n_rows
        assert sum(map(len, pieces)) == max(0, begin - len(kernel) // 2)
    pieces.append(smoother.close())
    assert np.array_equal(np.concatenate(pieces), smooth(rows, kernel))


@given(
    runs=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    piece_rows=st.integers(1, 20),
    order=st.randoms(use_true_random=False),
)
def test_pieces_are_the_file_whatever_the_runs_and_their_order(runs, piece_rows, order):
    rows = some_scores(sum(runs))
    firsts = np.cumsum([0, *runs[:-1]]).tolist()
    opinions = [Opinion(0, first, rows[first : first + n], None) for first, n in zip(firsts, runs, strict=True)]
    order.shuffle(opinions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_scores, "PIECE_ROWS", piece_rows)
        scores, pieces = sheet(), []
        for opinion in opinions:
            scores.add([opinion])
            pieces += scores.take()
        scores.close(len(rows))
        pieces += scores.take()
    assert np.array_equal(np.concatenate(pieces), smooth(rows, KERNEL))


def test_a_day_is_handed_over_as_it_goes(monkeypatch):
    monkeypatch.setattr(file_scores, "PIECE_ROWS", 10)
    scores, rows, most, n_taken = sheet(), some_scores(200), 0, 0
    for first in range(0, 200, 5):
        scores.add([Opinion(0, first, rows[first : first + 5], None)])
        n_taken += sum(map(len, scores.take()))
        most = max(most, first + 5 - n_taken)
    assert most <= 10 + 5 + 2


def test_rows_wait_for_the_member_that_is_behind():
    scores, rows = sheet(n_members=2, kernel=(1.0,)), some_scores(6)
    scores.add([Opinion(0, 0, rows, None)])
    scores.add([Opinion(1, 0, rows[:2], None)])
    assert scores.take() == []
    scores.add([Opinion(1, 2, rows[2:], None)])
    scores.close(6)
    (found,) = scores.take()
    np.testing.assert_allclose(found, rows, rtol=1e-6)
    assert scores.take() == []


def test_rows_that_are_not_the_files_are_left_out():
    """Resamplers round: one member may hear a last row that another does not."""
    scores, rows = sheet(), some_scores(6)
    scores.add([Opinion(0, 0, rows, None)])
    scores.close(5)
    assert np.array_equal(join_pieces(scores.take(), N_LABELS), smooth(rows[:5], KERNEL))


def test_joining_lets_each_piece_go():
    rows = some_scores(9)
    pieces = [rows[:4], rows[4:8], rows[8:]]
    assert np.array_equal(join_pieces(pieces, N_LABELS), rows)
    assert pieces == []
    assert join_pieces([], N_LABELS).shape == (0, N_LABELS)


def test_pieces_change_no_bit_of_a_prediction(bundle, tmp_path, monkeypatch):
    write_sound(tmp_path / "a.wav", tone(120.0), SAMPLE_RATE)
    predictor = Predictor(Bundle.load(bundle))
    whole = predictor.predict(tmp_path / "a.wav")
    monkeypatch.setattr(file_scores, "PIECE_ROWS", 4)
    assert np.array_equal(predictor.predict(tmp_path / "a.wav"), whole)
