import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import FRONTEND, write_bundle
from simulated_lanes import NO_SOUND, Costs, SimulatedPredictor, Simulation

from birdinfer.bundle import Bundle
from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.errors import BundleError
from birdinfer.pace.budget import MARGIN, Budget
from birdinfer.pace.ladder import Level, ladder
from birdinfer.reader import HeardRun
from birdinfer.windows import WindowRun

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
    """Indices into the ladder, in the order in which they were taken."""
    bundles = [level.bundle for level in simulation.levels]
    return [next(index for index, one in enumerate(bundles) if one is bundle) for _, bundle in outcome.loaded]


class TestForecast:
    def test_is_what_a_file_took_times_the_files_by_hand(self, one):
        """100 minutes on one lane at 1.2 s each: after ten files 12 s are gone and 108 left."""
        outcome = Simulation(one, [60.0] * 100, BARE, lanes=1).run(AMPLE)
        first = outcome.first_forecast
        assert first.seconds == pytest.approx(120.0)
        assert first.left_seconds == pytest.approx(108.0)
        assert first.spread_seconds == pytest.approx(0.0, abs=1e-6)
        assert (first.level, first.n_files) == ("", 10)
        assert outcome.end_seconds == pytest.approx(120.0)

    def test_counts_opening_and_finishing_by_hand(self, one):
        """As above, with 0.5 s to open each file and 30 s to finish: 100 x 1.7 + 30, but for
        the file that is being opened at that moment."""
        outcome = Simulation(one, [60.0] * 100, BARE._replace(opening=0.5, finishing=30.0), lanes=1).run(AMPLE)
        assert outcome.first_forecast.seconds == pytest.approx(200.0 - 0.5)
        assert outcome.end_seconds == pytest.approx(200.0)

    @pytest.mark.parametrize(
        ("n_files", "n_heard"), [(3, 2), (20, 2), (21, 3), (55, 6), (99, 10), (100, 10), (500, 10)]
    )
    def test_comes_after_ten_files_or_a_tenth_of_few(self, one, n_files, n_heard):
        outcome = Simulation(one, [60.0] * n_files, BARE, lanes=1).run(AMPLE)
        assert outcome.first_forecast.n_files == n_heard
        files = "files" if n_heard > 1 else "file"
        assert outcome.news[0].endswith(f"after {n_heard} {files}")

    def test_comes_earlier_once_a_twentieth_of_the_budget_is_gone(self, one):
        """6 s of 120 s are gone while the fifth file is heard."""
        outcome = Simulation(one, [60.0] * 100, BARE, lanes=1).run(125.0)
        assert outcome.first_forecast.n_files == 5
        assert outcome.first_forecast.seconds == pytest.approx(120.0)

    @pytest.mark.parametrize("lanes", [1, 2, 4])
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
    def test_lies_within_a_tenth_of_the_truth(self, five, lengths, costs, lanes):
        outcome = Simulation(five, lengths, costs, lanes).run(AMPLE)
        assert outcome.first_forecast.seconds == pytest.approx(outcome.end_seconds, rel=0.1)

    @pytest.mark.parametrize("seed", range(10))
    def test_lies_within_a_tenth_on_a_machine_that_trembles(self, five, seed):
        rng = np.random.default_rng(seed)
        outcome = Simulation(five, [60.0] * 200, FIVE, slowness=lambda _: max(0.1, rng.normal(1, 0.1))).run(AMPLE)
        assert outcome.first_forecast.seconds == pytest.approx(outcome.end_seconds, rel=0.1)

    def test_says_how_sure_it_is(self, five):
        """Of 200 machines that tremble, about 19 of 20 end within two standard errors."""
        within, spreads = [], []
        for seed in range(200):
            rng = np.random.default_rng(seed)
            simulation = Simulation(five, [60.0] * 60, FIVE, slowness=lambda _, rng=rng: max(0.1, rng.normal(1, 0.2)))
            outcome = simulation.run(AMPLE)
            first = outcome.first_forecast
            within.append(abs(first.seconds - outcome.end_seconds) <= first.spread_seconds)
            spreads.append(first.spread_seconds / first.left_seconds)
        assert 0.8 <= np.mean(within) <= 0.99
        assert 0.02 < np.median(spreads) < 0.3

    def test_follows_a_machine_that_slows_down(self, five):
        """What came first is forgotten: halfway through, the last tenths are foretold within a tenth."""
        simulation = Simulation(five, [60.0] * 400, FIVE, slowness=lambda now: 1 + now / 1_000)
        seen = []
        simulation._slowness = lambda now: seen.append((now, simulation.budget.forecast())) or 1 + now / 1_000
        outcome = simulation.run(AMPLE)
        late = [forecast.seconds for now, forecast in seen if now > 0.5 * outcome.end_seconds]
        assert late == pytest.approx([outcome.end_seconds] * len(late), rel=0.1)

    def test_takes_unknown_lengths_for_the_median(self, one):
        lengths = [60.0] * 100
        headers = {Path(f"{index:05d}.ogg"): None for index in range(0, 100, 3)}
        outcome = Simulation(one, lengths, BARE, lanes=1, headers=headers).run(AMPLE)
        assert outcome.first_forecast.seconds == pytest.approx(120.0)

    def test_lives_through_headers_that_lie(self, one):
        """Every file claims an hour and holds a minute: nothing of it stays in the account."""
        headers = {Path(f"{index:05d}.ogg"): 3_600.0 for index in range(50)}
        simulation = Simulation(one, [60.0] * 50, BARE, lanes=1, headers=headers)
        outcome = simulation.run(AMPLE)
        assert len(outcome.whole) == 50
        assert simulation.budget.forecast().left_seconds == pytest.approx(0.0)

    def test_foretells_the_levels_below_from_the_parts(self, one, five):
        """Front ends of two kinds and members of other speeds: what is foretold of each level is what it takes."""
        costs = Costs({name: 0.01 * (index + 1) for index, name in enumerate(NAMES)}, first_run=1.0)
        other = FrontEndConfig(FRONTEND.audio, FRONTEND.window, MelConfig(n_fft=1024, n_mels=64))
        bundle = _hear_otherwise(five, {"fold1", "fold3"}, other)
        truths = []
        for level in ladder(bundle):
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
            told = [line for line in outcome.news if "from now on" in line]
            assert len(told) == len(taken) - 1 == 1


