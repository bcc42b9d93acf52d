from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_steps import Noise, Square, cheat, processed, subject

from birdinfer.errors import ConfigError, MetadataError
from birdinfer.evaluation.ablation import (
    Attempt,
    Conclusion,
    Subject,
    ablate,
    informative_files,
    labelled_rows,
    max_attempts,
    min_resamples,
)
from birdinfer.evaluation.confidence import jackknife_error
from birdinfer.evaluation.metrics import macro_roc_auc
from birdinfer.postprocess.smoothing import Smooth
from birdinfer.species import Species
from birdinfer.tables.scores import rows_by_file


def alone(*steps):
    return [Attempt(str(index), "alone", (step,)) for index, step in enumerate(steps)]


def without_cost(ablation):
    trials = tuple(msgspec.structs.replace(trial, ms_per_thousand_rows=0.0) for trial in ablation.trials)
    return msgspec.structs.replace(ablation, trials=trials)


class TestVerdicts:
    def test_a_step_that_knows_the_truth_is_taken_and_noise_is_not(self):
        made = subject()
        helps, hurts, little = ablate(made, alone(cheat(made), Noise(strength=1.5), Noise(1, 0.02))).trials
        assert helps.conclusion is Conclusion.take
        assert hurts.conclusion is Conclusion.worse
        assert little.conclusion is Conclusion.no_evidence
        assert helps.better == 1.0
        assert helps.worse == 0.0

    def test_a_gain_that_is_clear_alone_may_not_be_so_among_forty(self):
        made = subject()
        # Scores that know nothing, which noise can make no worse.
        made = replace(made, scores=np.random.default_rng(3).random(made.scores.shape, np.float32))
        useless = alone(*(Noise(seed, 0.5) for seed in range(40)))
        among = ablate(made, useless).trials
        lucky = next(trial for trial in among if trial.interval[0] > 0)
        assert lucky.conclusion is Conclusion.promising
        assert lucky.corrected_interval[0] <= 0
        (by_itself,) = ablate(made, [useless[int(lucky.name)]]).trials
        assert by_itself.conclusion is Conclusion.take
        assert by_itself.interval == lucky.interval == by_itself.corrected_interval

    def test_useless_steps_are_hardly_ever_taken(self):
        taken = 0
        for seed in range(15):
            trials = ablate(subject(seed=seed), alone(*(Noise(each, 0.1) for each in range(8))), 320).trials
            taken += any(trial.conclusion is Conclusion.take for trial in trials)
        assert taken <= 2

    def test_few_files_carry_few_trials_however_clear_they_are(self):
        made = subject(n_files=5)
        ablation = ablate(made, alone(cheat(made)))
        assert ablation.trials[0].corrected_interval[0] > 0
        assert ablation.trials[0].conclusion is Conclusion.promising

    @pytest.mark.parametrize(("n_files", "most"), [(1, 0), (5, 0), (6, 1), (8, 6), (10, 25), (12, 102)])
    def test_files_that_agree_by_chance(self, n_files, most):
        # 0.05 x 2^(8 - 1) = 6.4
        assert max_attempts(n_files) == most

    def test_files_without_species_do_not_narrow_the_interval(self):
        made = subject(n_files=60)
        silent = np.isin(made.labelled.clusters, np.arange(5, 60))
        in_five = replace(made, labelled=made.labelled._replace(truth=made.labelled.truth & ~silent[:, np.newaxis]))
        ablation = ablate(in_five, alone(cheat(in_five)))
        assert (ablation.n_files, ablation.n_informative) == (60, 5)
        assert ablation.trials[0].corrected_interval[0] > 0
        assert ablation.trials[0].conclusion is Conclusion.promising

    def test_files_that_lack_the_other_rows_do_not_count_either(self):
        labelled = labelled_rows(np.array([[True], [True], [True], [False]]), ["a", "b", "c", "c"])
        assert informative_files(labelled, np.array([True])) == 1
        assert informative_files(labelled._replace(clusters=np.array([0, 1, 2, 3])), np.array([True])) == 1

    def test_positives_in_one_file_allow_no_interval(self):
        made = subject(n_files=12)
        others = made.labelled.clusters[:, np.newaxis] != 3
        made = replace(made, labelled=made.labelled._replace(truth=made.labelled.truth & ~others))
        ablation = ablate(made, alone(cheat(made)))
        assert ablation.trials[0].interval is None
        assert ablation.trials[0].conclusion is Conclusion.undetermined

    def test_an_interval_is_never_narrower_than_students(self):
        made, noise = subject(n_files=10), Noise(strength=0.3)
        (trial,) = ablate(made, alone(noise)).trials
        error = jackknife_error(made.labelled, processed(made, noise).astype(float), made.scores.astype(float))
        assert trial.interval[1] - trial.gain >= 2.262 * error
        assert trial.gain - trial.interval[0] >= 2.262 * error

    def test_thousands_of_files_are_no_overflow(self):
        assert max_attempts(100_000) > 10**9

    def test_a_single_file_allows_no_interval(self):
        made = subject(n_files=1)
        ablation = ablate(made, alone(cheat(made)))
        assert ablation.n_files == 1
        assert ablation.trials[0].gain > 0
        assert ablation.trials[0].interval is ablation.trials[0].corrected_interval is None
        assert ablation.trials[0].conclusion is Conclusion.undetermined

    def test_what_keeps_every_order_is_no_trial(self):
        made = subject()
        ablation = ablate(made, alone(Square(), cheat(made), Smooth((1.0,))), n_resamples=40)
        same, _, neutral = ablation.trials
        assert ablation.n_counted == 1
        assert same.conclusion is neutral.conclusion is Conclusion.no_change
        assert same.gain == same.better == same.worse == 0.0
        assert same.interval == (0.0, 0.0)


