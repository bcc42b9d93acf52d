"""The linear head: the optimum that it claims, balance, splits by group, and figures that can be low."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_embeddings import species_points
from sklearn.linear_model import LogisticRegression

from birdinfer.errors import MetadataError
from birdinfer.heads.labels import LabelledWindows
from birdinfer.heads.linear import cross_validate, fit_linear, split_groups, window_weights
from birdinfer.species import Species


def labelled_of(species, clips, n_species, groups=None, folds=None):
    truth = np.eye(n_species, dtype=np.float32)[species]
    n_clips = clips.max() + 1
    return LabelledWindows(
        species=tuple(Species(f"s{index}") for index in range(n_species)), windows=np.arange(len(clips)), truth=truth,
        clips=clips, groups=np.arange(n_clips) if groups is None else groups, folds=folds,
    )  # fmt: skip


def test_fit_finds_the_optimum_of_scikit_learn():
    values, species, _ = species_points(2, 30, 1, width=5, noise=2.0)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    truth = (species == 0).astype(np.float32)[:, None]
    head = fit_linear(values, truth, np.ones(len(values), np.float32), 0.1)
    # Its cost is C times the sum over windows; ours sums to one half for each side, 30 windows each.
    reference = LogisticRegression(C=1 / (0.1 * len(values)), tol=1e-9, max_iter=1000).fit(values, truth[:, 0])
    assert np.allclose(head.weights[:, 0], reference.coef_[0], atol=2e-3)
    assert np.allclose(head.offsets, reference.intercept_, atol=2e-3)


def test_fit_with_softmax_finds_the_optimum_of_scikit_learn():
    values, species, _ = species_points(3, 20, 1, width=5, noise=2.0)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    truth = np.eye(3, dtype=np.float32)[species]
    head = fit_linear(values, truth, np.ones(60, np.float32), 0.1, "softmax")
    reference = LogisticRegression(C=1 / (0.1 * 60), tol=1e-9, max_iter=1000).fit(values, species)
    assert np.allclose(head.predict(values), reference.predict_proba(values), atol=2e-3)


def test_fit_does_not_depend_on_scale_and_place_of_the_numbers():
    values, species, _ = species_points(3, 10, 1)
    truth, weights = np.eye(3, dtype=np.float32)[species], np.ones(30, np.float32)
    moved = values * np.linspace(0.1, 9, values.shape[1], dtype=np.float32) + 3
    plain = fit_linear(values, truth, weights, 0.01).predict(values)
    assert np.allclose(fit_linear(moved, truth, weights, 0.01).predict(moved), plain, atol=5e-3)


def test_fit_is_the_same_with_numbers_that_never_change():
    values, species, _ = species_points(3, 10, 1)
    truth, weights = np.eye(3, dtype=np.float32)[species], np.ones(30, np.float32)
    wider = np.concatenate([values, np.full((30, 2), 7.0, np.float32)], axis=1)
    head = fit_linear(wider, truth, weights, 0.01)
    assert not head.weights[-2:].any()
    assert np.allclose(head.predict(wider), fit_linear(values, truth, weights, 0.01).predict(values), atol=1e-3)


def test_fit_does_not_put_a_rare_species_behind_a_common_one():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (220, 4)).astype(np.float32)
    species = np.repeat([0, 1], [200, 20])
    values[species == 1, 0] += 2.5
    values[species == 0, 1] += 2.5
    head = fit_linear(values, np.eye(2, dtype=np.float32)[species], np.ones(220, np.float32), 0.01)
    right = head.predict(values).argmax(axis=1) == species
    assert right[species == 1].mean() > 0.85
    assert right[species == 0].mean() > 0.85


def test_fit_gives_a_species_without_windows_no_probability():
    values, species, _ = species_points(2, 5, 1)
    truth = np.zeros((10, 3), np.float32)
    truth[np.arange(10), species] = 1
    assert fit_linear(values, truth, np.ones(10, np.float32), 0.01).predict(values)[:, 2].max() < 1e-5


def test_fit_leaves_unknown_cells_out():
    values, species, _ = species_points(2, 10, 1)
    truth = np.eye(2, dtype=np.float32)[species]
    unknown = truth.copy()
    unknown[5:, 1] = np.nan
    other = unknown.copy()
    head = fit_linear(values, unknown, np.ones(20, np.float32), 0.01)
    alone = fit_linear(values[:5], truth[:5, 1:], np.ones(5, np.float32), 0.01)
    both = fit_linear(values, other, np.ones(20, np.float32), 0.01)
    assert np.array_equal(head.weights, both.weights)
    assert (np.sign(head.predict(values[:5])[:, 1] - 0.5) == np.sign(alone.predict(values[:5])[:, 0] - 0.5)).all()


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
    found = cross_validate(values, labelled_of(species, clips, 4), n_folds=4, seed=0, penalties=[0.01])
    assert found.macro_auc.value > 0.99
    assert found.top1.value > 0.9
    assert found.macro_auc.interval[0] <= found.macro_auc.value <= found.macro_auc.interval[1] + 1e-9
    assert found.n_scored == 4


def test_cross_validation_scores_chance_as_chance():
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (80, 8)).astype(np.float32)
    clips = np.arange(80)
    found = cross_validate(values, labelled_of(clips % 4, clips, 4), n_folds=4, seed=0, penalties=[0.01])
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
    grouped = cross_validate(values, made, n_folds=4, seed=0, penalties=[0.01])
    alone = cross_validate(values, labelled_of(groups % 2, clips, 2), n_folds=4, seed=0, penalties=[0.01])
    assert alone.top1.value > 0.95
    assert grouped.top1.value < 0.9


def test_cross_validation_takes_the_tables_folds_and_names_what_it_cannot_score():
    values, species, clips = species_points(3, 4)
    folds = np.arange(12) % 2
    folds[np.arange(12) % 3 == 2] = 0  # one species stands in one fold alone
    found = cross_validate(values, labelled_of(species, clips, 3, folds=folds), n_folds=9, seed=0, penalties=[0.01])
    assert (found.n_folds, found.n_scored) == (2, 2)


def test_cross_validation_takes_the_penalty_that_scores_best():
    values, species, clips = species_points(6, 6, noise=1.5, width=64)
    made = labelled_of(species, clips, 6)
    each = [cross_validate(values, made, n_folds=3, seed=0, penalties=[one]).macro_auc.value for one in (1e-4, 10.0)]
    both = cross_validate(values, made, n_folds=3, seed=0, penalties=[1e-4, 10.0])
    assert both.macro_auc.value == max(each)


def test_cross_validation_refuses_one_group():
    values, species, clips = species_points(2, 2)
    with pytest.raises(MetadataError, match="two groups are needed"):
        cross_validate(values, labelled_of(species, clips, 2, groups=np.zeros(4, np.intp)), n_folds=5, seed=0)
