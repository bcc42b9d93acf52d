import csv
import errno
import json
import os
import shutil
import signal
from dataclasses import replace

import msgspec
import pytest
from one_fold import changed
from tiny_clips import write_clips
from watched_search import SPACE, Watching

from birdinfer.errors import CheckpointError, ConfigError, OutputError
from birdinfer.runs.layout import trial_dir, trial_lease
from birdinfer.runs.study import best_of, default_of
from birdinfer.training.recipe.toml import load_recipe
from birdinfer.training.run import Run, train_run
from birdinfer.tuning import worker as module
from birdinfer.tuning.space import Choices
from birdinfer.tuning.trials import Claimed, study_lock
from birdinfer.tuning.worker import work


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def weights(run_dir):
    return sorted(str(path.relative_to(run_dir)) for path in run_dir.rglob("*.safetensors"))


def test_repeats_train_a_trial_with_other_seeds_and_its_score_is_their_mean(search, tmp_path):
    search = replace(search, trials=1, repeats=2)
    outcome = work(search, Watching())
    (record,) = outcome.records
    own = trial_dir(search.study_dir, 0)
    runs = [own, own / "repeat1"]
    assert [load_recipe(run / "recipe.toml").seed for run in runs] == [0, 1]
    scores = [json.loads((run / "fold0" / "metrics.json").read_text())["score"] for run in runs]
    assert record.score == pytest.approx(sum(scores) / 2)
    assert sorted(record.curve) == [1, 2, 3, 4]
    head = (search.study_dir / "best.toml").read_text().splitlines()
    assert head[0].startswith(f"# score {record.score:.6f}, mean over 2 seeds and folds")
    assert head[3] == f"# each seed: {scores[0]:.6f} (seed 0), {scores[1]:.6f} (seed 1)"
    for seed, score in enumerate(scores):
        folds_file = search.study_dir / "folds.csv"
        recipe = load_recipe(search.study_dir / "best.toml", [f"seed={seed}", f'data.folds_file="{folds_file}"'])
        run = Run(recipe=recipe, data_dir=search.data, run_dir=tmp_path / str(seed), folds=search.folds, device="cpu")
        assert [result.score for result in train_run(run)] == [score]
    with pytest.raises(ConfigError, match="trained 2 times, asked is 1"):
        work(replace(search, repeats=1), Watching())


