import pytest

from birdinfer.runs.layout import trial_lease
from birdinfer.tuning.sampling import SeededSampler, distributions
from birdinfer.tuning.space import Range
from birdinfer.tuning.trials import LeaseLost, Steps, Trials, build_pruner, open_study, queue_default, records_of

SPACE = {"optim.lr": Range(1e-4, 1e-2)}
STEPS = Steps(9, 1, 0)


@pytest.fixture
def open_trials(tmp_path):
    """A worker's view of a study whose default is queued; ``open_trials(n_trials)``."""

    def opened(n_trials=2):
        sampler = SeededSampler("random", 0, n_trials, lambda params: True).over(distributions(SPACE))
        study = open_study(tmp_path, "journal", sampler, build_pruner("halving", STEPS))
        return Trials(tmp_path, study, SPACE, STEPS, n_trials)

    queue_default(open_study(tmp_path, "journal"), SPACE, {"optim.lr": 1e-3})
    return opened


def states(trials):
    return [record.state for record in trials.records()]


def kill(claimed):
    """As if its worker had died: the lease is free, and nothing else has changed."""
    claimed.release()


class TestClaim:
    def test_the_default_comes_first_and_others_are_drawn(self, open_trials):
        trials = open_trials()
        first, second = trials.claim("a"), trials.claim("a")
        assert (first.record.number, first.record.is_default, first.record.values) == (0, True, {"optim.lr": 1e-3})
        assert (second.record.number, second.record.is_default, second.record.worker) == (1, False, "a")
        assert SPACE["optim.lr"].holds(second.record.values["optim.lr"])

    def test_running_trials_of_others_keep_their_place(self, open_trials):
        mine, other = open_trials(2), open_trials(2)
        held = [mine.claim("a"), other.claim("b")]
        assert None not in held
        assert mine.claim("a") is None
        assert not mine.is_done()

    def test_failed_trials_free_their_place_and_finished_ones_do_not(self, open_trials):
        trials = open_trials(2)
        trials.fail(trials.claim("a"), "no memory")
        trials.finish(trials.claim("a"), 0.5)
        pruned = trials.claim("a")
        pruned.report(1, 0.3)
        assert trials.finish(pruned, None).state == "pruned"
        assert trials.claim("a") is None
        assert trials.is_done()
        assert states(trials) == ["failed", "complete", "pruned"]
        assert trials.records()[0].problem == "no memory"
        assert trials.records()[2].score is None
        assert open_trials(3).claim("b").record.number == 3


class TestRelease:
    def test_an_interrupted_trial_is_resumed_under_its_own_number(self, open_trials):
        trials = open_trials(2)
        claimed = trials.claim("a")
        claimed.report(1, 0.5)
        trials.release(claimed)
        assert states(trials) == ["interrupted"]
        assert not trials.records()[0].is_over
        again = open_trials(2).claim("b").record
        assert (again.number, again.values, again.curve) == (0, {"optim.lr": 1e-3}, {1: 0.5})
        assert (again.is_default, again.state, again.worker, again.crashes) == (True, "running", "b", 0)

    def test_it_may_be_interrupted_again_and_again(self, open_trials):
        trials = open_trials(2)
        for _ in range(4):
            trials.release(trials.claim("a"))
        assert states(trials) == ["interrupted"]
        assert trials.claim("b").record.number == 0

    def test_its_place_is_kept(self, open_trials):
        trials = open_trials(1)
        trials.release(trials.claim("a"))
        assert trials.claim("b").record.number == 0
        assert states(trials) == ["running"]


class TestReclaim:
    def test_a_trial_whose_worker_died_is_resumed_once(self, open_trials):
        trials = open_trials(2)
        kill(trials.claim("dead"))
        again = trials.claim("dead too")
        assert (again.record.number, again.record.crashes) == (0, 1)
        kill(again)
        assert trials.claim("b").record.number == 1
        assert states(trials) == ["failed", "running"]
        assert trials.records()[0].problem == "its worker died, as one before did"

    def test_trials_of_living_workers_are_left_alone(self, open_trials):
        trials = open_trials(2)
        held = trials.claim("a")
        other = trials.claim("b")
        assert [held.record.number, other.record.number] == [0, 1]

    @pytest.mark.parametrize("n_drawn", [0, 1])
    def test_a_worker_that_was_killed_while_it_claimed(self, open_trials, n_drawn):
        trials = open_trials(2)
        trials.study.ask(distributions(SPACE) if n_drawn else None)  # no worker is noted
        again = trials.claim("b").record
        assert (again.number, again.values, again.crashes) == (0, {"optim.lr": 1e-3}, 0)

    def test_values_that_were_not_drawn_are_drawn_then(self, open_trials):
        trials = open_trials(2)
        trials.finish(trials.claim("a"), 0.5)
        trials.study.ask()
        assert SPACE["optim.lr"].holds(trials.claim("b").record.values["optim.lr"])

    def test_a_worker_that_has_lost_its_lease_notices(self, open_trials, tmp_path):
        slow, other = open_trials(2), open_trials(2)
        claimed = slow.claim("slow")
        trial_lease(tmp_path, 0).unlink()
        held = other.claim("other")
        with pytest.raises(LeaseLost):
            claimed.report(1, 0.5)
        with pytest.raises(LeaseLost):
            slow.finish(claimed, 0.5)
        with pytest.raises(LeaseLost):
            slow.release(claimed)
        held.report(1, 0.25)
        assert states(slow) == ["running"]


class TestShouldEnd:
    def test_the_default_is_trained_to_its_end_however_it_stands(self, open_trials):
        trials = open_trials(4)
        default, good, bad = (trials.claim("a") for _ in range(3))
        for claimed, score, is_over in ((good, 0.9, False), (default, 0.1, False), (bad, 0.2, True)):
            claimed.report(1, score)
            assert claimed.should_end() == is_over

    def test_no_trial_ends_at_its_last_step(self, open_trials):
        trials = open_trials(2)
        default, bad = trials.claim("a"), trials.claim("a")
        for step in range(1, STEPS.n + 1):
            default.report(step, 0.9)
            assert not default.should_end()
        bad.report(STEPS.n, 0.1)
        assert not bad.should_end()


def test_curves_are_kept_by_step_and_a_known_step_is_left_as_it_is(open_trials):
    trials = open_trials()
    claimed = trials.claim("a")
    for step, score in ((1, 0.4), (2, 0.6), (1, 0.9)):
        claimed.report(step, score)
    assert records_of(trials.study, SPACE)[0].curve == {1: 0.4, 2: 0.6}
    trials.finish(claimed, 0.6)
    with pytest.raises(LeaseLost):
        claimed.report(3, 0.7)
