"""Heads for single windows: the optimum that they claim, balance, few clips, the same bits for the same seed."""

import numpy as np
import pytest
from made_embeddings import species_points
from sklearn.linear_model import LogisticRegression

from birdinfer.heads import kinds
from birdinfer.heads.kinds import KINDS, fit_heads


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    monkeypatch.setattr(kinds, "_STEPS", 60)


def fit(kind, values, truth, strength=0.1, activation="sigmoid", weights=None, seed=0):
    weights = np.ones(len(values), np.float32) if weights is None else weights
    (head,) = fit_heads(kind, values, truth, weights, strengths=[strength], activation=activation, seed=seed)
    return head


def unit(values):
    """Standardised, then of one length: what heads take."""
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    return values / np.linalg.norm(values, axis=1, keepdims=True) * np.sqrt(values.shape[1])


def test_linear_finds_the_optimum_of_scikit_learn():
    values, species, _ = species_points(2, 30, 1, width=5, noise=2.0)
    truth = (species == 0).astype(np.float32)[:, None]
    # Its cost is C times the sum over windows; ours sums to one half for each side, 30 windows each.
    reference = LogisticRegression(C=1 / (0.1 * len(values)), tol=1e-9, max_iter=1000).fit(unit(values), truth[:, 0])
    plain = reference.predict_proba(unit(values))[:, 1]
    assert np.allclose(fit("linear", values, truth).predict(values)[:, 0], plain, atol=2e-3)


def test_linear_with_softmax_finds_the_optimum_of_scikit_learn():
    values, species, _ = species_points(3, 20, 1, width=5, noise=2.0)
    head = fit("linear", values, np.eye(3, dtype=np.float32)[species], activation="softmax")
    reference = LogisticRegression(C=1 / (0.1 * 60), tol=1e-9, max_iter=1000).fit(unit(values), species)
    assert np.allclose(head.predict(values), reference.predict_proba(unit(values)), atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_knows_its_species(kind):
    values, species, _ = species_points(4, 12, 1)
    head = fit(kind, values, np.eye(4, dtype=np.float32)[species])
    assert (head.predict(values).argmax(axis=1) == species).mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_has_the_same_bits_for_the_same_seed(kind):
    values, species, _ = species_points(3, 6, 1)
    truth = np.eye(3, dtype=np.float32)[species]
    one, other = (fit(kind, values, truth).predict(values) for _ in range(2))
    assert np.array_equal(one, other)
    assert np.array_equal(fit(kind, values, truth, seed=1).predict(values), one) == (kind != "mlp")


@pytest.mark.parametrize("kind", ["linear", "prototypes"])
def test_a_head_does_not_depend_on_scale_and_place_of_the_numbers(kind):
    values, species, _ = species_points(3, 10, 1)
    truth = np.eye(3, dtype=np.float32)[species]
    moved = values * np.linspace(0.1, 9, values.shape[1], dtype=np.float32) + 3
    plain = fit(kind, values, truth).predict(values)
    assert np.allclose(fit(kind, moved, truth).predict(moved), plain, atol=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_gives_a_species_without_windows_no_probability(kind):
    values, species, _ = species_points(2, 5, 1)
    truth = np.zeros((10, 3), np.float32)
    truth[np.arange(10), species] = 1
    values = np.concatenate([values, np.full((10, 2), 7.0, np.float32)], axis=1)  # and two numbers never change
    found = fit(kind, values, truth).predict(values)
    assert np.isfinite(found).all()
    assert found[:, 2].max() < 1e-5


def test_linear_does_not_put_a_rare_species_behind_a_common_one():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (220, 4)).astype(np.float32)
    species = np.repeat([0, 1], [200, 20])
    values[species == 1, 0] += 2.5
    values[species == 0, 1] += 2.5
    right = fit("linear", values, np.eye(2, dtype=np.float32)[species]).predict(values).argmax(axis=1) == species
    assert right[species == 1].mean() > 0.85
    assert right[species == 0].mean() > 0.85


def test_linear_leaves_unknown_cells_out():
    """Unknown cells of one species: as if its windows were not there."""
    values, species, _ = species_points(2, 10, 1)
    truth = np.eye(2, dtype=np.float32)[species]
    truth[8:, 1] = np.nan
    found = fit("linear", values, truth).predict(values[:8])[:, 1]
    assert ((found > np.median(found)) == (truth[:8, 1] == 1)).all()


def test_prototypes_find_species_of_one_clip_each():
    points, species, _ = species_points(6, 1, 1, width=32)
    others, of, _ = species_points(6, 20, 1, width=32)
    head = fit("prototypes", points, np.eye(6, dtype=np.float32)[species], activation="softmax")
    assert (head.predict(others).argmax(axis=1) == of).mean() > 0.9