class TestAFinishedStudy:
    def test_has_as_many_trials_as_were_asked_for_and_the_default_first(self, finished):
        _, outcome, watching = finished
        assert outcome.is_done
        assert sum(record.is_finished for record in outcome.records) == 4
        assert outcome.records[0].is_default
        assert outcome.records[0].state == "complete"
        assert [record.number for record in watching.started] == [record.number for record in watching.ended]

    def test_the_best_is_not_below_the_default(self, finished):
        records = finished[1].records
        assert best_of(records).score >= default_of(records).score

    @pytest.mark.slow
    def test_the_best_recipe_trains_to_the_same_score_bit_for_bit(self, finished, tmp_path):
        search, outcome, _ = finished
        recipe = load_recipe(search.study_dir / "best.toml")
        assert recipe.name == "small-best"
        assert not recipe.data.folds_file
        results = train_run(
            Run(recipe=recipe, data_dir=search.data, run_dir=tmp_path / "again", folds=search.folds, device="cpu"),
        )
        assert sum(result.macro_auc for result in results) / 2 == best_of(outcome.records).score
        head = (search.study_dir / "best.toml").read_text().splitlines()[:2]
        assert head[0].startswith(
            f"# score {best_of(outcome.records).score:.6f}, mean over folds of the best epoch's macro AUC, folds 0,1"
        )
        assert (
            head[1] == f"# trial {best_of(outcome.records).number} of study small-tune, the best of 4 finished trials"
        )

    def test_tables_say_what_the_trials_came_to(self, finished):
        search, outcome, _ = finished
        table = rows(search.study_dir / "trials.csv")
        assert [row["state"] for row in table] == [record.state for record in outcome.records]
        assert float(table[0]["model.drop_rate"]) == 0.1
        curve = [row for row in rows(search.study_dir / "curves.csv") if row["trial"] == "0"]
        assert [row["step"] for row in curve] == ["1", "2", "3", "4"]
        assert float(curve[-1]["score"]) == pytest.approx(outcome.records[0].score, abs=1e-6)

    def test_weights_are_kept_of_the_best_alone_and_histories_of_all(self, finished):
        search, outcome, _ = finished
        for record in outcome.records:
            run_dir = trial_dir(search.study_dir, record.number)
            assert (run_dir / "fold0" / "history.csv").exists()
            assert bool(weights(run_dir)) == (record.number == best_of(outcome.records).number)

    def test_all_trials_have_the_same_folds(self, finished):
        search, outcome, _ = finished
        folds = (search.study_dir / "folds.csv").read_bytes()
        assert {(trial_dir(search.study_dir, r.number) / "folds.csv").read_bytes() for r in outcome.records} == {folds}

    def test_asked_again_it_only_writes_its_tables_and_asked_for_more_it_continues(self, finished, tmp_path):
        search, outcome, _ = finished
        copy = replace(search, study_dir=tmp_path / "small-tune", folds=(0, 1))
        shutil.copytree(search.study_dir, copy.study_dir)
        (copy.study_dir / "best.toml").unlink()
        watching = Watching()
        assert work(copy, watching).records == outcome.records
        assert watching.started == []
        assert (copy.study_dir / "best.toml").read_bytes() == (search.study_dir / "best.toml").read_bytes()
        more = work(replace(copy, trials=5), watching)
        assert [record.number for record in watching.started] == [4]
        assert more.records[:4] == outcome.records

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"space": {**SPACE, "model.drop_rate": Choices((0.1,))}}, r"another space: model\.drop_rate"),
            ({"folds": (0,)}, "a study of folds 0,1, asked is 0"),
            ({"storage": "sqlite"}, "--storage: is sqlite, .* is stored as journal"),
            ({"sampler": "grid"}, "--sampler"),
            ({"trials": 0}, "--trials: is 0"),
        ],
    )
    def test_another_question_is_refused(self, finished, changes, message):
        with pytest.raises(ConfigError, match=message):
            work(replace(finished[0], **changes), Watching())

    def test_another_recipe_or_other_data_is_refused(self, finished, tmp_path):
        search = finished[0]
        with pytest.raises(ConfigError, match=r"a study of another recipe: optim\.clip_norm is 5\.0 there, here 1\.0"):
            work(replace(search, recipe=changed(search.recipe, optim={"clip_norm": 1.0})), Watching())
        other = write_clips(tmp_path / "clips", clips_per_label=4)
        with pytest.raises(ConfigError, match=r"a study of other clips .* - name another with --study"):
            work(replace(search, data=other), Watching())


class TestBegin:
    def test_a_run_is_no_study(self, search):
        (search.study_dir / "fold0").mkdir(parents=True)
        with pytest.raises(ConfigError, match="is a training run, no study"):
            work(search, Watching())

    @pytest.mark.parametrize("is_empty", [True, False])
    def test_a_study_that_has_lost_its_trials_is_not_started_again(self, finished, tmp_path, is_empty):
        copy = replace(finished[0], study_dir=tmp_path / "small-tune")
        shutil.copytree(finished[0].study_dir, copy.study_dir)
        (copy.study_dir / "study.journal").unlink()
        if is_empty:
            (copy.study_dir / "study.journal").touch()
        with pytest.raises(ConfigError, match="has lost its trials"):
            work(copy, Watching())

    def test_a_recipe_without_a_score_and_folds_that_are_not_there(self, search):
        with pytest.raises(ConfigError, match=r"data\.all_data: is true, nothing is validated"):
            work(replace(search, recipe=changed(search.recipe, data={"all_data": True})), Watching())
        with pytest.raises(ConfigError, match="--fold: is 3, the recipe has folds 0 to 2"):
            work(replace(search, folds=(3,)), Watching())

    def test_a_recipe_that_cannot_be_trained_is_refused_before_the_first_trial(self, search):
        with pytest.raises(ConfigError, match=r"model\.backbone"):
            work(replace(search, recipe=changed(search.recipe, model={"backbone": "no_such"})), Watching())
        assert not search.study_dir.exists()

    def test_a_recipe_outside_its_space_is_no_trial_and_reported(self, search, monkeypatch):
        monkeypatch.setattr(module, "train_trial", lambda *_: 0.5)
        watching = Watching()
        outcome = work(replace(search, space={"model.drop_rate": Choices((0.2, 0.3))}, trials=1), watching)
        assert "the recipe itself is no trial: its model.drop_rate = 0.1 is not in the space" in watching.messages
        assert not any("points" in line for line in watching.messages)
        assert default_of(outcome.records) is None

    def test_more_trials_than_the_space_has_points_are_reported(self, search, monkeypatch):
        monkeypatch.setattr(module, "train_trial", lambda *_: 0.5)
        watching, space = Watching(), {"model.drop_rate": Choices((0.1, 0.2))}
        work(replace(search, space=space), watching)
        assert "the space has only 2 points: of 3 trials some will be alike" in watching.messages


