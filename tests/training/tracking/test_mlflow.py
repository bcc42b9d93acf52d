"""MLflow's store, used as folds do that are trained side by side, or resumed."""

import fcntl
from concurrent.futures import ThreadPoolExecutor

import pytest

from birdinfer.errors import ConfigError
from birdinfer.training.tracking.base import FoldRecord, Outcome
from birdinfer.training.tracking.mlflow import DATABASE, MLflow

# A folder with signs that mean something in a URI.
FOLDER = "a run #1 of 50 %"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow") / FOLDER / "mlflow"


def record(folder, fold):
    return FoldRecord(
        fold=fold, labels=("tiny",), parameters={"optim.lr": 1e-3, "long": "x" * 10_000}, folder=folder,
        project="birds", is_online=False, wait_seconds=60.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ids(folder):
    """Of two folds that begin at once in a folder that is not there yet."""

    def run(fold):
        tracker = MLflow()
        run_id = tracker.start(record(folder, fold), "", 0)
        for epoch in (1, 2):
            tracker.epoch(epoch, {"train_loss": 1.0 / epoch + fold, "lr": 0.1})
        tracker.close("interrupted")
        return run_id

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, (0, 1)))


@pytest.fixture(scope="module")
def store(folder, ids):
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{folder / DATABASE}")


def test_folds_side_by_side_share_one_experiment(store, ids):
    (experiment,) = (one for one in store.search_experiments() if one.name == "birds")
    runs = store.search_runs([experiment.experiment_id])
    assert {run.info.run_id for run in runs} == set(ids)
    assert {run.info.run_name for run in runs} == {"tiny fold 0", "tiny fold 1"}


@pytest.mark.parametrize("fold", [0, 1])
def test_each_has_its_own_curve(store, ids, fold):
    logged = [(one.step, one.value) for one in store.get_metric_history(ids[fold], "train_loss")]
    assert logged == [(1, 1.0 + fold), (2, 0.5 + fold)]


def test_a_folder_that_no_address_can_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has a \?, where a database's address ends - name a tracking.folder"):
        MLflow().start(record(tmp_path / "really?" / "mlflow", 0), "", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_parameter_that_is_too_long_is_cut(store, ids):
    assert store.get_run(ids[0]).data.params == {"optim.lr": "0.001", "long": "x" * 6_000}


def test_a_run_continues_and_no_epoch_is_there_twice(store, ids, folder, tmp_path):
    tracker = MLflow()
    assert store.get_run(ids[0]).info.status == "KILLED"
    assert tracker.start(record(folder, 0), ids[0], 1) == ids[0]
    assert store.get_run(ids[0]).info.status == "RUNNING"
    # Epoch 2 was logged, but a kill came before its state was saved.
    for epoch in (2, 3):
        tracker.epoch(epoch, {"train_loss": 1.0 / epoch, "lr": 0.1})
    (tmp_path / "best.safetensors").write_bytes(b"weights")
    tracker.finish(Outcome({"final_macro_auc": 0.5}, [], tmp_path / "best.safetensors"))
    tracker.close("finished")
    assert [one.step for one in store.get_metric_history(ids[0], "train_loss")] == [1, 2, 3]
    assert store.get_run(ids[0]).info.status == "FINISHED"
    (kept,) = (folder / "artifacts").glob("*/artifacts/checkpoint/best.safetensors")
    assert kept.read_bytes() == b"weights"


def test_a_run_that_the_store_does_not_know_is_begun(store, folder):
    tracker = MLflow()
    begun = tracker.start(record(folder, 4), "0" * 32, 7)
    tracker.close("failed")
    assert begun != "0" * 32
    assert store.get_run(begun).info.status == "FAILED"


def test_a_disk_without_locks_will_do(store, folder, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    tracker = MLflow()
    begun = tracker.start(record(folder, 5), "", 0)
    tracker.close("stopped")
    assert store.get_run(begun).info.status == "FINISHED"
