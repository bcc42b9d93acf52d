"""What stands between a training and its trackers, shown with trackers that only remember, fail or hang."""

import sys
import tempfile
from threading import Event

import msgspec
import pytest
from one_fold import Recorder, assert_same_bits

from birdinfer.cli.train import TrainingProgress
from birdinfer.training import run as run_module
from birdinfer.training.callbacks import FoldResult, FoldStart, TrainingCallback
from birdinfer.training.checkpoint import EpochRow
from birdinfer.training.distributed import Distributed
from birdinfer.training.recipe.schema import Recipe, TrackingConfig
from birdinfer.training.run import Run, train_run
from birdinfer.training.tracking import reporter as fold_records
from birdinfer.training.tracking import reporter as reporter_module
from birdinfer.training.tracking.reporter import read_states, tracked

METHODS = ("start", "epoch", "finish", "close")


class Remembering:
    """A tracker that keeps its calls in a list."""

    calls: list
    release: Event
    fails_at, hangs_at = "", ""

    def _call(self, method, *what):
        if method == self.fails_at:
            raise OSError(28, "No space left on device")
        if method == self.hangs_at:
            self.release.wait()
        self.calls.append((method, *what))

    def start(self, record, run_id, epochs_logged):
        self._call("start", record, run_id, epochs_logged)
        return run_id or f"run{sum(one[0] == 'start' for one in self.calls)}"

    def epoch(self, epoch, metrics):
        self._call("epoch", epoch, metrics)

    def finish(self, outcome):
        self._call("finish", outcome)

    def close(self, ended):
        self._call("close", ended)


@pytest.fixture
def tracker(monkeypatch):
    """The class that stands for wandb; ``tracker.calls`` are the calls of its methods."""
    made = type("Made", (Remembering,), {"calls": [], "release": Event()})
    monkeypatch.setitem(reporter_module.TRACKERS, "wandb", made)
    yield made
    made.release.set()


def recipe(**keys):
    return Recipe(name="r", tracking=TrackingConfig(**{"trackers": ("wandb",), "pictures": False} | keys))


def row(epoch, **changed):
    values = {"val_loss": None, "val_macro_auc": 0.5, "val_padded_cmap": 0.5, "val_top1": 0.5, "peak_gpu_mb": None}
    return EpochRow(
        **{"epoch": epoch, "train_loss": 1.0 / epoch, "lr": 0.1, "seconds": 2.0, "wait_share": 0.25} | values | changed
    )


def start(fold=0, first_step=0):
    return FoldStart(
        fold=fold,
        n_training=16,
        n_validation=8,
        epochs=3,
        steps_per_epoch=2,
        first_step=first_step,
        batch_size=8,
        precision="fp32",
    )


def one_fold(tracking, fold=0, epochs=2):
    tracking.on_fold_start(start(fold))
    for epoch in range(1, epochs + 1):
        tracking.on_epoch_end(row(epoch), True)
    tracking.on_fold_end(FoldResult(fold=fold, macro_auc=0.75, best_epoch=2, seconds=4.0))


def broken_off(folder, shown, end):
    with tracked(recipe(), folder, folder / "r", shown) as tracking:
        tracking.on_fold_start(start())
        tracking.on_epoch_end(row(1), True)
        raise end


def called(tracker):
    return [one[0] for one in tracker.calls]


