import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from make_bundles import FRONTEND, write_bundle
from simulated_workers import NO_SOUND, Costs, SimulatedPredictor, Simulation

from birdinfer.audio.windows import WindowBatch
from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.errors import BundleError
from birdinfer.inference.bundle import Bundle
from birdinfer.prediction.budget import MARGIN, Budget, StepTimer
from birdinfer.prediction.fallback_levels import Level, fallback_levels

AMPLE = 1e6
NAMES = [f"fold{index}" for index in range(5)]
FIVE = Costs(dict.fromkeys(NAMES, 0.02))
BARE = Costs({"fold0": 0.1}, front_end=0, reading=0, opening=0, loading=0, finishing=0, first_run=1)
"""1.2 s a minute, and nothing else."""


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Five members, windows every 2.5 s."""
    return Bundle.load(write_bundle(tmp_path_factory.mktemp("bundles") / "five", 5)).with_overlap(2.5)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One member without overlap: a single level."""
    return Bundle.load(write_bundle(tmp_path_factory.mktemp("bundles") / "one", 1))


@pytest.fixture(scope="module")
def full_seconds(five):
    """What 200 minutes take as asked."""
    return Simulation(five, [60.0] * 200, FIVE).run(AMPLE).end_seconds


def levels_loaded(simulation, outcome):
    """Indices of the fallback levels, in the order in which they were taken."""
    bundles = [level.bundle for level in simulation.levels]
    return [next(index for index, one in enumerate(bundles) if one is bundle) for _, bundle in outcome.loaded]


