import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.training.optim import SCHEDULES, learning_rate, stale_epochs
from birdinfer.training.recipe.schema import OptimConfig

CONFIG = OptimConfig(lr=1e-3, warmup_epochs=1, final_lr_share=0.01)
SCORES = st.lists(st.none() | st.floats(0, 1), max_size=12)


def named(name, **keys):
    return msgspec.structs.replace(CONFIG, schedule=name, **keys)


def test_every_name_that_a_recipe_may_have_is_a_schedule():
    field = next(field for field in msgspec.structs.fields(OptimConfig) if field.name == "schedule")
    assert set(field.type.__args__) == set(SCHEDULES)


def test_cosine_warms_up_peaks_and_falls():
    rates = [learning_rate(step, 100, 10, CONFIG) for step in range(100)]
    assert rates[0] == pytest.approx(CONFIG.lr / 10)
    assert max(rates) == rates[9] == rates[10] == CONFIG.lr
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(CONFIG.lr * CONFIG.final_lr_share, rel=0.1)


@pytest.mark.parametrize("name", ["cosine", "exponential", "polynomial"])
def test_those_that_fall_end_at_the_final_share(name):
    assert learning_rate(100, 100, 10, named(name)) == pytest.approx(1e-5)
    halfway = learning_rate(55, 100, 10, named(name))
    assert 1e-5 < halfway < 1e-3


def test_polynomial_of_power_one_is_a_line():
    rates = [learning_rate(step, 110, 10, named("polynomial", final_lr_share=0.0)) for step in (10, 35, 60, 110)]
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.0])


def test_exponential_takes_the_same_factor_each_step():
    rates = [learning_rate(step, 110, 10, named("exponential")) for step in range(10, 110)]
    factors = [b / a for a, b in itertools.pairwise(rates)]
    assert factors == pytest.approx([0.01 ** (1 / 100)] * 99)


def test_restarts_go_back_to_the_top():
    rates = [learning_rate(step, 100, 10, named("restarts", restart_epochs=2.0)) for step in range(10, 100)]
    assert rates[0] == rates[20] == rates[40] == 1e-3
    assert rates[19] < 0.02 * 1e-3


def test_plateau_falls_once_for_each_row_of_epochs_without_a_better_score():
    config = named("plateau", warmup_epochs=0, plateau_epochs=2, plateau_factor=0.5)
    scores = [0.5, 0.6, 0.6, 0.55, 0.6, 0.6, 0.7]
    shares = [learning_rate(0, 100, 10, config, scores[:n]) / 1e-3 for n in range(8)]
    assert shares == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]


def test_plateau_never_falls_below_its_floor():
    config = named("plateau", warmup_epochs=0, plateau_epochs=1)
    assert learning_rate(0, 100, 10, config, [0.5] * 50) == pytest.approx(1e-5)


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 60), st.integers(1, 9), st.integers(1, 60), SCORES)
def test_a_rate_is_always_positive_and_at_most_lr(name, step, per_epoch, n_steps, scores):
    rate = learning_rate(step, n_steps, per_epoch, named(name), scores)
    assert 0 < rate <= CONFIG.lr


@given(SCORES)
def test_stale_epochs_are_those_since_the_best(scores):
    known = [score for score in scores if score is not None]
    expected = 0
    for index, score in enumerate(scores):
        before = [one for one in scores[:index] if one is not None]
        expected = 0 if score is None or not before or score > max(before) else expected + 1
    assert stale_epochs(scores) == expected
    assert not known or stale_epochs([*scores, 2.0]) == 0
