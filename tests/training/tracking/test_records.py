"""What each tracker has on disk after a run that was killed and resumed, read back with the tracker's own reader."""

import json
import logging
import shutil

import pytest
from one_fold import assert_same_bits
from wandb_file import records

from birdinfer.plots.training import draw_run
from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.run import Run, train_run
from birdinfer.training.tracking.reporter import read_states

pytestmark = pytest.mark.slow  # a training with four trackers, killed and resumed

COLUMNS = ("train_loss", "val_loss", "val_macro_auc", "val_padded_cmap", "val_top1", "lr", "seconds", "wait_share")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def metrics(tracked_run):
    """fold0/metrics.json, what the run itself says of the fold."""
    return json.loads((tracked_run.fold_dir / "metrics.json").read_text())


@pytest.fixture(scope="module")
def events(tracked_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "images": 0, "tensors": 0}
    folder = tracked_run.tracking / "tensorboard" / "tiny" / "fold0"
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


@pytest.fixture(scope="module")
def files(tracked_run):
    """One of before the kill, one of after it."""
    return sorted((tracked_run.tracking / "wandb").glob("offline-run-*/*.wandb"))


@pytest.fixture(scope="module")
def stored(tracked_run):
    """A client of the store, and the run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked_run.tracking / 'mlflow' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("birdinfer").experiment_id])
    return client, run


@pytest.fixture(scope="module")
def operations(tracked_run):
    """What the client would send, of the run before the kill and of the one after it."""
    from neptune.internal.operation import Operation

    folders = sorted((tracked_run.tracking / "neptune").glob(".neptune/offline/run__*"), key=_made)
    assert len(folders) == 2
    lines = [line for folder in folders for path in folder.glob("data-*.log") for line in path.read_text().splitlines()]
    return [Operation.from_dict(json.loads(line)["obj"]) for line in lines]


class TestTheRun:
    def test_it_was_killed_between_an_epoch_and_its_record(self, tracked_run):
        notes = json.loads(tracked_run.notes_when_killed)
        assert {name: note["epochs_logged"] for name, note in notes.items()} == dict.fromkeys(
            tracked_run.recipe.tracking.trackers, 1
        )

    def test_it_continues_in_the_same_records(self, tracked_run):
        before = json.loads(tracked_run.notes_when_killed)
        after = read_states(tracked_run.fold_dir / "tracking.json")
        assert {name: note.run_id for name, note in after.items()} == {
            name: note["run_id"] for name, note in before.items()
        }
        assert {(note.epochs_logged, note.is_finished) for note in after.values()} == {(3, True)}

    def test_it_ends_with_the_bits_of_a_run_without_trackers(self, tracked_run, short_recipe, clips_dir, tmp_path):
        train_run(Run(recipe=short_recipe, data_dir=clips_dir, run_dir=tmp_path, folds=(0,), device="cpu"))
        assert_same_bits(tmp_path / "fold0", tracked_run.fold_dir)
        assert not (tmp_path / "fold0" / "tracking.json").exists()
        assert not (tmp_path / "tracking").exists()

    def test_no_tracker_says_a_word(self, tracked_run):
        assert tracked_run.printed == ""
        assert not [line for line in tracked_run.messages if "track" in line]

    def test_nothing_but_records_is_added_to_the_run(self, tracked_run):
        assert {path.name for path in tracked_run.run_dir.iterdir()} == {
            "fold0",
            "folds.csv",
            "logs",
            "recipe.toml",
            "tracking",
        }
        assert {path.name for path in tracked_run.tracking.iterdir()} == {"tensorboard", "wandb", "mlflow", "neptune"}


class TestTensorBoard:
    def test_weights_of_an_epoch_as_histograms(self, events, tracked_run):
        from tensorboard.util.tensor_util import make_ndarray

        names = [name for name in events.Tags()["tensors"] if name.startswith("weights/")]
        assert names
        # The second epoch was recorded only after its weights had been replaced.
        assert all([event.step for event in events.Tensors(name)] == [1, 3] for name in names)
        last = load_checkpoint(tracked_run.fold_dir / "last.safetensors")
        weights = last.weights("ema.")[names[0].removeprefix("weights/")]
        buckets = make_ndarray(events.Tensors(names[0])[-1].tensor_proto)  # [buckets, left, right and count]
        assert buckets[:, 2].sum() == weights.numel()
        assert buckets[0, 0] == pytest.approx(weights.min().item(), rel=1e-6)

    @pytest.mark.parametrize("column", COLUMNS)
    def test_every_epoch_once(self, events, tracked_run, column):
        logged = [(event.step, event.value) for event in events.Scalars(column)]
        assert logged == [(epoch, pytest.approx(value, rel=1e-6)) for epoch, value in tracked_run.history(column)]

    def test_what_was_logged_before_the_kill_is_still_there(self, tracked_run):
        assert len(list(tracked_run.tracking.glob("tensorboard/tiny/fold0/events.out.tfevents.*"))) == 2

    def test_parameters_as_text_and_as_hyperparameters(self, events):
        from tensorboard.plugins.hparams import metadata

        text = events.Tensors("parameters/text_summary")[0].tensor_proto.string_val[0].decode()
        assert "| optim.lr | 0.003 |\n" in text
        content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        known = metadata.parse_session_start_info_plugin_data(content).hparams
        assert known["optim.lr"].number_value == 3e-3
        assert known["model.backbone"].string_value == "test_efficientnet"
        assert (known["fold"].number_value, known["model.pretrained"].bool_value) == (0, False)

    def test_figures_pictures_and_where_the_checkpoint_lies(self, events, tracked_run, metrics):
        (figure,) = events.Scalars("final_macro_auc")
        assert (figure.step, figure.value) == (3, pytest.approx(metrics["macro_auc"], rel=1e-6))
        (picture,) = events.Images("pictures/species")
        assert picture.encoded_image_string.startswith(PNG)
        assert (picture.width, picture.height) == _size(picture.encoded_image_string)
        text = events.Tensors("checkpoint/text_summary")[0].tensor_proto.string_val[0].decode()
        assert str(tracked_run.fold_dir / "best.safetensors") in text


class TestWandB:
    @pytest.mark.parametrize("column", COLUMNS)
    def test_every_epoch_once(self, files, tracked_run, column):
        rows = [_row(one) for path in files for one in records(path, "history")]
        logged = [(row["_step"], row[column]) for row in rows if column in row]
        assert logged == tracked_run.history(column)

    def test_both_files_are_one_run_of_a_group(self, files):
        runs = [records(path, "run")[0] for path in files]
        assert len({run.run_id for run in runs}) == 1
        assert [(run.run_group, run.display_name, run.project) for run in runs] == [
            ("tiny", "tiny fold 0", "birdinfer")
        ] * 2

    def test_parameters(self, files):
        config = {item.key: json.loads(item.value_json) for item in records(files[0], "run")[0].config.update}
        assert (config["optim.lr"], config["fold"], config["augment.roll_probability"]) == (3e-3, 0, 0.0)
        assert set(config) >= {"data_dir", "versions.torch", "n_training_clips", "precision"}

    def test_figures_pictures_and_checkpoint(self, files, tracked_run, metrics):
        summary = {item.key: item.value_json for one in records(files[1], "summary") for item in one.update}
        assert json.loads(summary["final_macro_auc"]) == metrics["macro_auc"]
        pictures = sorted(files[1].parent.glob("files/media/images/pictures/*.png"))
        assert [path.name.split("_")[0] for path in pictures] == ["history", "species"]
        (artifact,) = records(files[1], "artifact")
        (content,) = artifact.manifest.contents
        assert (artifact.type, artifact.name, content.path) == ("model", "tiny-fold0", "best.safetensors")
        assert content.size == (tracked_run.fold_dir / "best.safetensors").stat().st_size

    def test_its_log_which_cannot_be_written_on_a_full_disk_is_off(self, files):
        assert not logging.getLogger("wandb.sdk").isEnabledFor(logging.CRITICAL)

    def test_nothing_is_left_in_the_users_home_but_in_a_cache_beside_the_records(self, tracked_run):
        # Its own artefact folders are under WANDB_DATA_DIR: a checkpoint is not copied there.
        cached = [path for path in (tracked_run.tracking / "wandb" / "cache").rglob("*") if path.is_file()]
        assert all(path.suffix == ".log" for path in cached)


class TestMLflow:
    @pytest.mark.parametrize("column", COLUMNS)
    def test_every_epoch_once(self, stored, tracked_run, column):
        client, run = stored
        logged = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, column)]
        assert logged == tracked_run.history(column)

    def test_parameters_and_tags(self, stored):
        _, run = stored
        assert (run.data.params["optim.lr"], run.data.params["data.group_by"]) == ("0.003", '["author", "recording"]')
        assert run.info.run_name == "tiny fold 0"
        assert (run.data.tags["birdinfer.group"], run.data.tags["birdinfer.fold"]) == ("tiny", "0")
        assert run.info.status == "FINISHED"

    def test_figures_pictures_and_checkpoint(self, stored, tracked_run, metrics, tmp_path):
        client, run = stored
        assert run.data.metrics["final_macro_auc"] == metrics["macro_auc"]
        kept = client.download_artifacts(run.info.run_id, "checkpoint/best.safetensors", str(tmp_path))
        assert (tmp_path / kept).read_bytes() == (tracked_run.fold_dir / "best.safetensors").read_bytes()
        names = {file.path for file in client.list_artifacts(run.info.run_id, "pictures")}
        assert names == {"pictures/history.png", "pictures/species.png"}


class TestNeptune:
    @pytest.mark.parametrize("column", COLUMNS)
    def test_every_epoch_once(self, operations, tracked_run, column):
        logged = [(one.step, one.value) for each in _at(operations, "metrics", column) for one in each.values]
        assert logged == tracked_run.history(column)

    def test_both_folders_are_one_run(self, operations):
        assert {one.value for one in _at(operations, "sys", "name")} == {"tiny fold 0"}
        assert all(one.values == {"tiny"} for one in _at(operations, "sys", "tags"))

    def test_parameters(self, operations):
        assert _at(operations, "parameters", "optim.lr")[-1].value == 3e-3
        assert _at(operations, "parameters", "model.backbone")[-1].value == "test_efficientnet"

    def test_figures_pictures_and_checkpoint(self, operations, tracked_run, metrics):
        assert _at(operations, "figures", "final_macro_auc")[0].value == metrics["macro_auc"]
        (checkpoint,) = _at(operations, "checkpoint", "best")
        assert checkpoint.file_path == str(tracked_run.fold_dir / "best.safetensors")
        (species,) = _at(operations, "pictures", "species")
        (kept,) = tracked_run.tracking.glob(f"neptune/.neptune/offline/*/upload_path/{species.tmp_file_name}")
        assert kept.read_bytes().startswith(PNG)
        assert _at(operations, "ended")[-1].value == "finished"


def test_pictures_of_the_whole_run_are_drawn_beside_the_records(tracked_run, tmp_path):
    """The folder of records is no fold, and disturbs no reader of the run."""
    copy = shutil.copytree(tracked_run.run_dir, tmp_path / "run")  # other tests list what the run itself holds
    assert [path.name for path in draw_run(copy)] == ["history.png", "species.png"]


def _size(png):
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])


def _row(history):
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in history.item}


def _made(folder):
    return json.loads((folder / "metadata.json").read_text())["createdAt"]


def _at(operations, *path):
    return [one for one in operations if one.path == list(path)]