class TestForecast:
    def test_is_what_a_file_took_times_the_files_by_hand(self, one):
        """100 minutes on one worker at 1.2 s each: after ten files 12 s are gone and 108 left."""
        outcome = Simulation(one, [60.0] * 100, BARE, workers=1).run(AMPLE)
        first = outcome.first_forecast
        assert first.seconds == pytest.approx(120.0)
        assert first.left_seconds == pytest.approx(108.0)
        assert (first.level, first.n_files) == ("", 10)
        assert outcome.end_seconds == pytest.approx(120.0)

    def test_counts_opening_and_finishing_by_hand(self, one):
        """As above, with 0.5 s to open each file and 30 s to finish: 100 x 1.7 + 30, but for
        the file that is being opened at that moment."""
        outcome = Simulation(one, [60.0] * 100, BARE._replace(opening=0.5, finishing=30.0), workers=1).run(AMPLE)
        assert outcome.first_forecast.seconds == pytest.approx(200.0 - 0.5)
        assert outcome.end_seconds == pytest.approx(200.0)

    @pytest.mark.parametrize(("n_files", "n_done"), [(3, 2), (20, 2), (21, 3), (55, 6), (99, 10), (100, 10), (500, 10)])
    def test_comes_after_ten_files_or_a_tenth_of_few(self, one, n_files, n_done):
        outcome = Simulation(one, [60.0] * n_files, BARE, workers=1).run(AMPLE)
        assert outcome.first_forecast.n_files == n_done
        files = "files" if n_done > 1 else "file"
        assert outcome.news[0].endswith(f"after {n_done} {files}")

    def test_comes_earlier_once_a_twentieth_of_the_budget_is_gone(self, one):
        """6 s of 120 s have passed while the fifth file is processed."""
        outcome = Simulation(one, [60.0] * 100, BARE, workers=1).run(125.0)
        assert outcome.first_forecast.n_files == 5
        assert outcome.first_forecast.seconds == pytest.approx(120.0)

    @pytest.mark.parametrize("workers", [1, 2, 4])
    @pytest.mark.parametrize("costs", [FIVE, FIVE._replace(opening=0.3, first_run=10.0)], ids=["usual", "slow to open"])
    @pytest.mark.parametrize(
        "lengths",
        [
            [60.0] * 200,
            [5.0] * 200,
            [1.0] * 200,
            [240.0, 7.0] * 100,
            np.exp(np.random.default_rng(3).uniform(0, np.log(3_600), 200)).tolist(),
            [0.0 if index % 9 == 4 else 60.0 for index in range(200)],
        ],
        ids=["minutes", "5 s", "1 s", "mixed", "1 s to 1 h", "some unreadable"],
    )
    def test_lies_within_a_tenth_of_the_truth(self, five, lengths, costs, workers):
        outcome = Simulation(five, lengths, costs, workers).run(AMPLE)
        assert outcome.first_forecast.seconds == pytest.approx(outcome.end_seconds, rel=0.1)

    @pytest.mark.parametrize("seed", range(10))
    def test_lies_within_a_tenth_on_a_machine_of_varying_speed(self, five, seed):
        rng = np.random.default_rng(seed)
        outcome = Simulation(five, [60.0] * 200, FIVE, slowness=lambda _: max(0.1, rng.normal(1, 0.1))).run(AMPLE)
        assert outcome.first_forecast.seconds == pytest.approx(outcome.end_seconds, rel=0.1)

    def test_follows_a_machine_that_slows_down(self, five):
        """Old measurements are forgotten: halfway through, the last tenths are forecast within a tenth."""
        simulation = Simulation(five, [60.0] * 400, FIVE, slowness=lambda now: 1 + now / 1_000)
        seen = []
        simulation._slowness = lambda now: seen.append((now, simulation.budget.forecast())) or 1 + now / 1_000
        outcome = simulation.run(AMPLE)
        late = [forecast.seconds for now, forecast in seen if now > 0.5 * outcome.end_seconds]
        assert late == pytest.approx([outcome.end_seconds] * len(late), rel=0.1)

    def test_takes_unknown_lengths_for_the_median(self, one):
        lengths = [60.0] * 100
        headers = {Path(f"{index:05d}.ogg"): None for index in range(0, 100, 3)}
        outcome = Simulation(one, lengths, BARE, workers=1, headers=headers).run(AMPLE)
        assert outcome.first_forecast.seconds == pytest.approx(120.0)

    def test_survives_wrong_headers(self, one):
        """Every file claims an hour and holds a minute: nothing of it is left in the forecast."""
        headers = {Path(f"{index:05d}.ogg"): 3_600.0 for index in range(50)}
        simulation = Simulation(one, [60.0] * 50, BARE, workers=1, headers=headers)
        outcome = simulation.run(AMPLE)
        assert len(outcome.whole) == 50
        assert simulation.budget.forecast().left_seconds == pytest.approx(0.0)

    def test_estimates_the_levels_below_from_the_parts(self, five):
        """Front ends of two kinds and members of other speeds: each level takes what was estimated."""
        costs = Costs({name: 0.01 * (index + 1) for index, name in enumerate(NAMES)}, first_run=1.0)
        other = FrontEndConfig(FRONTEND.audio, FRONTEND.window, MelConfig(n_fft=1024, n_mels=64))
        bundle = _with_other_front_end(five, {"fold1", "fold3"}, other)
        truths = []
        for level in fallback_levels(bundle):
            alone = Simulation(level.bundle, [60.0] * 300, costs)
            alone.levels = [level]
            truths.append(alone.run(AMPLE).end_seconds)
        assert truths == sorted(truths, reverse=True)
        for wanted in range(1, len(truths)):
            # Just too little for the level before.
            budget = (truths[wanted - 1] + truths[wanted]) / 2 + 0.05 * truths[0]
            simulation = Simulation(bundle, [60.0] * 300, costs)
            outcome = simulation.run(budget)
            taken = levels_loaded(simulation, outcome)
            assert taken[0] == 0
            assert taken[-1] <= wanted
            lines = [line for line in outcome.news if "from now on" in line]
            assert len(lines) == len(taken) - 1 == 1


def _with_other_front_end(bundle, names, frontend):
    """The bundle with these members behind another front end."""
    import msgspec

    members = tuple(
        msgspec.structs.replace(member, frontend=frontend) if member.name in names else member
        for member in bundle.manifest.members
    )
    return Bundle(bundle.folder, msgspec.structs.replace(bundle.manifest, members=members))


