"""Heads over the windows of a file: what the context adds, the same bits, unknown sites, what a file's order means."""

import numpy as np
import pytest
from made_embeddings import embeddings_of, species_points
from made_labels import labelled_of

from birdinfer.errors import MetadataError
from birdinfer.heads import sequence as module
from birdinfer.heads.sequence import OwnLogits, SequenceLearner, Shifted, predict_file
from birdinfer.heads.validation import assign_folds, cross_validate

KINDS = ["gru", "attention"]
N_SPECIES, N_FILES, N_WINDOWS = 3, 12, 6


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(module, "WIDTH", 16)
    monkeypatch.setattr(module, "_LEAST_STEPS", 40)
    monkeypatch.setattr(module, "_RATE", 1e-2)
    monkeypatch.setattr(module, "_EPOCHS", 1)


@pytest.fixture
def files():
    """Files of one species each, whose windows alone show it poorly."""
    values, species, clips = species_points(N_SPECIES, N_FILES // N_SPECIES, N_WINDOWS, noise=2.5)
    names = [f"site{clip % 2}/20250220_{clip:02}0000" for clip in clips]
    labelled = labelled_of(species, np.arange(len(clips)), N_SPECIES, groups=clips, unit="window")
    return embeddings_of(values, *names), labelled, species


def learner(files, kind, own=None):
    return SequenceLearner(kind, files[0], files[1], own, n_windows=4, seed=0)


@pytest.mark.parametrize(("kind", "least"), [("gru", 0.7), ("attention", 0.8)])
def test_a_sequence_head_learns_from_the_windows_around(files, kind, least):
    _, labelled, _ = files
    made = learner(files, kind)
    found = cross_validate(made, labelled, assign_folds(labelled, 3, 0), 0)
    assert found.macro_auc.value > least
    every = np.ones(len(labelled.windows), np.bool_)
    network, inputs = made.network(every), made.files[0].inputs
    other = inputs.copy()
    other[1, :-2] += 1
    assert (predict_file(network, other, 4)[2] != predict_file(network, inputs, 4)[2]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_head_has_the_same_bits_for_the_same_seed(files, kind):
    every = np.ones(len(files[1].windows), np.bool_)
    one, other = (learner(files, kind).fit(every)[0](every) for _ in range(2))
    assert np.array_equal(one, other)


def test_the_encoders_own_logits_are_mixed_in(files):
    """An encoder that knows two of the species well."""
    embeddings, labelled, species = files
    points = np.stack([embeddings.values[species == each].mean(axis=0) for each in range(N_SPECIES)]).astype(np.float32)
    own = OwnLogits(points[:2].T * 2, np.zeros(2, np.float32), np.array([0, 1]))
    every = np.ones(len(labelled.windows), np.bool_)
    network = learner(files, "gru", own).network(every).network
    assert network.has_own.tolist() == [1, 1, 0]
    inputs = learner(files, "gru", own).files[0].inputs
    changed = predict_file(Shifted(network), inputs, 4)
    network.own_offsets += 5
    moved = predict_file(Shifted(network), inputs, 4)
    assert (moved[:, :2] >= changed[:, :2]).all()
    assert (moved[:, :2] > changed[:, :2]).any()
    assert np.array_equal(moved[:, 2], changed[:, 2])


def test_sites_are_those_of_the_names(files):
    made = learner(files, "gru")
    assert made.sites == ("site0", "site1")
    assert made.files[0].inputs.shape == (N_WINDOWS, 18)


def test_reviews_are_refused(files):
    labelled = labelled_of(np.zeros(8, np.intp), np.arange(8), 1, unit="review")
    with pytest.raises(MetadataError, match="reviews do not say"):
        SequenceLearner("gru", files[0], labelled, None, n_windows=6, seed=0)
