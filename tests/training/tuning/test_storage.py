import subprocess
import sys
import time

import msgspec
import pytest

from birdinfer.errors import ConfigError
from birdinfer.training.tuning.alive import Identity, machine, started
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


@pytest.mark.timeout(20)
def test_a_worker_that_was_killed_while_it_wrote_holds_nobody_up(tmp_path):
    study = open_study(tmp_path, "journal")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        its = Identity(machine(), process.pid, started(process.pid) or "")
    (tmp_path / "study.journal.lock").write_bytes(msgspec.json.encode({"by": its, "token": "x"}))
    began = time.monotonic()
    study.tell(study.ask(), 0.5)
    assert time.monotonic() - began < 5