class TestWhereTimeIsShort:
    @pytest.mark.parametrize(
        ("share", "name"),
        [
            (0.85, "without overlap"),
            (0.54, "without overlap and fold4"),
            (0.4, "without overlap, fold4 and fold3"),
        ],
    )
    def test_the_first_level_that_fits_is_taken_and_why_is_reported_once(self, five, full_seconds, share, name):
        simulation = Simulation(five, [60.0] * 200, FIVE)
        outcome = simulation.run(share * full_seconds)
        assert outcome.end_seconds <= share * full_seconds
        assert not outcome.skipped
        assert len(outcome.loaded) == 2
        forecast, degraded = outcome.news
        assert forecast.startswith("forecast 3 min 58 s of ")
        assert f": from now on {name}" in degraded
        assert "(est. " in degraded
        levels = [simulation.budget.level_of(path) for _, path in outcome.opened]
        assert levels[0] == ""
        assert levels[-1].startswith(name)
        assert len(set(levels)) == 2

    def test_where_no_level_fits_the_last_one_works_until_time_is_up(self, five, full_seconds):
        simulation = Simulation(five, [60.0] * 200, FIVE)
        outcome = simulation.run(0.07 * full_seconds)
        assert levels_loaded(simulation, outcome) == [0, len(simulation.levels) - 1]
        assert outcome.end_seconds <= 0.07 * full_seconds
        assert outcome.end_seconds > 0.9 * 0.07 * full_seconds
        assert 10 < len(outcome.whole) < 190
        assert len(outcome.whole) + len(outcome.skipped) == 200
        assert outcome.news[1].endswith("files not reached by then get the prior")
        n_whole = int(outcome.news[2].split()[4])
        assert outcome.news[2] == f"time is up after {n_whole} of 200 files; the rest gets the prior"
        assert 0 <= len(outcome.whole) - n_whole <= 1
        assert len(outcome.news) == 3

    @pytest.mark.parametrize("budget_seconds", [0.001, 1.0, 0.999 * FIVE.finishing])
    def test_of_an_impossible_budget_nothing_is_opened_or_loaded(self, five, budget_seconds):
        outcome = Simulation(five, [60.0] * 20, FIVE).run(budget_seconds)
        assert outcome.opened == []
        assert outcome.loaded == []
        assert len(outcome.skipped) == 20
        assert outcome.news == ["time is up after 0 of 20 files; the rest gets the prior"]

    def test_what_loading_takes_counts(self, five):
        """Half of the budget is gone before the first file: none is begun that the other half is too short for."""
        outcome = Simulation(five, [60.0] * 20, FIVE._replace(loading=5.0)).run(5.5)
        assert outcome.opened == []
        assert len(outcome.skipped) == 20

    def test_one_long_file_is_cut_off_in_time(self, one):
        outcome = Simulation(one, [86_400.0], BARE, workers=2).run(60.0)
        assert outcome.skipped == [Path("00000.ogg")]
        assert 58.0 < outcome.end_seconds <= 60.6

    def test_a_level_that_cannot_be_loaded_is_passed_over(self, five, full_seconds):
        def refuse(bundle):
            if bundle is simulation.levels[1].bundle:
                raise BundleError("fold0.onnx", "is gone")

        simulation = Simulation(five, [60.0] * 200, FIVE, refuse=refuse)
        outcome = simulation.run(0.85 * full_seconds)
        assert levels_loaded(simulation, outcome) == [0, 2]
        assert outcome.news[1] == "cannot continue without overlap: fold0.onnx: is gone"
        assert "from now on without overlap and fold4" in outcome.news[2]
        assert not outcome.skipped
        assert outcome.end_seconds <= 0.85 * full_seconds

    def test_where_nothing_can_be_loaded_the_reason_is_raised(self, five):
        def refuse(bundle):
            raise BundleError("fold0.onnx", "is gone")

        with pytest.raises(BundleError, match=r"fold0.onnx: is gone"):
            Simulation(five, [60.0] * 20, FIVE, refuse=refuse).run(AMPLE)

    def test_files_that_were_never_begun_are_not_counted_as_finished(self, five):
        simulation = Simulation(five, [60.0] * 20, FIVE)
        simulation.run(0.001)
        assert simulation.budget.forecast() is None
        assert simulation.budget.level_of(Path("00000.ogg")) == ""
        assert simulation.budget.expected_seconds(Path("00000.ogg")) == 60.0
        assert simulation.budget.expected_seconds(Path("other.ogg")) is None


