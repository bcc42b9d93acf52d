import pytest

from birdinfer.errors import ConfigError
from birdinfer.training.recipe import Recipe
from birdinfer.training.tuning.pruning import PRUNERS, Hyperband, Steps, build_pruner
from birdinfer.training.tuning.records import TrialRecord
from birdinfer.training.tuning.search import Search
from birdinfer.training.tuning.space import Range


@pytest.mark.parametrize(
    ("epochs", "warmup", "rung"),
    [
        (1, 0, 1),  # at its only epoch
        (2, 1, 2),  # the second is the first whose rate is whole
        (2, 5, 2),  # never beyond the fold's end
        (20, 1, 3),  # 20 / 9, rounded up
        (20, 3, 4),  # the first epoch after the warm-up
        (90, 3, 10),
    ],
)
def test_the_first_rung_suits_short_and_long_recipes(epochs, warmup, rung):
    assert Steps(epochs, 2, warmup).first_rung == rung


def trial(number, curve, state="running", **others):
    """A trial whose steps are 1, 2, ..., or as they are given."""
    steps = curve if isinstance(curve, dict) else dict(enumerate(curve, start=1))
    return TrialRecord(number, state, None, None, "w", "", None, {}, steps)._replace(**others)


def ends(pruner, curves):
    """At which step each trial, one after another, is given up; None: at its end."""
    gives_up, records, found = build_pruner(pruner, Steps(9, 1, 0)), [], []
    for number, curve in enumerate(curves):
        mine = (trial(number, curve[: step + 1]) for step in range(len(curve)))
        ended = next((each for each in mine if gives_up(each, [*records, each])), None)
        records.append(ended._replace(state="pruned") if ended else trial(number, curve, "complete"))
        found.append(max(ended.curve) if ended else None)
    return found


def flat(score):
    return [score] * 9


class TestEnds:
    def test_halving_lets_the_better_third_go_on(self):
        # Rungs at 1, 3, 9. The first has nobody beside it; the second is not in the better third of two, which is
        # one; the fourth is better than all.
        assert ends("halving", [flat(0.5), flat(0.4), flat(0.3), flat(0.6)]) == [None, 1, 1, None]

    def test_who_lags_later_ends_at_a_later_rung(self):
        late = [0.7, 0.7, 0.45, *[0.45] * 6]
        assert ends("halving", [flat(0.5), late]) == [None, 3]

    @pytest.mark.parametrize("pruner", PRUNERS)
    def test_nobody_is_given_up_at_its_last_step_where_nothing_is_saved(self, pruner):
        falls_at_last = [*[0.9 + 0.001 * step for step in range(8)], 0.1]
        assert ends(pruner, [flat(0.5)] * 4 + [falls_at_last])[-1] is None

    def test_the_median_judges_when_it_knows_four(self):
        assert ends("median", [flat(0.5), flat(0.4), flat(0.6), flat(0.7), flat(0.3), flat(0.8)]) == [
            None, None, None, None, 1, None,
        ]  # fmt: skip

    def test_hyperband_gives_up_too(self):
        found = ends("hyperband", [flat(0.9 - 0.05 * index) for index in range(12)])
        assert found[0] is None
        assert any(found)

    def test_none_never_does(self):
        assert ends("none", [flat(0.5), flat(0.1)]) == [None, None]


class TestLikeWithLike:
    """Two folds of 9 epochs: rungs at 1, 3, 9, and the second fold begins with step 10."""

    def gives_up(self, mine, *others, pruner="halving"):
        return build_pruner(pruner, Steps(9, 2, 0))(mine, [*others, mine])

    def test_a_rung_within_a_fold_that_ended_early_is_judged_by_what_was_known_at_it(self):
        # 0.8 after all of fold 0, which patience ended at 5; its mean with the first epoch of fold 1 is 0.6.
        patient = trial(1, {**dict.fromkeys(range(1, 6), 0.8), 10: 0.6})
        assert not self.gives_up(patient, trial(0, [0.7] * 18, "complete"))
        assert self.gives_up(patient, trial(0, [0.9] * 18, "complete"))

    def test_who_ended_early_is_still_a_rival_at_the_rungs_behind(self):
        assert self.gives_up(trial(1, [0.6] * 9), trial(0, [0.7] * 5, "complete"))

    def test_an_interrupted_trial_is_not_counted_beside_the_one_that_goes_on_with_it(self):
        lost, other = trial(0, [0.5] * 3, "interrupted"), trial(1, [0.4] * 3, "pruned")
        assert not self.gives_up(trial(3, [0.6] * 3), lost, other, trial(2, [0.7], "failed"))
        # Two others and this one: it is the best third. With the lost one there would be a fourth.
        mine = trial(3, [0.5] * 3, continues=0)
        assert not self.gives_up(mine, lost, other)

    def test_a_rung_is_not_judged_again_behind_it(self):
        # 0.5 was enough for rung 3; those who came since are better at it.
        assert not self.gives_up(trial(0, [0.5] * 4), trial(1, [0.9] * 4), trial(2, [0.9] * 4))

    def test_an_epoch_without_a_score_is_no_ground_to_give_up(self):
        assert not self.gives_up(trial(1, {}), trial(0, [0.7] * 18, "complete"))
        assert not self.gives_up(trial(1, {2: 0.1}), trial(0, [0.7] * 18, "complete"))
        assert self.gives_up(trial(1, {2: 0.1, 3: 0.1}), trial(0, [0.7] * 18, "complete"))

    def test_the_median_takes_the_folds_that_were_trained_by_then(self):
        # Fold 1 is harder than fold 0: what a trial had after fold 0 says nothing beside others' means of both.
        others = [trial(number, [0.9] * 9 + [0.7] * 9, "complete") for number in range(4)]
        assert self.gives_up(trial(4, [0.9] * 9 + [0.6]), *others, pruner="median")
        assert not self.gives_up(trial(4, [0.9] * 9 + [0.7]), *others, pruner="median")

    def test_the_median_does_not_judge_before_the_first_rung(self):
        gives_up = build_pruner("median", Steps(9, 1, 2.0))
        others = [trial(number, [0.9] * 9, "complete") for number in range(4)]
        assert [gives_up(trial(4, [0.1] * n), others) for n in (1, 2, 3)] == [False, False, True]

    def test_hyperband_keeps_a_trial_that_goes_on_on_its_ladder(self):
        band = Hyperband(Steps(9, 2, 0))
        assert band._first_rungs == [1, 3, 9]
        assert [band._places.count(index) for index in range(3)] == [9, 5, 3]
        ladders = [band._ladder(trial(number, {}), {}) for number in range(300)]
        assert set(ladders) == {0, 1, 2}
        for number, ladder in enumerate(ladders):
            before = {number: None, 900: number}
            assert band._ladder(trial(901, {}, continues=900), before) == ladder


def test_a_warm_up_that_is_searched_delays_the_first_rung(tmp_path):
    space = {"optim.warmup_epochs": Range(0, 4, step=0.5)}
    assert Search(Recipe(), space, tmp_path, tmp_path, (0,)).steps == Steps(20, 1, 4)


def test_an_unknown_pruner_is_refused():
    with pytest.raises(ConfigError, match="--pruner: is 'asha', allowed are halving, hyperband, median, none"):
        build_pruner("asha", Steps(9, 1, 0))
    assert len(PRUNERS) == 4
