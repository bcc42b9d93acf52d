"""Rows leave a file's sheet as they are finished, with the bits that they would have had at its end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer import Bundle, Predictor
from birdinfer.audio.windows import make_grid
from birdinfer.config import AggregationConfig, AudioConfig, FrontEndConfig, MelConfig, WindowConfig
from birdinfer.inference import predictor as file_scores
from birdinfer.inference.aggregation import ScoreAggregator
from birdinfer.inference.ensemble import Blend, make_blend
from birdinfer.inference.member_group import MemberScores
from birdinfer.inference.predictor import FileScores, StreamingPostprocessor, join_chunks
from birdinfer.postprocess.base import Pipeline
from birdinfer.postprocess.calibration import Temperature
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.file_level import FileMax, LowRankPower
from birdinfer.postprocess.smoothing import (
    AdaptiveSmooth,
    FatTail,
    GaussianSmooth,
    LocalMax,
    Smooth,
    TaxonKernels,
    smooth,
)
from birdinfer.species import Species

INPUT = FrontEndConfig(AudioConfig(), WindowConfig(), MelConfig())
KERNEL = (0.2, 0.6, 0.2)
SPECIES = [Species("a", class_name="Aves"), Species("b", class_name="Amphibia"), Species("c", class_name="Insecta")]
N_LABELS = len(SPECIES)


def scores_of(member, first, clip):
    return MemberScores(member=member, first=first, clip=clip, frames=None)


def new_file(n_members=1, kernel=KERNEL):
    aggregation = AggregationConfig()
    grid = make_grid(INPUT, aggregation, WindowConfig())
    return FileScores(
        [ScoreAggregator(grid, aggregation, N_LABELS) for _ in range(n_members)],
        make_blend(Blend(), [*map(str, range(n_members))], [1.0] * n_members, [None] * n_members, [0.5] * N_LABELS),
        postprocessor([Smooth(kernel)]),
    )


def postprocessor(steps):
    return StreamingPostprocessor(Pipeline(steps, SPECIES), "recording", N_LABELS)


def some_scores(n_rows, seed=0):
    return np.random.default_rng(seed).random((n_rows, N_LABELS), np.float32)


near_sighted = st.sampled_from(
    [
        Smooth((1.0,)),
        Smooth((0.1, 0.2, 0.4, 0.2, 0.1)),
        Smooth((0.5, 0.0, 0.5)),
        Smooth((1 / 9,) * 9),
        GaussianSmooth(1.5),
        FatTail(1.0, 6),
        AdaptiveSmooth(0.5),
        LocalMax(0.7, 2),
        TaxonKernels(),
        Temperature(2.0),
    ]
)


@given(cuts=st.lists(st.integers(0, 9), max_size=12), steps=st.lists(near_sighted, max_size=4))
def test_rows_finished_as_they_come_have_the_bits_of_the_file_at_once(cuts, steps):
    rows, pipeline = some_scores(sum(cuts), seed=len(cuts)), Pipeline(steps, SPECIES)
    streaming, begin, chunks = postprocessor(steps), 0, []
    for n_rows in cuts:
        chunks.append(streaming.push(rows[begin : begin + n_rows]))
        begin += n_rows
        assert sum(map(len, chunks)) == max(0, begin - pipeline.context_rows)
    chunks.append(streaming.finish())
    assert np.array_equal(np.concatenate(chunks), pipeline(rows, "recording"))


@given(cuts=st.lists(st.integers(0, 9), max_size=12))
def test_rows_wait_for_the_end_where_a_step_looks_at_the_whole_file(cuts):
    rows, steps, begin = some_scores(sum(cuts)), [Smooth(), FileMax(), LowRankPower(1)], 0
    streaming = postprocessor(steps)
    for n_rows in cuts:
        assert len(streaming.push(rows[begin : begin + n_rows])) == 0
        begin += n_rows
    assert np.array_equal(streaming.finish(), Pipeline(steps, SPECIES)(rows, "recording"))


@given(
    runs=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    chunk_rows=st.integers(1, 20),
    order=st.randoms(use_true_random=False),
)
def test_pieces_are_the_file_whatever_the_runs_and_their_order(runs, chunk_rows, order):
    rows = some_scores(sum(runs))
    firsts = np.cumsum([0, *runs[:-1]]).tolist()
    member_scores = [scores_of(0, first, rows[first : first + n]) for first, n in zip(firsts, runs, strict=True)]
    order.shuffle(member_scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_scores, "CHUNK_ROWS", chunk_rows)
        scores, chunks = new_file(), []
        for each in member_scores:
            scores.add([each])
            chunks += scores.take()
        scores.finish(len(rows))
        chunks += scores.take()
    assert np.array_equal(np.concatenate(chunks), smooth(rows, KERNEL))


def test_a_day_is_handed_over_as_it_goes(monkeypatch):
    monkeypatch.setattr(file_scores, "CHUNK_ROWS", 10)
    scores, rows, most, n_taken = new_file(), some_scores(200), 0, 0
    for first in range(0, 200, 5):
        scores.add([scores_of(0, first, rows[first : first + 5])])
        n_taken += sum(map(len, scores.take()))
        most = max(most, first + 5 - n_taken)
    assert most <= 10 + 5 + 2


def test_rows_wait_for_the_member_that_is_behind():
    scores, rows = new_file(n_members=2, kernel=(1.0,)), some_scores(6)
    scores.add([scores_of(0, 0, rows)])
    scores.add([scores_of(1, 0, rows[:2])])
    assert scores.take() == []
    scores.add([scores_of(1, 2, rows[2:])])
    scores.finish(6)
    (found,) = scores.take()
    np.testing.assert_allclose(found, rows, rtol=1e-6)
    assert scores.take() == []


def test_rows_that_are_not_the_files_are_left_out():
    """Resamplers round: one member may have a last row that another does not."""
    scores, rows = new_file(), some_scores(6)
    scores.add([scores_of(0, 0, rows)])
    scores.finish(5)
    assert np.array_equal(join_chunks(scores.take(), N_LABELS), smooth(rows[:5], KERNEL))


def test_a_file_that_is_cut_ends_with_the_last_row_of_which_all_have_spoken():
    scores, rows = new_file(n_members=2), some_scores(9)
    scores.add([scores_of(0, 0, rows)])
    scores.add([scores_of(1, 0, rows[:4]), scores_of(1, 6, rows[6:])])
    scores.finish_early()
    np.testing.assert_allclose(join_chunks(scores.take(), N_LABELS), smooth(rows[:4], KERNEL), rtol=1e-6)


def test_a_file_that_is_cut_before_anybody_spoke_has_no_rows():
    scores = new_file()
    scores.finish_early()
    assert scores.take() == []


def test_joining_lets_each_piece_go():
    rows = some_scores(9)
    chunks = [rows[:4], rows[4:8], rows[8:]]
    assert np.array_equal(join_chunks(chunks, N_LABELS), rows)
    assert chunks == []
    assert join_chunks([], N_LABELS).shape == (0, N_LABELS)


def test_pieces_change_no_bit_of_a_prediction(bundle, tmp_path, monkeypatch):
    write_sound(tmp_path / "a.wav", tone(120.0), SAMPLE_RATE)
    predictor = Predictor(Bundle.load(bundle))
    whole = predictor.predict(tmp_path / "a.wav")
    monkeypatch.setattr(file_scores, "CHUNK_ROWS", 4)
    assert np.array_equal(predictor.predict(tmp_path / "a.wav"), whole)


def test_a_prediction_is_what_the_members_say_through_the_pipeline(bundle, tmp_path):
    write_sound(tmp_path / "a.wav", tone(30.0), SAMPLE_RATE)
    loaded = Bundle.load(bundle)
    raw = Predictor(loaded, post=PostConfig((1.0,))).predict(tmp_path / "a.wav")
    post = PostConfig((0.25, 0.5, 0.25), (FileMax(0.5),))
    found = Predictor(loaded, post=post).predict(tmp_path / "a.wav")
    smoothed = smooth(raw, (0.25, 0.5, 0.25))
    np.testing.assert_allclose(found, smoothed * smoothed.max(axis=0) ** 0.5, rtol=1e-6)
    assert np.abs(found - raw).max() > 0.01


def test_the_pipeline_learns_the_files_name(monkeypatch):
    names = []
    monkeypatch.setattr(Pipeline, "__call__", lambda self, rows, file_id: names.append(file_id) or rows)
    streaming = StreamingPostprocessor(Pipeline([], SPECIES), "site_20260101_120000", N_LABELS)
    streaming.push(some_scores(2))
    streaming.finish()
    assert set(names) == {"site_20260101_120000"}