@given(
    lengths=st.lists(st.one_of(st.just(0.0), st.floats(0.1, 300)), min_size=1, max_size=60),
    speeds=st.lists(st.floats(0.001, 0.2), min_size=5, max_size=5),
    budget_share=st.floats(0, 2),
    drift=st.floats(-0.2, 0.2),
    jitter=st.floats(0, 0.1),
    workers=st.integers(1, 4),
    loading=st.floats(0, 3),
    first_run=st.floats(1, 5),
    seed=st.integers(0, 99),
)
@example(  # the file that is opened last cannot be read
    lengths=[0.0, 31.0],
    speeds=[0.16015625, 0.16671137078769854, 0.001, 0.001, 0.001],
    budget_share=0.1882555215983921,
    drift=0,
    jitter=0,
    workers=1,
    loading=0,
    first_run=1.0,
    seed=0,
)
def test_a_run_never_ends_later_than_its_budget_and_one_file(
    five, lengths, speeds, budget_share, drift, jitter, workers, loading, first_run, seed
):
    """From impossible to ample, on a machine whose speed drifts by a fifth and varies."""
    costs = Costs(dict(zip(NAMES, speeds, strict=True)), loading=loading, first_run=first_run)
    full = Simulation(five, lengths, costs, workers).run(AMPLE).end_seconds
    rng = np.random.default_rng(seed)

    def slowness(now):
        return (1 + drift * min(1.0, now / full)) * max(0.5, 1 + jitter * rng.normal())

    budget_seconds = max(0.01, budget_share * full)
    simulation = Simulation(five, lengths, costs, workers, slowness)
    outcome = simulation.run(budget_seconds)
    # Where the time does not even suffice to begin, there is loading and finishing all the same.
    earliest = max(budget_seconds, costs.finishing + (loading if outcome.loaded else 0.0))
    assert outcome.end_seconds <= earliest + outcome.longest_file_seconds + 1e-6
    assert len(outcome.whole) + len(set(outcome.skipped)) + lengths.count(0.0) >= len(lengths)
    taken = levels_loaded(simulation, outcome)
    assert all(above < below for above, below in pairwise(taken))
    names = [level.name for level in simulation.levels]
    taken_at = [names.index(simulation.budget.level_of(path)) for _, path in outcome.opened]
    assert taken_at == sorted(taken_at)
    assert len(outcome.news) == len(set(outcome.news))


@given(
    lengths=st.lists(st.floats(0.1, 300), min_size=1, max_size=40),
    speed=st.floats(0.001, 0.2),
    workers=st.integers(1, 4),
    drift=st.floats(-0.2, 0.2),
)
def test_where_time_is_ample_nothing_is_given_up(five, lengths, speed, workers, drift):
    costs = Costs(dict.fromkeys(NAMES, speed))
    full = Simulation(five, lengths, costs, workers).run(AMPLE).end_seconds
    simulation = Simulation(five, lengths, costs, workers, lambda now: 1 + drift * min(1.0, now / full))
    # A few files show little but their first batches, which are slow.
    outcome = simulation.run((1 + MARGIN) * (1.3 if len(lengths) >= 20 else 4) * full + 1)
    assert levels_loaded(simulation, outcome) == [0]
    assert not outcome.skipped
    assert all("from now on" not in line and "time is up" not in line for line in outcome.news)