class TestCalls:
    def test_a_fold_from_start_to_end(self, tracker, tmp_path):
        with tracked(recipe(), tmp_path / "data", tmp_path / "runs" / "r", TrainingCallback()) as tracking:
            one_fold(tracking)
        assert called(tracker) == ["start", "epoch", "epoch", "finish", "close"]
        assert tracker.calls[-1] == ("close", "finished")

    def test_an_epoch_is_its_columns_of_history_csv_without_what_is_unknown(self, tracker, tmp_path):
        with tracked(recipe(), tmp_path, tmp_path / "r", TrainingCallback()) as tracking:
            one_fold(tracking, epochs=1)
        assert tracker.calls[1] == ("epoch", 1, {
            "train_loss": 1.0, "val_macro_auc": 0.5, "val_padded_cmap": 0.5, "val_top1": 0.5, "lr": 0.1,
            "seconds": 2.0, "wait_share": 0.25,
        })  # fmt: skip

    def test_figures_of_a_fold_without_what_is_unknown(self, tracker, tmp_path):
        with tracked(recipe(), tmp_path, tmp_path / "r", TrainingCallback()) as tracking:
            one_fold(tracking)
        figures = {"final_macro_auc": 0.75, "final_best_epoch": 2.0, "final_seconds": 4.0}
        assert tracker.calls[-2][1].figures == figures

    def test_parameters_are_the_flat_recipe_and_what_else_decided(self, tracker, tmp_path):
        with tracked(recipe(), tmp_path / "data", tmp_path / "r", TrainingCallback()) as tracking:
            one_fold(tracking, fold=2)
        record = tracker.calls[0][1]
        logged = record.parameters
        assert (logged["optim.lr"], logged["fold"], logged["n_training_clips"], logged["precision"]) == (
            1e-3,
            2,
            16,
            "fp32",
        )
        assert logged["data_dir"] == str(tmp_path / "data")
        assert logged["data.group_by"] == '["author", "recording"]'
        assert record.title == "r fold 2"

    def test_records_lie_in_the_run_unless_a_folder_is_named(self, tracker, tmp_path):
        for settings in (recipe(), recipe(folder=str(tmp_path / "shared"))):
            with tracked(settings, tmp_path, tmp_path / "runs" / "r", TrainingCallback()) as tracking:
                tracking.on_fold_start(start())
        folders = [one[1].folder for one in tracker.calls if one[0] == "start"]
        assert folders == [tmp_path / "runs" / "r" / "tracking" / "wandb", tmp_path / "shared" / "wandb"]

    def test_trials_of_a_search_are_one_group_in_one_place(self, tracker, tmp_path):
        study = tmp_path / "runs" / "r-tune"
        with tracked(recipe(), tmp_path, study / "trials" / "0007", TrainingCallback()) as tracking:
            tracking.on_fold_start(start())
        record = tracker.calls[0][1]
        assert (record.labels, record.title) == (("r-tune", "0007"), "r-tune 0007 fold 0")
        assert record.folder == study / "tracking" / "wandb"

    def test_the_callback_behind_it_receives_everything(self, tracker, tmp_path):
        shown = Recorder()
        with tracked(recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking)
            tracking.on_message("a line")
        assert [len(shown.starts), len(shown.rows), len(shown.results), shown.messages] == [1, 2, 1, ["a line"]]

    def test_without_trackers_nothing_stands_in_between(self, tmp_path):
        shown = Recorder()
        with tracked(Recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            assert tracking is shown


class TestHowItEnds:
    def test_a_fold_that_fails(self, tracker, tmp_path):
        with tracked(recipe(), tmp_path, tmp_path / "r", TrainingCallback()) as tracking:
            tracking.on_fold_start(start())
            tracking.on_fold_end(FoldResult(fold=0, problem="out of memory"))
        assert [one for one in tracker.calls if one[0] != "start"] == [("close", "failed")]

    @pytest.mark.parametrize(
        ("end", "ended"),
        [(ValueError(), "failed"), (KeyboardInterrupt(), "interrupted"), (SystemExit(143), "interrupted")],
    )
    def test_a_run_that_is_broken_off(self, tracker, tmp_path, end, ended):
        with pytest.raises(type(end)):
            broken_off(tmp_path, TrainingCallback(), end)
        assert tracker.calls[-1] == ("close", ended)
        assert not read_states(tmp_path / "r" / "fold0" / "tracking.json")["wandb"].is_finished

    def test_a_reporter_that_ends_the_training_does_so_after_the_epoch_is_recorded(self, tracker, tmp_path):
        class Pruning(TrainingCallback):
            def on_epoch_end(self, row, is_best):
                raise LookupError("not promising")

        with pytest.raises(LookupError):
            broken_off(tmp_path, Pruning(), AssertionError("it was to end before"))
        assert called(tracker) == ["start", "epoch", "close"]
        assert tracker.calls[-1] == ("close", "stopped")  # a trial that is given up has not failed

    def test_an_interrupted_training_does_not_wait_for_long(self, tracker, tmp_path, monkeypatch):
        monkeypatch.setattr(fold_records, "_FAREWELL_SECONDS", 0.05)
        tracker.hangs_at = "close"
        with pytest.raises(SystemExit):
            broken_off(tmp_path, TrainingCallback(), SystemExit(143))


class TestFailures:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_tracker_that_fails_is_one_warning_and_not_called_again(self, tracker, tmp_path, method):
        tracker.fails_at, shown = method, Recorder()
        with tracked(recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking, 0)
            one_fold(tracking, 1)
        (line,) = shown.messages
        assert "tracker wandb is given up, the training continues: OSError: [Errno 28] No space left on device" in line
        assert len(shown.rows) == 4
        before = {"start": 0, "epoch": 1, "finish": 3, "close": 4}
        assert len(tracker.calls) == before[method]

    @pytest.mark.parametrize("method", METHODS)
    def test_a_tracker_that_hangs_is_waited_for_once(self, tracker, tmp_path, method):
        tracker.hangs_at, shown = method, Recorder()
        with tracked(recipe(wait_seconds=0.05), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking, 0)
            one_fold(tracking, 1)
        (line,) = shown.messages
        assert "no answer within 0.05 s" in line

    def test_the_others_continue(self, tracker, tmp_path, monkeypatch):
        other = type("Other", (Remembering,), {"calls": [], "fails_at": "epoch"})
        monkeypatch.setitem(reporter_module.TRACKERS, "mlflow", other)
        with tracked(recipe(trackers=("mlflow", "wandb")), tmp_path, tmp_path / "r", TrainingCallback()) as tracking:
            one_fold(tracking)
        assert called(other) == ["start"]
        assert called(tracker) == ["start", "epoch", "epoch", "finish", "close"]

    def test_it_is_seen_where_all_else_is_quiet(self, tracker, tmp_path, capsys):
        tracker.fails_at = "epoch"
        with TrainingProgress(quiet=True) as shown, tracked(recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking)
        assert capsys.readouterr().err.count("tracker wandb is given up") == 1

    @pytest.mark.parametrize("name", ["n" * 250, "r"])
    def test_pictures_that_cannot_be_drawn_are_left_out(self, tracker, tmp_path, monkeypatch, name):
        if name == "r":
            monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
        fold_dir = tmp_path / name / "fold0"
        fold_dir.mkdir(parents=True)
        with tracked(recipe(pictures=True), tmp_path, tmp_path / name, TrainingCallback()) as tracking:
            one_fold(tracking)
        assert tracker.calls[-2][1].pictures == []

    def test_notes_that_cannot_be_written_are_a_failure_too(self, tracker, tmp_path):
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "fold0").write_text("a file where the fold's folder should be")
        shown = Recorder()
        with tracked(recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            tracking.on_fold_start(start())
        assert any("tracker wandb is given up" in line for line in shown.messages)

    @pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "neptune"])
    def test_a_package_that_is_missing(self, tmp_path, monkeypatch, name):
        for module in [each for each in sys.modules if each.split(".")[0] == name]:
            monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, name, None)
        shown = Recorder()
        with tracked(recipe(trackers=(name,)), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking)
        (line,) = shown.messages
        assert f'pip install "birdinfer[{name}]"' in line

    @pytest.mark.parametrize(
        ("name", "variable"),
        [("wandb", "WANDB_API_KEY"), ("mlflow", "MLFLOW_TRACKING_URI"), ("neptune", "NEPTUNE_API_TOKEN")],
    )
    def test_online_without_an_account(self, tmp_path, monkeypatch, name, variable):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))  # where wandb login leaves its key
        shown = Recorder()
        with tracked(recipe(trackers=(name,), mode="online"), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking)
        (line,) = shown.messages
        assert f"tracking.mode: is online, {variable} is not set - set it" in line

    def test_the_run_ends_with_the_same_bits(self, tracker, plain_recipe, clips_dir, tmp_path):
        tracker.fails_at, shown = "epoch", Recorder()
        config = TrackingConfig(trackers=("wandb",))
        asked = msgspec.structs.replace(plain_recipe, tracking=config)
        train_run(Run(recipe=asked, data_dir=clips_dir, run_dir=tmp_path / "tracked", folds=(0,), device="cpu"), shown)
        train_run(
            Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=tmp_path / "plain", folds=(0,), device="cpu"),
        )
        assert_same_bits(tmp_path / "tracked" / "fold0", tmp_path / "plain" / "fold0")
        assert sum("is given up" in line for line in shown.messages) == 1