def _hear_otherwise(bundle, names, frontend):
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
    def test_the_first_level_that_fits_is_taken_and_why_is_told_once(self, five, full_seconds, share, name):
        simulation = Simulation(five, [60.0] * 200, FIVE)
        outcome = simulation.run(share * full_seconds)
        assert outcome.end_seconds <= share * full_seconds
        assert not outcome.skipped
        assert len(outcome.loaded) == 2
        forecast, degraded = outcome.news
        assert forecast.startswith("forecast 3 min 58 s of ")
        assert f": from now on {name}" in degraded
        assert "(est. " in degraded
        heard_as = [simulation.budget.level_of(path) for _, path in outcome.opened]
        assert heard_as[0] == ""
        assert heard_as[-1].startswith(name)
        assert len(set(heard_as)) == 2

    def test_where_no_level_fits_the_last_one_works_until_time_is_up(self, five, full_seconds):
        simulation = Simulation(five, [60.0] * 200, FIVE)
        outcome = simulation.run(0.07 * full_seconds)
        assert levels_loaded(simulation, outcome) == [0, len(simulation.levels) - 1]
        assert outcome.end_seconds <= 0.07 * full_seconds
        assert outcome.end_seconds > 0.9 * 0.07 * full_seconds
        assert 10 < len(outcome.whole) < 190
        assert len(outcome.whole) + len(outcome.skipped) == 200
        assert outcome.news[1].endswith("what is not reached by then gets the prior")
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
        outcome = Simulation(one, [86_400.0], BARE, lanes=2).run(60.0)
        assert outcome.skipped == [Path("00000.ogg")]
        assert 58.0 < outcome.end_seconds <= 60.6

    def test_a_level_that_cannot_be_loaded_is_passed_over(self, five, full_seconds):
        def refuse(bundle):
            if bundle is simulation.levels[1].bundle:
                raise BundleError("fold0.onnx", "is gone")

        simulation = Simulation(five, [60.0] * 200, FIVE, refuse=refuse)
        outcome = simulation.run(0.85 * full_seconds)
        assert levels_loaded(simulation, outcome) == [0, 2]
        assert outcome.news[1] == "cannot go on without overlap: fold0.onnx: is gone"
        assert "from now on without overlap and fold4" in outcome.news[2]
        assert not outcome.skipped
        assert outcome.end_seconds <= 0.85 * full_seconds

    def test_where_nothing_can_be_loaded_the_reason_is_handed_on(self, five):
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
    tremble=st.floats(0, 0.1),
    lanes=st.integers(1, 4),
    loading=st.floats(0, 3),
    first_run=st.floats(1, 5),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=150)