class TestNumbers:
    @given(st.integers(0, 2**32 - 1))
    @settings(max_examples=10)
    def test_a_gain_is_the_difference_of_the_metric_and_lies_in_its_intervals(self, seed):
        made, noise = subject(seed=seed), Noise(seed, 0.1)
        ablation = ablate(made, alone(noise), n_resamples=400)
        (trial,) = ablation.trials
        before = macro_roc_auc(made.labelled.truth, made.scores)
        after = macro_roc_auc(made.labelled.truth, processed(made, noise))
        assert ablation.macro_auc == pytest.approx(before)
        assert trial.macro_auc == pytest.approx(after)
        assert trial.gain == pytest.approx(after - before)
        low, high = trial.interval
        assert low <= trial.gain <= high

    def test_of_a_pipeline_each_part_is_what_the_whole_gains_by_it(self):
        made = subject()
        whole = (cheat(made), Noise())
        attempts = [Attempt("cheat", "last", whole, whole[1:]), Attempt("all", "whole", whole)]
        added_last, together = ablate(made, attempts).trials
        auc_of_rest = macro_roc_auc(made.labelled.truth, processed(made, whole[1]))
        assert added_last.macro_auc == together.macro_auc
        assert added_last.gain == pytest.approx(together.macro_auc - auc_of_rest)

    def test_worked_by_hand(self):
        # Two files of two rows each; smoothed evenly a file's rows become alike: all pairs within it are ties.
        scores = np.array([[0.8], [0.2], [0.6], [0.4]], np.float32)
        truth = np.array([[1], [0], [1], [0]], bool)
        ids = ["a_5", "a_10", "b_5", "b_10"]
        made = Subject(
            scores,
            (Species("s"),),
            rows_by_file(ids, "scores.csv"),
            np.arange(4),
            np.arange(1),
            labelled_rows(truth, ["a", "a", "b", "b"]),
        )
        (trial,) = ablate(made, alone(Smooth((1 / 3, 1 / 3, 1 / 3)))).trials
        assert trial.macro_auc == pytest.approx(0.5)
        assert trial.gain == pytest.approx(-0.5)
        # Whichever files are drawn, order turns into ties.
        assert trial.interval == pytest.approx((-0.5, -0.5))
        assert (trial.better, trial.worse) == (0.0, 1.0)

    def test_rows_without_truth_are_neighbours(self):
        scores = np.array([[0.9], [0.1], [0.0], [0.0], [0.2]], np.float32)
        ids = ["a_5", "a_10", "a_15", "b_5", "b_10"]
        made = Subject(
            scores,
            (Species("s"),),
            rows_by_file(ids, "scores.csv"),
            np.array([1, 4]),
            np.arange(1),
            labelled_rows(np.array([[True], [False]]), ["a", "b"]),
        )
        # 0.1 becomes 0.2 x 0.9 + 0.6 x 0.1 = 0.24, above what is left of 0.2.
        (trial,) = ablate(made, alone(Smooth())).trials
        assert (trial.macro_auc, trial.gain) == (1.0, 1.0)

    def test_the_seed_decides(self):
        made = subject()
        first, same, other = (without_cost(ablate(made, alone(Noise()), 200, seed)) for seed in (0, 0, 1))
        assert first == same != other
        assert first.trials[0].gain == other.trials[0].gain

    def test_what_a_step_costs_is_measured(self):
        (trial,) = ablate(subject(), alone(Noise())).trials
        assert 0 < trial.ms_per_thousand_rows < 1000


class TestRefusal:
    def test_resamples_that_cannot_carry_the_correction(self):
        made = subject(n_files=3)
        with pytest.raises(ConfigError, match=r"--resamples: 79 .* 2 attempts .* at least 80 are needed"):
            ablate(made, alone(Noise(0), Noise(1)), n_resamples=79)
        assert min_resamples(2) == 80
        assert ablate(made, alone(Noise(0), Noise(1)), n_resamples=80).n_counted == 2

    def test_truth_without_a_positive(self):
        made = subject()
        silent = replace(made, labelled=made.labelled._replace(truth=np.zeros_like(made.labelled.truth)))
        with pytest.raises(MetadataError, match=r"no species has both a positive and a negative row"):
            ablate(silent, alone(Noise()))
