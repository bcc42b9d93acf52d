import subprocess
import sys

import pytest

from birdinfer.errors import ConfigError
from birdinfer.tuning.trials import STORAGES, open_study, storage_kind


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


def test_a_worker_that_was_killed_while_it_wrote_holds_no_other_up(tmp_path):
    study = open_study(tmp_path, "journal")
    source = (
        "import sys, time\nfrom pathlib import Path\nfrom birdinfer.tuning.trials import _JournalLock\n"
        "lock = _JournalLock(Path(sys.argv[1]))\nlock.acquire()\nprint('held', flush=True)\ntime.sleep(60)"
    )
    words = [sys.executable, "-c", source, str(tmp_path / "study.journal")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
    study.tell(study.ask(), 0.5)
    assert study.best_value == 0.5
