"""Heads over the windows of a file: what a window's score may depend on, and what it may not."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import SAMPLE_RATE, tone, write_bundle, write_sound
from sequence_bundles import N_WINDOWS, SITE, add_sequence_head, neighbours_of

from birdinfer.errors import BundleError, ConfigError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.member_group import MemberScores
from birdinfer.inference.predictor import Predictor, make_plan
from birdinfer.inference.sequence import sequence_input, site_and_hours, spans
from birdinfer.inference.soundscapes import predict_soundscapes
from birdinfer.prediction.fallback_levels import fallback_levels


@given(st.integers(1, 90), st.integers(2, 15))
def test_spans_score_each_window_once_within_its_sequence(n_windows, length):
    found = list(spans(n_windows, length))
    assert [window for span in found for window in range(span.begin, span.end)] == list(range(n_windows))
    assert all(span.start <= span.begin < span.end <= span.start + length for span in found)
    assert all(span.start + length <= n_windows for span in found) or len(found) == 1


@given(st.integers(1, 90), st.integers(2, 15), st.lists(st.integers(1, 9), min_size=1))
def test_spans_are_those_of_the_whole_file_however_its_windows_come(n_windows, length, steps):
    found, known, done = [], 0, 0
    for step in steps:
        known = min(n_windows, known + step)
        found += spans(known, length, is_whole=False, done=done)
        done = found[-1].end if found else 0
    assert [*found, *spans(n_windows, length, done=done)] == list(spans(n_windows, length))


def test_sequence_input_repeats_a_file_that_is_shorter():
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    made = sequence_input(values, np.array([1, 1, 1]), np.array([22, 23, 0]), 0, 5)
    assert made.tolist() == [[0, 1, 1, 22], [2, 3, 1, 23], [4, 5, 1, 0], [0, 1, 1, 22], [2, 3, 1, 23]]


def test_site_and_hours_of_a_name_without_them_are_unknown():
    assert site_and_hours("S9_20250227_233000", ["S1"], [0.0, 1800.0]) == (0, [23, 0])
    assert site_and_hours("song", ["S1"], [0.0]) == (0, [24])


@pytest.fixture
def bundle(tmp_path):
    return Bundle.load(add_sequence_head(write_bundle(tmp_path / "bundle", members=1, kernel=(1.0,))))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequence")
    return Predictor(Bundle.load(add_sequence_head(write_bundle(folder, members=1))))


def scored(predictor, values, cuts, order=None):
    """Scores of a file whose embeddings come in pieces, in this order."""
    sequences = predictor.file_sequences(f"{SITE}_20250227_230000")
    edges = [0, *sorted({cut % len(values) for cut in cuts} - {0}), len(values)]
    pieces = [
        MemberScores(member=0, first=begin, clip=None, frames=None, embeddings=values[begin:end])
        for begin, end in pairwise(edges)
    ]
    np.random.default_rng(order).shuffle(pieces)
    found = [scores for piece in pieces for scores in sequences.add([piece])] + sequences.finish()
    assert [scores.first for scores in found] == np.cumsum([0, *(len(each.clip) for each in found)])[:-1].tolist()
    return np.concatenate([scores.clip for scores in found])


@given(st.integers(1, 40), st.lists(st.integers(0, 60), max_size=6), st.integers(0, 5))
def test_scores_depend_on_no_batch_and_no_order(predictor, n_windows, cuts, order):
    values = np.random.default_rng(n_windows).normal(0, 1, (n_windows, 32)).astype(np.float32)
    assert np.array_equal(scored(predictor, values, cuts, order), scored(predictor, values, []))


def test_a_window_is_scored_with_those_around_it_and_no_others(predictor):
    values = np.random.default_rng(0).normal(0, 1, (60, 32)).astype(np.float32)
    other = values.copy()
    other[30] += 1
    changed = np.flatnonzero(np.abs(scored(predictor, other, []) - scored(predictor, values, [])).max(axis=1))
    assert 30 in changed
    assert len(changed) > 1
    assert max(abs(changed - 30)) < N_WINDOWS


def test_a_bundle_predicts_with_its_head(bundle, tmp_path):
    path = tmp_path / f"{SITE}_20250227_230000.wav"
    write_sound(path, tone(65.0), SAMPLE_RATE)
    predictor = Predictor(bundle, embeddings=True)
    embeddings = predictor.embed(path)["fold0"]
    two = Predictor(bundle, make_plan("onnxruntime", workers=2, batch_size=1))
    (found,) = predict_soundscapes(two, [path])
    assert np.array_equal(found.probabilities, predictor.predict(path))
    assert np.allclose(predictor.predict(path), neighbours_of(embeddings, 1.0, [23] * 13), atol=1e-6)
    elsewhere = tmp_path / "song.wav"
    write_sound(elsewhere, tone(65.0), SAMPLE_RATE)
    assert np.allclose(predictor.predict(elsewhere), neighbours_of(embeddings, 0.0, [24] * 13), atol=1e-6)


def test_a_bundle_scores_some_of_its_species_with_the_same_bits(bundle, tmp_path):
    path = tmp_path / "song.wav"
    write_sound(path, tone(30.0), SAMPLE_RATE)
    some = bundle.with_species(bundle.labels[2:0:-1])
    assert some.labels == bundle.labels[1:3]
    assert np.array_equal(Predictor(some).predict(path), Predictor(bundle).predict(path)[:, 1:3])


def test_a_bundle_refuses_an_altered_or_another_head(bundle):
    path = bundle.folder / "sequence.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(BundleError, match="has changed"):
        Bundle.load(bundle.folder)
    path.write_bytes(content)
    member = bundle.manifest.members[0]
    longer = msgspec.structs.replace(member.sequence, n_windows=N_WINDOWS + 1)
    manifest = msgspec.structs.replace(bundle.manifest, members=(msgspec.structs.replace(member, sequence=longer),))
    with pytest.raises(BundleError, match="the manifest states"):
        Predictor(Bundle(bundle.folder, manifest))


def test_windows_stay_as_the_head_was_fitted_to_them(bundle):
    with pytest.raises(ConfigError, match="fitted to other windows"):
        bundle.with_overlap(2.5)
    assert [level.name for level in fallback_levels(bundle)] == [""]