def test_workers_may_all_call_at_once(five):
    """Real threads, simulated clock: each file is given once, levels are loaded once each, by one worker at a time."""
    paths = [Path(f"{index}.ogg") for index in range(120)]
    loading, at_once, loaded, given_to = threading.Lock(), [], [], []
    costs = Costs(dict.fromkeys(NAMES, 0.001))

    clock = [0.0]

    def spend(seconds):
        """The four threads work at the same time, so that the clock moves by a quarter."""
        with lock:
            clock[0] += seconds / 4
        time.sleep(0.0005)  # let another thread run

    def load(bundle):
        at_once.append(loading.acquire(blocking=False))
        spend(0.005)
        loaded.append(bundle)
        loading.release()
        return SimulatedPredictor(bundle, costs)

    levels = fallback_levels(five)
    budget = Budget(
        levels,
        dict.fromkeys(paths, 30.0),
        budget_seconds=0.6,
        started=0.0,
        workers=4,
        make_predictor=load,
        finish_seconds=lambda: 0.0,
        now=lambda: clock[0],
    )
    waiting = iter(paths)
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                path = next(waiting, None)
            if path is None:
                return
            predictor = budget.predictor_for(path)
            if predictor is not None:
                budget.note_opened(path, 0.0)
                n = 12 if predictor.bundle is levels[0].bundle else 6
                spend(0.003 * n)
                budget.note_batch(predictor, WindowBatch(0, n, NO_SOUND), 0.0, 0.003 * n)
                given_to.append(path)
            budget.note_done(path, 30.0 if predictor is not None else 0.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(at_once)
    assert loaded[0] is levels[0].bundle
    assert len({id(bundle) for bundle in loaded}) == len(loaded) >= 2
    assert len(given_to) == len(set(given_to))
    assert budget.is_over() or len(given_to) == 120
    assert [line for line in budget.news() if line.startswith("forecast")]
    assert budget.news() == []


def test_the_older_predictor_is_freed(five):
    import gc
    import weakref

    seen = []

    class Remembered(SimulatedPredictor):
        def __init__(self, bundle, costs):
            super().__init__(bundle, costs)
            seen.append(weakref.ref(self))

    simulation = Simulation(five, [60.0] * 100, FIVE, workers=1)
    simulation._load = lambda bundle: Remembered(bundle, FIVE)
    simulation.run(60.0)
    gc.collect()
    assert [found() is None for found in seen] == [True] * (len(seen) - 1) + [False]
    assert len(seen) == 2


def test_budget_knows_its_number_of_workers(one):
    budget = Budget(
        [Level("", one)],
        {},
        budget_seconds=1.0,
        started=0.0,
        workers=3,
        make_predictor=SimulatedPredictor,
        finish_seconds=lambda: 0.0,
    )
    assert budget.workers == 3


class Calls:
    """A clock and a caller that are set by hand."""

    def __init__(self):
        self.now, self.worker = 0.0, 0
        self.timer = StepTimer(lambda: self.now, lambda: self.worker)

    def step(self, worker, now, first_seconds=0.0):
        self.worker, self.now = worker, now
        return self.timer.step(first_seconds)


@pytest.fixture
def calls():
    return Calls()


def test_step_is_the_time_between_two_calls_of_one_worker(calls):
    assert calls.step(1, 10.0, first_seconds=0.5) == 0.5
    assert calls.step(2, 11.0) == 0.0
    assert calls.step(1, 14.0) == 4.0
    assert calls.step(2, 15.0) == 4.0


def test_step_after_a_pause_is_not_measured(calls):
    calls.step(1, 10.0)
    calls.timer.pause()
    calls.timer.pause()
    assert calls.step(1, 99.0) == 0.0
    assert calls.step(1, 100.0) == 1.0


def test_note_batch_knows_the_first_of_each_worker_at_each_level(calls):
    scored_before = []
    for worker, level in ((1, 0), (1, 0), (2, 0), (1, 1), (2, 0), (1, 1)):
        calls.worker = worker
        scored_before.append(calls.timer.note_batch(1.0, 6, level))
    assert scored_before == [False, True, False, False, True, True]


def test_next_batch_may_take_as_long_as_the_longest_of_the_latest(calls):
    assert calls.timer.next_batch_seconds(100) == 0.0
    calls.timer.note_batch(9.0, 6, 0)
    assert calls.timer.next_batch_seconds(100) == 9.0  # a first one, as there is no other
    for seconds in (2.0, 3.0, *[1.0] * 18):
        calls.timer.note_batch(seconds, 6, 0)
    assert calls.timer.next_batch_seconds(100) == 3.0
    calls.timer.note_batch(9.0, 6, 1)  # first of another level
    assert calls.timer.next_batch_seconds(100) == 3.0
    for _ in range(19):
        calls.timer.note_batch(1.0, 6, 0)
    assert calls.timer.next_batch_seconds(100) == 1.0


def test_next_batch_takes_less_if_less_is_left(calls):
    calls.timer.note_batch(6.0, 12, 0)
    assert [calls.timer.next_batch_seconds(left) for left in (24, 12, 3, 0)] == [6.0, 6.0, 1.5, 0.0]


def test_open_seconds_are_at_most_a_batch_for_each_worker(calls):
    calls.timer.note_batch(5.0, 6, 0)
    calls.step(1, 10.0)
    calls.step(2, 12.0)
    calls.now = 13.0
    assert calls.timer.open_seconds() == 3.0 + 1.0
    calls.now = 1_000.0
    assert calls.timer.open_seconds() == 5.0 + 5.0