def test_a_run_never_ends_later_than_its_budget_and_one_file(
    five, lengths, speeds, budget_share, drift, tremble, lanes, loading, first_run, seed
):
    """From impossible to ample, on a machine whose speed drifts by a fifth and trembles."""
    costs = Costs(dict(zip(NAMES, speeds, strict=True)), loading=loading, first_run=first_run)
    full = Simulation(five, lengths, costs, lanes).run(AMPLE).end_seconds
    rng = np.random.default_rng(seed)

    def slowness(now):
        return (1 + drift * min(1.0, now / full)) * max(0.5, 1 + tremble * rng.normal())

    budget_seconds = max(0.01, budget_share * full)
    simulation = Simulation(five, lengths, costs, lanes, slowness)
    outcome = simulation.run(budget_seconds)
    # Where the time does not even suffice to begin, there is loading and finishing all the same.
    earliest = max(budget_seconds, costs.finishing + (loading if outcome.loaded else 0.0))
    assert outcome.end_seconds <= earliest + outcome.longest_file_seconds + 1e-6
    assert len(outcome.whole) + len(set(outcome.skipped)) + lengths.count(0.0) >= len(lengths)
    taken = levels_loaded(simulation, outcome)
    assert all(above < below for above, below in pairwise(taken))
    names = [level.name for level in simulation.levels]
    heard_at = [names.index(simulation.budget.level_of(path)) for _, path in outcome.opened]
    assert heard_at == sorted(heard_at)
    assert len(outcome.news) == len(set(outcome.news))


@given(
    lengths=st.lists(st.floats(0.1, 300), min_size=1, max_size=40),
    speed=st.floats(0.001, 0.2),
    lanes=st.integers(1, 4),
    drift=st.floats(-0.2, 0.2),
)
@settings(deadline=None, max_examples=60)
def test_where_time_is_ample_nothing_is_ever_given_up(five, lengths, speed, lanes, drift):
    costs = Costs(dict.fromkeys(NAMES, speed))
    full = Simulation(five, lengths, costs, lanes).run(AMPLE).end_seconds
    simulation = Simulation(five, lengths, costs, lanes, lambda now: 1 + drift * min(1.0, now / full))
    # Of a few files one knows little but how long the first runs were, which are slow.
    outcome = simulation.run((1 + MARGIN) * (1.3 if len(lengths) >= 20 else 4) * full + 1)
    assert levels_loaded(simulation, outcome) == [0]
    assert not outcome.skipped
    assert all("from now on" not in line and "time is up" not in line for line in outcome.news)


def test_lanes_may_all_ask_at_once(five):
    """Real threads: each file is given once, levels are loaded once each, one lane at a time."""
    paths = [Path(f"{index}.ogg") for index in range(120)]
    loading, at_once, loaded, given_to = threading.Lock(), [], [], []
    costs = Costs(dict.fromkeys(NAMES, 0.001))

    def load(bundle):
        at_once.append(loading.acquire(blocking=False))
        time.sleep(0.005)
        loaded.append(bundle)
        loading.release()
        return SimulatedPredictor(bundle, costs)

    levels = ladder(five)
    budget = Budget(load, levels, dict.fromkeys(paths, 30.0), 0.6, time.perf_counter(), lambda: 0.0, 4)
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
                time.sleep(0.003 * n)
                budget.note_run(predictor, HeardRun(0, WindowRun(0, n, NO_SOUND)), 0.0, 0.003 * n)
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


def test_the_older_predictor_is_let_go(five):
    import gc
    import weakref

    seen = []

    class Remembered(SimulatedPredictor):
        def __init__(self, bundle, costs):
            super().__init__(bundle, costs)
            seen.append(weakref.ref(self))

    simulation = Simulation(five, [60.0] * 100, FIVE, lanes=1)
    simulation._load = lambda bundle: Remembered(bundle, FIVE)
    simulation.run(60.0)
    gc.collect()
    assert [found() is None for found in seen] == [True] * (len(seen) - 1) + [False]
    assert len(seen) == 2


def test_a_budget_says_how_many_lanes_it_is_for(one):
    assert Budget(SimulatedPredictor, [Level("", one)], {}, 1.0, 0.0, lambda: 0.0, 3).lanes == 3
