"""Which trials Optuna's pruners end early, with the settings that fit short trainings."""

import optuna
import pytest

from birdinfer.errors import ConfigError
from birdinfer.training.recipe.schema import Recipe
from birdinfer.tuning.search import Search
from birdinfer.tuning.space import Range
from birdinfer.tuning.trials import PRUNERS, Steps, build_pruner


@pytest.mark.parametrize(
    ("epochs", "warmup", "step"),
    [
        (1, 0, 1),  # at its only epoch
        (2, 1, 2),  # the second is the first whose rate is whole
        (2, 5, 2),  # never beyond the fold's end
        (20, 1, 3),  # 20 / 9, rounded up
        (20, 3, 4),  # the first epoch after the warm-up
        (90, 3, 10),
    ],
)
def test_the_first_compared_step_suits_short_and_long_recipes(epochs, warmup, step):
    assert Steps(epochs, 2, warmup).first_compared == step


def ends(pruner, curves, steps=Steps(9, 1, 0)):  # noqa: B008
    """At which step each trial, one after another, is ended; None: it is complete."""
    optuna.logging.disable_default_handler()
    study = optuna.create_study(direction="maximize", pruner=build_pruner(pruner, steps), study_name="search")
    found = []
    for curve in curves:
        trial, ended = study.ask(), None
        for step, score in enumerate(curve, start=1):
            trial.report(score, step)
            if step < steps.n and trial.should_prune():
                ended = step
                break
        state = optuna.trial.TrialState.PRUNED if ended else optuna.trial.TrialState.COMPLETE
        study.tell(trial, None if ended else curve[-1], state)
        found.append(ended)
    return found


def flat(score):
    return [score] * 9


def test_halving_lets_the_better_third_continue():
    # Compared at 1, 3, 9. The first has no rival; the second is not in the better third of two, which is one.
    assert ends("halving", [flat(0.5), flat(0.4), flat(0.3), flat(0.6)]) == [None, 1, 1, None]


def test_halving_compares_again_at_a_later_step():
    assert ends("halving", [flat(0.5), [0.7, 0.7, 0.45, *[0.45] * 6]]) == [None, 3]


def test_the_median_compares_once_four_are_complete_and_the_rate_is_whole():
    scores = (0.5, 0.4, 0.6, 0.7, 0.3, 0.8)
    assert ends("median", map(flat, scores)) == [None, None, None, None, 1, None]
    assert ends("median", map(flat, scores), Steps(9, 1, 2.0)) == [None, None, None, None, 3, None]


@pytest.mark.filterwarnings("ignore:HyperbandPruner")
def test_hyperband_ends_some():
    found = ends("hyperband", [flat(0.9 - 0.05 * index) for index in range(12)])
    assert found[0] is None
    assert any(found)


def test_none_ends_no_trial():
    assert ends("none", [flat(0.5), flat(0.1)]) == [None, None]


def test_a_warm_up_that_is_searched_delays_the_first_comparison(tmp_path):
    space = {"optim.warmup_epochs": Range(0, 4, step=0.5)}
    search = Search(recipe=Recipe(), space=space, data=tmp_path, study_dir=tmp_path, folds=(0,))
    assert search.steps == Steps(20, 1, 4)


def test_an_unknown_pruner_is_refused():
    with pytest.raises(ConfigError, match="--pruner: is 'asha', allowed are halving, hyperband, median, none"):
        build_pruner("asha", Steps(9, 1, 0))
    assert len(PRUNERS) == 4