class TestTrialsThatFail:
    def test_one_is_one_and_its_reason_is_kept(self, search, monkeypatch):
        def train_trial(search, claimed, *_):
            if claimed.record.number == 1:
                raise CheckpointError("x.safetensors", "is of\nno use")
            return 0.5

        monkeypatch.setattr(module, "train_trial", train_trial)
        outcome = work(search, Watching())
        assert [record.state for record in outcome.records] == ["complete", "failed", "complete", "complete"]
        assert outcome.records[1].problem == "x.safetensors: is of no use"
        assert (trial_dir(search.study_dir, 1) / "failed.txt").read_text() == "x.safetensors: is of no use\n"

    def test_a_row_of_them_ends_the_search(self, search, monkeypatch):
        def train_trial(*_):
            raise ValueError("what timm says")

        monkeypatch.setattr(module, "train_trial", train_trial)
        monkeypatch.setattr(module, "MOST_FAILURES", 3)
        watching = Watching()
        with pytest.raises(ConfigError, match="3 trials in a row failed, the last one: what timm says"):
            work(search, watching)
        assert len(watching.ended) == 3

    def test_a_full_disk_is_no_fault_of_the_trial(self, search, monkeypatch):
        def train_trial(*_):
            raise OutputError("last.safetensors", "cannot be written (no space)")

        with monkeypatch.context() as patch:
            patch.setattr(module, "train_trial", train_trial)
            with pytest.raises(OutputError):
                work(search, Watching())
        monkeypatch.setattr(module, "train_trial", lambda *_: 0.5)
        outcome = work(search, Watching())
        assert [record.state for record in outcome.records] == ["complete"] * 3

    def test_a_disk_that_is_full_when_tables_are_written_is_one_line_and_the_trial_stays_finished(
        self, search, monkeypatch
    ):
        monkeypatch.setattr(module, "train_trial", lambda *_: 0.5)

        def publish(*_):
            raise OutputError("trials.csv", "cannot be written (no space)")

        with monkeypatch.context() as patch:
            patch.setattr(module, "publish", publish)
            with pytest.raises(OutputError):
                work(search, Watching())
        outcome = work(search, Watching())
        assert [record.state for record in outcome.records] == ["complete"] * 3

    def test_a_full_disk_under_the_journal_is_no_fault_of_the_trial(self, search, monkeypatch):
        def train_trial(search, claimed, *_):
            monkeypatch.setattr(os, "fsync", full)
            claimed.report(1, 0.5)

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(module, "train_trial", train_trial)
            with pytest.raises(OutputError, match=r"study\.journal: cannot be written \(No space left"):
                work(search, Watching())
        monkeypatch.undo()
        monkeypatch.setattr(module, "train_trial", lambda *_: 0.5)
        outcome = work(search, Watching())
        assert [record.state for record in outcome.records] == ["complete"] * 3
        assert "failed" not in {record.state for record in outcome.records}


class StoppedAt(Watching):
    """Sends a signal to its own process when a trial is so far."""

    def __init__(self, number, step, signal_number):
        super().__init__()
        self._at, self._signal = (number, step), signal_number

    def on_trial_step(self, number, step, n_steps, score):
        super().on_trial_step(number, step, n_steps, score)
        if (number, step) == self._at:
            os.kill(os.getpid(), self._signal)