class TestResume:
    @pytest.fixture
    def finished(self, tracker, plain_recipe, clips_dir, tmp_path):
        """A run of one epoch without trackers."""
        train_run(
            Run(recipe=plain_recipe, data_dir=clips_dir, run_dir=tmp_path / "r", folds=(0,), device="cpu"),
        )
        return lambda **keys: train_run(
            Run(
                recipe=msgspec.structs.replace(plain_recipe, tracking=recipe(**keys).tracking),
                data_dir=clips_dir, run_dir=tmp_path / "r", folds=(0,), device="cpu", resume=True,
            ),
        )  # fmt: skip

    def test_a_run_that_is_finished_can_be_recorded_afterwards_once(self, finished, tracker, tmp_path):
        finished(pictures=True)
        assert called(tracker) == ["start", "epoch", "finish", "close"]
        outcome = tracker.calls[2][1]
        assert outcome.checkpoint == tmp_path / "r" / "fold0" / "best.safetensors"
        assert [path.name for path in outcome.pictures] == ["history.png", "species.png"]
        finished()
        assert len(tracker.calls) == 4

    def test_of_several_processes_one_records(self, finished, tracker, monkeypatch):
        monkeypatch.setattr(run_module, "from_environment", lambda: Distributed(rank=1))
        finished()
        assert tracker.calls == []

    def test_neither_checkpoint_nor_pictures_unless_asked(self, finished, tracker):
        finished(checkpoint=False)
        assert tracker.calls[2][1][1:] == ([], None)

    def test_without_matplotlib_there_are_no_pictures(self, finished, tracker, monkeypatch):
        monkeypatch.setitem(sys.modules, "birdinfer.plots.training", None)
        finished(pictures=True)
        assert tracker.calls[2][1].pictures == []

    def test_a_fold_that_is_started_again_is_another_record(self, tracker, tmp_path):
        for epochs in (2, 1):
            with tracked(recipe(), tmp_path, tmp_path / "r", TrainingCallback()) as tracking:
                one_fold(tracking, epochs=epochs)
        assert [one[2:] for one in tracker.calls if one[0] == "start"] == [("", 0), ("", 0)]
        assert [one[1] for one in tracker.calls if one[0] == "epoch"] == [1, 2, 1]

    def test_damaged_states_are_a_warning_and_replaced(self, tracker, tmp_path):
        path, shown = tmp_path / "r" / "fold0" / "tracking.json", Recorder()
        path.parent.mkdir(parents=True)
        path.write_text("{")
        with tracked(recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking)
        (line,) = shown.messages
        assert "trackers begin new records" in line
        assert read_states(path)["wandb"].epochs_logged == 2
