"""What stands between a training and its trackers, shown with trackers that only remember, fail or hang."""

import sys
import tempfile
import time
from threading import Event

import msgspec
import pytest
from one_fold import Recorder, assert_same_bits

from birdinfer.cli.training_progress import TrainingProgress
from birdinfer.training import run as run_module
from birdinfer.training.checkpoint import EpochRow
from birdinfer.training.plan import Run
from birdinfer.training.processes import Processes
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.tracking import TrackingConfig
from birdinfer.training.report import FoldResult, FoldStart, Silent
from birdinfer.training.run import train
from birdinfer.training.tracking import fold_records
from birdinfer.training.tracking import reporter as reporter_module
from birdinfer.training.tracking.notes import read_notes
from birdinfer.training.tracking.reporter import tracked

METHODS = ("start", "epoch", "finish", "close")


class Remembering:
    """A tracker that keeps what it is told in a list for all to see."""

    told: list
    release: Event
    fails_at, hangs_at = "", ""

    def _hear(self, method, *what):
        if method == self.fails_at:
            raise OSError(28, "No space left on device")
        if method == self.hangs_at:
            self.release.wait()
        self.told.append((method, *what))

    def start(self, record, run_id, epochs_told):
        self._hear("start", record, run_id, epochs_told)
        return run_id or f"run{sum(one[0] == 'start' for one in self.told)}"

    def epoch(self, epoch, metrics):
        self._hear("epoch", epoch, metrics)

    def finish(self, outcome):
        self._hear("finish", outcome)

    def close(self, ended):
        self._hear("close", ended)


@pytest.fixture
def tracker(monkeypatch):
    """The class that stands for wandb; ``tracker.told`` is what it has heard."""
    made = type("Made", (Remembering,), {"told": [], "release": Event()})
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
    return FoldStart(fold, 16, 8, 3, 2, first_step, 8, "fp32")


def one_fold(tracking, fold=0, epochs=2):
    tracking.start(start(fold))
    for epoch in range(1, epochs + 1):
        tracking.epoch(row(epoch), True)
    tracking.finish(FoldResult(fold, macro_auc=0.75, best_epoch=2, seconds=4.0))


def broken_off(folder, shown, end):
    with tracked(recipe(), folder, folder / "r", shown) as tracking:
        tracking.start(start())
        tracking.epoch(row(1), True)
        raise end


def heard(tracker):
    return [one[0] for one in tracker.told]


