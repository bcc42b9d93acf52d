import pytest
from optuna.exceptions import UpdateFinishedTrialError

from birdinfer.training.tuning.alive import Alive
from birdinfer.training.tuning.ledger import Ledger, TakenOver, queue_default, records_of
from birdinfer.training.tuning.pruning import Steps
from birdinfer.training.tuning.sampling import SeededSampler, distributions
from birdinfer.training.tuning.space import Range
from birdinfer.training.tuning.storage import open_study

SPACE = {"optim.lr": Range(1e-4, 1e-2)}
STEPS = Steps(9, 1, 0)


@pytest.fixture
def open_ledger(tmp_path):
    """A worker's ledger of a study whose default is queued; ``open_ledger(n_trials)``."""

    def opened(n_trials=2):
        sampler = SeededSampler("random", 0, n_trials, lambda params: True).over(distributions(SPACE))
        return Ledger(open_study(tmp_path, "journal"), SPACE, sampler, "halving", STEPS, n_trials)

    queue_default(open_study(tmp_path, "journal"), SPACE, {"optim.lr": 1e-3})
    return opened


def states(ledger):
    return [record.state for record in ledger.records()]


class TestClaiming:
    def test_the_default_comes_first_and_others_are_drawn(self, open_ledger):
        ledger = open_ledger()
        first, second = ledger.claim("a"), ledger.claim("a")
        assert (first.record.number, first.record.is_default, first.record.values) == (0, True, {"optim.lr": 1e-3})
        assert (second.record.number, second.record.is_default, second.record.worker) == (1, False, "a")
        assert SPACE["optim.lr"].holds(second.record.values["optim.lr"])

    def test_running_trials_of_others_keep_their_place(self, open_ledger):
        mine, other = open_ledger(2), open_ledger(2)
        assert mine.claim("a") is not None
        assert other.claim("b") is not None
        assert mine.claim("a") is None
        assert not mine.is_done()

    def test_failed_trials_free_their_place_and_finished_ones_do_not(self, open_ledger):
        ledger = open_ledger(2)
        ledger.fail(ledger.claim("a"), "no memory")
        ledger.complete(ledger.claim("a"), 0.5)
        pruned = ledger.claim("a")
        pruned.report(1, 0.3)
        assert ledger.give_up(pruned).state == "pruned"
        assert ledger.claim("a") is None
        assert ledger.is_done()
        assert states(ledger) == ["failed", "complete", "pruned"]
        assert ledger.records()[0].problem == "no memory"
        assert ledger.records()[2].score is None
        assert open_ledger(3).claim("b").record.number == 3


class TestPuttingBack:
    def test_an_interrupted_trial_is_gone_on_with_by_whoever_comes(self, open_ledger):
        ledger = open_ledger(2)
        ledger.put_back(ledger.claim("a"))
        again = open_ledger(2).claim("b").record
        assert (again.number, again.continues, again.values) == (1, 0, {"optim.lr": 1e-3})
        assert again.is_default
        assert ledger.records()[0].state == "interrupted"
        assert not ledger.records()[0].is_over

    def test_it_may_be_interrupted_again_and_again(self, open_ledger):
        ledger = open_ledger(2)
        for _ in range(4):
            ledger.put_back(ledger.claim("a"))
        assert [record.continues for record in ledger.records()] == [None, 0, 1, 2, 3]


class TestBurying:
    def test_a_trial_whose_worker_died_is_tried_again_once(self, open_ledger, tmp_path):
        ledger = open_ledger(2)
        ledger.claim("dead")
        with Alive(tmp_path) as alive:
            assert [record.number for record in ledger.bury(alive)] == [0]
            assert ledger.bury(alive) == []
            again = ledger.claim("dead too").record
            assert (again.continues, again.deaths) == (0, 1)
            assert [record.number for record in ledger.bury(alive)] == [1]
        assert ledger.records()[1].problem == "the worker died at it, as one did before"
        assert states(ledger) == ["interrupted", "failed"]
        assert ledger.records()[1].is_over

    def test_trials_of_the_living_are_left_alone(self, open_ledger, tmp_path):
        ledger = open_ledger(2)
        with Alive(tmp_path) as alive:
            ledger.claim(alive.name)
            assert ledger.bury(alive) == []

    def test_a_worker_that_was_killed_while_it_claimed(self, open_ledger, tmp_path):
        ledger = open_ledger(2)
        ledger.study.ask()  # nothing is noted, no value drawn
        with Alive(tmp_path) as alive:
            assert len(ledger.bury(alive)) == 1
        assert ledger.claim("b").record.values == {"optim.lr": 1e-3}

    def test_one_that_was_killed_while_it_buried(self, open_ledger, tmp_path, monkeypatch):
        ledger = open_ledger(2)
        ledger.claim("dead")
        with Alive(tmp_path) as alive, monkeypatch.context() as patch:
            patch.setattr(ledger.study, "tell", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                ledger.bury(alive)
        with Alive(tmp_path) as alive:
            ledger.bury(alive)
        assert states(ledger) == ["interrupted", "waiting"]

    def test_whoever_was_taken_for_dead_notices(self, open_ledger, tmp_path):
        slow, other = open_ledger(2), open_ledger(2)
        claimed = slow.claim("slow")
        with Alive(tmp_path) as alive:
            other.bury(alive)
        with pytest.raises(TakenOver):
            claimed.report(1, 0.5)
        with pytest.raises(TakenOver):
            slow.complete(claimed, 0.5)
        assert states(slow) == ["interrupted", "waiting"]


def test_the_default_goes_to_its_end_however_it_stands(open_ledger):
    ledger = open_ledger(4)
    default, good, bad = (ledger.claim("a") for _ in range(3))
    for claimed, score in ((good, 0.9), (default, 0.1), (bad, 0.2)):
        claimed.report(1, score)
    assert not good.should_end()
    assert not default.should_end()
    assert bad.should_end()


def test_curves_are_kept_by_step(open_ledger):
    ledger = open_ledger()
    claimed = ledger.claim("a")
    for step, score in ((1, 0.4), (2, 0.6)):
        claimed.report(step, score)
    assert records_of(ledger.study, SPACE)[0].curve == {1: 0.4, 2: 0.6}
    ledger.complete(claimed, 0.6)
    with pytest.raises(UpdateFinishedTrialError):
        claimed.trial.report(0.7, 3)
