"""Cross-validation of heads: splits by group, figures that can be low, strengths chosen without the evaluated fold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_embeddings import species_points
from made_labels import labelled_of

from birdinfer.errors import MetadataError
from birdinfer.heads.fitting import window_weights
from birdinfer.heads.run import HeadSettings, WindowLearner
from birdinfer.heads.validation import assign_folds, auc_gain, cross_validate, split_groups

SETTINGS = HeadSettings(embeddings=None, labels=None, output=None)


class Learner(WindowLearner):
    """A linear head with strengths of its own."""

    def __init__(self, values, labelled, strengths):
        super().__init__("linear", values, labelled, SETTINGS)
        self._own = strengths

    @property
    def strengths(self):
        return self._own


def validate(values, labelled, strengths=(0.01,), n_folds=4):
    folds = assign_folds(labelled, n_folds, 0)
    return cross_validate(Learner(values, labelled, strengths), labelled, folds, 0)


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.integers(2, 5), st.integers(0, 9))
def test_split_keeps_groups_together_and_spreads_species(groups, n_folds, seed):
    groups = np.unique(groups, return_inverse=True)[1]
    truth = np.eye(2, dtype=np.float32)[np.arange(len(groups)) % 2]
    folds = split_groups(truth, groups, n_folds, seed)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    assert set(folds) <= set(range(n_folds))
    if len(set(groups)) == len(groups):
        for species in truth.T:
            in_fold = [int(species[folds == fold].sum()) for fold in range(n_folds)]
            assert max(in_fold) - min(in_fold) <= 1


def test_window_weights_count_clips_alike():
    clips = np.array([0, 1, 1, 1, 2, 2])
    weights = window_weights(clips)
    assert np.allclose([weights[clips == clip].sum() for clip in range(3)], 2.0)


def test_cross_validation_scores_what_can_be_known_high():
    values, species, clips = species_points(4, 8)
    found = validate(values, labelled_of(species, clips, 4))
    assert found.macro_auc.value > 0.99
    assert found.top1.value > 0.9
    assert found.macro_auc.interval[0] <= found.macro_auc.value <= found.macro_auc.interval[1] + 1e-9
    assert found.unscored == ()


def test_cross_validation_scores_chance_as_chance():
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (80, 8)).astype(np.float32)
    clips = np.arange(80)
    found = validate(values, labelled_of(clips % 4, clips, 4))
    assert 0.3 < found.macro_auc.value < 0.7
    assert found.top1.value < 0.5


def test_cross_validation_sees_no_clip_of_a_group_that_it_was_fitted_to():
    """Species that are known by their recorder alone: clips of one group on both sides would score 1."""
    rng = np.random.default_rng(2)
    clips = np.arange(64)
    groups = clips // 8
    recorder = rng.normal(0, 3, (8, 16))
    values = (recorder[groups] + rng.normal(0, 0.1, (64, 16))).astype(np.float32)
    made = labelled_of(groups % 2, clips, 2, groups=groups)
    grouped = validate(values, made)
    alone = validate(values, labelled_of(groups % 2, clips, 2))
    assert alone.top1.value > 0.95
    assert grouped.top1.value < 0.9


def test_cross_validation_takes_the_tables_folds_and_names_what_it_cannot_score():
    values, species, clips = species_points(3, 4)
    folds = np.arange(12) % 2
    folds[np.arange(12) % 3 == 2] = 0  # one species stands in one fold alone
    found = validate(values, labelled_of(species, clips, 3, folds=folds), n_folds=9)
    assert (found.n_folds, found.unscored) == (2, ("s2",))


def test_cross_validation_takes_the_strength_that_scores_best():
    values, species, clips = species_points(6, 6, noise=1.5, width=64)
    made = labelled_of(species, clips, 6)
    each = {one: validate(values, made, (one,), 3).macro_auc.value for one in (100.0, 1e-3)}
    assert validate(values, made, (100.0, 1e-3), 3).strength == max(each, key=each.get)


class Cheat:
    """Two strengths: one that sees the truth of fold 0, one that sees that of all others."""

    strengths = (1.0, 2.0)

    def __init__(self, labelled, folds):
        self._truth, self._is_first = labelled.truth, (folds[labelled.clips] == 0)[:, None]

    def fit(self, windows):
        rng = np.random.default_rng(0)
        chance = rng.random(self._truth.shape, np.float32)
        first = np.where(self._is_first, self._truth, chance)
        others = np.where(self._is_first, chance, self._truth)
        return [lambda asked: first[asked], lambda asked: others[asked]]


def test_cross_validation_chooses_the_strength_of_a_fold_by_the_others():
    """In fold 0 the strength that is best there is not taken, in the others it is."""
    _, species, clips = species_points(3, 20, 1)
    made = labelled_of(species, clips, 3, folds=np.arange(60) // 3 % 4)
    found = cross_validate(Cheat(made, made.folds), made, made.folds, 0)
    right = found.probabilities.argmax(axis=1) == species
    assert right[made.folds != 0].all()
    assert right[made.folds == 0].mean() < 0.8


def test_a_figure_without_an_error_is_no_certainty():
    values, species, clips = species_points(3, 5, noise=0.01)
    found = validate(values, labelled_of(species, clips, 3))
    assert found.macro_auc.value == found.top1.value == 1
    assert found.top1.interval == pytest.approx((0.025 ** (1 / 15), 1))
    assert found.macro_auc.interval == pytest.approx((0.025 ** (1 / 15), 1))


def test_one_clip_of_each_species_is_not_scored():
    values, species, clips = species_points(4, 1)
    found = validate(values, labelled_of(species, clips, 4), (0.3, 0.1))
    assert (found.macro_auc.value, found.top1.value) == (None, None)
    assert found.unscored == ("s0", "s1", "s2", "s3")
    assert found.strength == 0.3


def test_gain_is_that_of_the_same_resamples():
    values, species, clips = species_points(4, 12, noise=2.0)
    made = labelled_of(species, clips, 4)
    good, poor = validate(values, made), validate(values * 0 + np.float32(1), made)
    gain = auc_gain(made, good, poor, 0)
    assert gain.value == good.macro_auc.value - poor.macro_auc.value
    assert gain.interval[0] > 0
    assert auc_gain(made, good, good, 0) == (0.0, (0.0, 0.0))


def test_cross_validation_refuses_one_group():
    values, species, clips = species_points(2, 2)
    with pytest.raises(MetadataError, match="two groups are needed"):
        validate(values, labelled_of(species, clips, 2, groups=np.zeros(4, np.intp)))