class TestWhatIsTold:
    def test_a_fold_from_start_to_end(self, tracker, tmp_path):
        with tracked(recipe(), tmp_path / "data", tmp_path / "runs" / "r", Silent()) as tracking:
            one_fold(tracking)
        assert heard(tracker) == ["start", "epoch", "epoch", "finish", "close"]
        assert tracker.told[-1] == ("close", "finished")

    def test_an_epoch_is_its_columns_of_history_csv_without_what_is_unknown(self, tracker, tmp_path):
        with tracked(recipe(), tmp_path, tmp_path / "r", Silent()) as tracking:
            one_fold(tracking, epochs=1)
        assert tracker.told[1] == ("epoch", 1, {
            "train_loss": 1.0, "val_macro_auc": 0.5, "val_padded_cmap": 0.5, "val_top1": 0.5, "lr": 0.1,
            "seconds": 2.0, "wait_share": 0.25,
        })  # fmt: skip

    def test_figures_of_a_fold_without_what_is_unknown(self, tracker, tmp_path):
        with tracked(recipe(), tmp_path, tmp_path / "r", Silent()) as tracking:
            one_fold(tracking)
        figures = {"final_macro_auc": 0.75, "final_best_epoch": 2.0, "final_seconds": 4.0}
        assert tracker.told[-2][1].figures == figures

    def test_parameters_are_the_flat_recipe_and_what_else_decided(self, tracker, tmp_path):
        with tracked(recipe(), tmp_path / "data", tmp_path / "r", Silent()) as tracking:
            one_fold(tracking, fold=2)
        record = tracker.told[0][1]
        told = record.parameters
        assert (told["optim.lr"], told["fold"], told["n_training_clips"], told["precision"]) == (1e-3, 2, 16, "fp32")
        assert told["data_dir"] == str(tmp_path / "data")
        assert told["data.group_by"] == '["author", "recording"]'
        assert record.title == "r fold 2"

    def test_records_lie_in_the_run_unless_a_folder_is_named(self, tracker, tmp_path):
        for settings in (recipe(), recipe(folder=str(tmp_path / "shared"))):
            with tracked(settings, tmp_path, tmp_path / "runs" / "r", Silent()) as tracking:
                tracking.start(start())
        folders = [one[1].folder for one in tracker.told if one[0] == "start"]
        assert folders == [tmp_path / "runs" / "r" / "tracking" / "wandb", tmp_path / "shared" / "wandb"]

    def test_trials_of_a_search_are_one_group_in_one_place(self, tracker, tmp_path):
        study = tmp_path / "runs" / "r-tune"
        with tracked(recipe(), tmp_path, study / "trials" / "0007", Silent()) as tracking:
            tracking.start(start())
        record = tracker.told[0][1]
        assert (record.labels, record.title) == (("r-tune", "0007"), "r-tune 0007 fold 0")
        assert record.folder == study / "tracking" / "wandb"

    def test_the_reporter_behind_it_is_told_everything(self, tracker, tmp_path):
        shown = Recorder()
        with tracked(recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking)
            tracking.message("a line")
        assert [len(shown.starts), len(shown.rows), len(shown.results), shown.messages] == [1, 2, 1, ["a line"]]

    def test_without_trackers_nothing_stands_in_between(self, tmp_path):
        shown = Recorder()
        with tracked(Recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            assert tracking is shown


class TestHowItEnds:
    def test_a_fold_that_fails(self, tracker, tmp_path):
        with tracked(recipe(), tmp_path, tmp_path / "r", Silent()) as tracking:
            tracking.start(start())
            tracking.finish(FoldResult(0, "out of memory"))
        assert [one for one in tracker.told if one[0] != "start"] == [("close", "failed")]

    @pytest.mark.parametrize(
        ("end", "ended"),
        [(ValueError(), "failed"), (KeyboardInterrupt(), "interrupted"), (SystemExit(143), "interrupted")],
    )
    def test_a_run_that_is_broken_off(self, tracker, tmp_path, end, ended):
        with pytest.raises(type(end)):
            broken_off(tmp_path, Silent(), end)
        assert tracker.told[-1] == ("close", ended)
        assert not read_notes(tmp_path / "r" / "fold0" / "tracking.json")["wandb"].is_finished

    def test_a_reporter_that_ends_the_training_does_so_after_the_epoch_is_recorded(self, tracker, tmp_path):
        class Pruning(Silent):
            def epoch(self, row, is_best):
                raise LookupError("not promising")

        with pytest.raises(LookupError):
            broken_off(tmp_path, Pruning(), AssertionError("it was to end before"))
        assert heard(tracker) == ["start", "epoch", "close"]
        assert tracker.told[-1] == ("close", "stopped")  # a trial that is given up has not failed

    def test_who_is_told_to_leave_does_not_wait_for_long(self, tracker, tmp_path, monkeypatch):
        monkeypatch.setattr(fold_records, "_FAREWELL_SECONDS", 0.05)
        tracker.hangs_at, began = "close", time.monotonic()
        with pytest.raises(SystemExit):
            broken_off(tmp_path, Silent(), SystemExit(143))
        assert time.monotonic() - began < 10


class TestFailures:
    @pytest.mark.parametrize("method", METHODS)
    def test_a_tracker_that_fails_is_told_about_once_and_called_no_more(self, tracker, tmp_path, method):
        tracker.fails_at, shown = method, Recorder()
        with tracked(recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking, 0)
            one_fold(tracking, 1)
        (line,) = shown.messages
        assert "tracker wandb is given up, the training goes on: OSError: [Errno 28] No space left on device" in line
        assert len(shown.rows) == 4
        before = {"start": 0, "epoch": 1, "finish": 3, "close": 4}
        assert len(tracker.told) == before[method]

    @pytest.mark.parametrize("method", METHODS)
    def test_a_tracker_that_hangs_is_waited_for_once(self, tracker, tmp_path, method):
        tracker.hangs_at, shown, began = method, Recorder(), time.monotonic()
        with tracked(recipe(wait_seconds=0.05), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking, 0)
            one_fold(tracking, 1)
        assert time.monotonic() - began < 10
        (line,) = shown.messages
        assert "no answer within 0.05 s" in line

    def test_the_others_go_on(self, tracker, tmp_path, monkeypatch):
        other = type("Other", (Remembering,), {"told": [], "fails_at": "epoch"})
        monkeypatch.setitem(reporter_module.TRACKERS, "mlflow", other)
        with tracked(recipe(trackers=("mlflow", "wandb")), tmp_path, tmp_path / "r", Silent()) as tracking:
            one_fold(tracking)
        assert heard(other) == ["start"]
        assert heard(tracker) == ["start", "epoch", "epoch", "finish", "close"]

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
        with tracked(recipe(pictures=True), tmp_path, tmp_path / name, Silent()) as tracking:
            one_fold(tracking)
        assert tracker.told[-2][1].pictures == []

    def test_notes_that_cannot_be_written_are_a_failure_too(self, tracker, tmp_path):
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "fold0").write_text("a file where the fold's folder should be")
        shown = Recorder()
        with tracked(recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            tracking.start(start())
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
        train(Run(asked, clips_dir, tmp_path / "tracked", (0,), "cpu"), shown)
        train(Run(plain_recipe, clips_dir, tmp_path / "plain", (0,), "cpu"), Silent())
        assert_same_bits(tmp_path / "tracked" / "fold0", tmp_path / "plain" / "fold0")
        assert sum("is given up" in line for line in shown.messages) == 1


class TestResume:
    @pytest.fixture
    def finished(self, tracker, plain_recipe, clips_dir, tmp_path):
        """A run of one epoch that nobody recorded."""
        train(Run(plain_recipe, clips_dir, tmp_path / "r", (0,), "cpu"), Silent())
        return lambda **keys: train(
            Run(
                msgspec.structs.replace(plain_recipe, tracking=recipe(**keys).tracking),
                clips_dir, tmp_path / "r", (0,), "cpu", resume=True,
            ),
            Silent(),
        )  # fmt: skip

    def test_a_run_that_is_finished_can_be_recorded_afterwards_once(self, finished, tracker, tmp_path):
        finished(pictures=True)
        assert heard(tracker) == ["start", "epoch", "finish", "close"]
        outcome = tracker.told[2][1]
        assert outcome.checkpoint == tmp_path / "r" / "fold0" / "best.safetensors"
        assert [path.name for path in outcome.pictures] == ["history.png", "species.png"]
        finished()
        assert len(tracker.told) == 4

    def test_of_several_processes_one_records(self, finished, tracker, monkeypatch):
        monkeypatch.setattr(run_module, "from_environment", lambda: Processes(rank=1))
        finished()
        assert tracker.told == []

    def test_neither_checkpoint_nor_pictures_unless_asked(self, finished, tracker):
        finished(checkpoint=False)
        assert tracker.told[2][1][1:] == ([], None)

    def test_without_matplotlib_there_are_no_pictures(self, finished, tracker, monkeypatch):
        monkeypatch.setitem(sys.modules, "birdinfer.report.runs", None)
        finished(pictures=True)
        assert tracker.told[2][1].pictures == []

    def test_a_fold_begun_anew_is_another_record(self, tracker, tmp_path):
        for epochs in (2, 1):
            with tracked(recipe(), tmp_path, tmp_path / "r", Silent()) as tracking:
                one_fold(tracking, epochs=epochs)
        assert [one[2:] for one in tracker.told if one[0] == "start"] == [("", 0), ("", 0)]
        assert [one[1] for one in tracker.told if one[0] == "epoch"] == [1, 2, 1]

    def test_damaged_notes_are_told_and_replaced(self, tracker, tmp_path):
        path, shown = tmp_path / "r" / "fold0" / "tracking.json", Recorder()
        path.parent.mkdir(parents=True)
        path.write_text("{")
        with tracked(recipe(), tmp_path, tmp_path / "r", shown) as tracking:
            one_fold(tracking)
        (line,) = shown.messages
        assert "trackers begin new records" in line
        assert read_notes(path)["wandb"].epochs_told == 2