class TestInterrupted:
    @pytest.mark.parametrize(
        ("number", "ending"),
        [(signal.SIGTERM, SystemExit), pytest.param(signal.SIGINT, KeyboardInterrupt, marks=pytest.mark.slow)],
    )
    def test_a_trial_is_released_and_resumed_as_if_nothing_had_happened(self, search, finished, number, ending):
        search = replace(search, folds=(0, 1), trials=1)
        with pytest.raises(ending):
            work(search, StoppedAt(0, 3, number))
        assert weights(trial_dir(search.study_dir, 0))
        assert [row["state"] for row in rows(search.study_dir / "trials.csv")] == ["interrupted"]
        watching = Watching()
        outcome = work(search, watching)
        assert [record.state for record in outcome.records] == ["complete"]
        # Steps 1 to 3 are read from its checkpoints, only the fourth is trained.
        assert [step for _, step, _, _ in watching.steps] == [4]
        assert outcome.records[0].curve == finished[1].records[0].curve
        assert outcome.records[0].score == finished[1].records[0].score


class TestKilled:
    def test_between_saving_an_epoch_and_telling_of_it_nothing_is_lost(self, search, finished, monkeypatch):
        """The curve ends an epoch before the checkpoint; the worker that resumes the trial reports all of it."""

        class Killed(BaseException):
            """No handler has a chance to release anything."""

        tell = Claimed.report

        def report(claimed, step, score):
            if step == 2:
                raise Killed
            tell(claimed, step, score)

        search = replace(search, folds=(0, 1), trials=1)
        with monkeypatch.context() as patch:
            patch.setattr(Claimed, "report", report)
            with pytest.raises(Killed):
                work(search, Watching())
        watching = Watching()
        (record,) = work(search, watching).records
        assert (list(watching.started[0].curve), record.crashes) == ([1], 1)
        assert [step for _, step, _, _ in watching.steps] == [3, 4]
        assert record.curve == finished[1].records[0].curve
        assert record.score == finished[1].records[0].score


class TestLeaseLost:
    """A worker of another machine took this one for dead."""

    def lose(self, search, claimed):
        trial_lease(search.study_dir, claimed.record.number).unlink()
        with study_lock(search.study_dir):
            return search.open_trials().claim("other")

    def test_a_stop_ends_the_worker_as_asked(self, search, monkeypatch):
        def train_trial(search, claimed, *_):
            self.lose(search, claimed)
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "train_trial", train_trial)
        with pytest.raises(KeyboardInterrupt):
            work(search, Watching())

    def test_the_trial_is_left_to_the_other_worker(self, search, monkeypatch):
        others = []

        def train_trial(search, claimed, *_):
            if not others:
                others.append(self.lose(search, claimed))
                claimed.report(1, 0.5)
            if claimed.record.number == 2:
                search.open_trials().finish(others[0], 0.75)
            return 0.5

        monkeypatch.setattr(module, "train_trial", train_trial)
        watching = Watching()
        outcome = work(search, watching)
        assert "another worker has trial 0 now" in watching.messages
        assert [(record.score, record.worker == "other") for record in outcome.records] == [
            (0.75, True), (0.5, False), (0.5, False),
        ]  # fmt: skip


class TestPruned:
    def test_who_lags_behind_ends_early_and_counts_as_finished(self, search, monkeypatch):
        monkeypatch.setattr(Claimed, "should_end", lambda claimed: not claimed.record.is_default)
        outcome = work(replace(search, trials=2), Watching())
        default, pruned = outcome.records
        assert (default.state, list(default.curve)) == ("complete", [1, 2])
        assert (pruned.state, list(pruned.curve)) == ("pruned", [1])
        assert outcome.is_done
        run_dir = trial_dir(search.study_dir, 1)
        assert not weights(run_dir)
        assert len(rows(run_dir / "fold0" / "history.csv")) == 1


def test_a_trial_is_named_after_its_study(finished):
    search = finished[0]
    recipe = load_recipe(trial_dir(search.study_dir, 3) / "recipe.toml")
    assert recipe.name == "small-tune-0003"
    assert msgspec.structs.replace(recipe, name="small", model=search.recipe.model, optim=search.recipe.optim) == (
        search.recipe
    )
