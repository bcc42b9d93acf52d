"""One process at a time in a run's folder."""

import errno
import fcntl
import subprocess
import sys
import threading
import time

import pytest

from birdinfer.errors import OutputError
from birdinfer.training.turns import one_at_a_time

HOLDS = """
import sys, time
from pathlib import Path
from birdinfer.training.turns import one_at_a_time
with one_at_a_time(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_no_two_are_inside_at_once(tmp_path):
    """Eight threads, each with a file of its own, as processes have; without the lock they would all be inside."""
    inside, most = [], []

    def enter():
        with one_at_a_time(tmp_path / "run"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert most == [1] * 8


def test_nothing_is_left_where_nothing_was_written(tmp_path):
    with one_at_a_time(tmp_path / "a" / "run"):
        assert (tmp_path / "a" / "run").is_dir()
    assert not (tmp_path / "a" / "run").exists()


def test_what_was_written_stays_without_a_lock_beside_it(tmp_path):
    with one_at_a_time(tmp_path):
        (tmp_path / "folds.csv").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["folds.csv"]


def test_it_waits_for_another_process_says_so_once_and_goes_on_when_that_is_killed(tmp_path):
    said, looks = [], []
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"

        def kill_at_the_third_look():
            looks.append(1)
            if len(looks) == 3:
                holder.kill()

        with one_at_a_time(tmp_path, said.append, kill_at_the_third_look):
            assert holder.wait(timeout=60) == -9
    assert said == [f"another process is at work in {tmp_path}, waiting for it"]


def test_it_can_be_stopped_while_it_waits(tmp_path):
    def stop():
        raise KeyboardInterrupt

    with one_at_a_time(tmp_path), pytest.raises(KeyboardInterrupt), one_at_a_time(tmp_path, between=stop):
        pass


def test_its_patience_may_end(tmp_path):
    said = []
    with (
        one_at_a_time(tmp_path),
        pytest.raises(OutputError, match="another process is at work there - wait for its end"),
        one_at_a_time(tmp_path, said.append, patience_seconds=0.3),
    ):
        pass
    assert len(said) == 1


def test_without_locks_nobody_waits(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with one_at_a_time(tmp_path), one_at_a_time(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"file/run: cannot be written \(Not a directory\)"),
        one_at_a_time(tmp_path / "file" / "run"),
    ):
        pass
