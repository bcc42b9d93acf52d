import threading
import time

import pytest

from birdinfer.errors import ConfigError
from birdinfer.training.tuning.lock import locked
from birdinfer.training.tuning.storage import STORAGES, open_study, storage_kind


@pytest.mark.parametrize("kind", STORAGES)
def test_a_study_is_found_again_by_another_worker(tmp_path, kind):
    assert storage_kind(tmp_path) is None
    trial = open_study(tmp_path, kind).ask()
    study = open_study(tmp_path, kind)
    study.tell(trial.number, 0.5)
    assert storage_kind(tmp_path) == kind
    assert [each.value for each in open_study(tmp_path, kind).get_trials()] == [0.5]
    assert study.best_value == 0.5


def test_a_line_cut_short_by_a_power_cut_costs_that_line_alone(tmp_path):
    study = open_study(tmp_path, "journal")
    study.tell(study.ask(), 0.5)
    path = tmp_path / "study.journal"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"study_')
    again = open_study(tmp_path, "journal")
    again.tell(again.ask(), 0.75)
    assert path.read_bytes().startswith(whole + b'{"op_code"')
    assert [each.value for each in open_study(tmp_path, "journal").get_trials()] == [0.5, 0.75]


@pytest.mark.parametrize(("kind", "name"), [("journal", "study.journal"), ("sqlite", "study.db")])
def test_a_damaged_file_is_one_line(tmp_path, kind, name):
    (tmp_path / name).write_bytes(b"no study at all\n" * 99)
    with pytest.raises(ConfigError, match=r"cannot be read .* - it is damaged") as refused:
        open_study(tmp_path, kind)
    assert "\n" not in str(refused.value)


def test_nothing_is_pickled(tmp_path):
    study = open_study(tmp_path, "journal")
    for _ in range(101):  # where Optuna would make a snapshot, which it pickles
        study.tell(study.ask(), 0.5)
    assert {path.name for path in tmp_path.iterdir()} == {"study.journal"}


def test_only_one_is_in_the_lock(tmp_path):
    order = []

    def enter():
        with locked(tmp_path):
            order.append("other")

    other = threading.Thread(target=enter)
    with locked(tmp_path):
        other.start()
        time.sleep(0.1)
        order.append("first")
    other.join()
    assert order == ["first", "other"]
    assert not any(tmp_path.iterdir())
