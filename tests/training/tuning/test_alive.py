import os
import subprocess
import sys
import time

import msgspec
import pytest

from birdinfer.training.tuning import alive as room
from birdinfer.training.tuning.alive import SILENT_SECONDS, Alive, Identity, identity, machine, started


@pytest.fixture
def alive(tmp_path):
    with Alive(tmp_path) as alive:
        yield alive


def leave(folder, name, who, age_seconds=0.0):
    path = folder / "workers" / f"{name}.json"
    path.write_bytes(msgspec.json.encode(who))
    os.utime(path, (time.time() - age_seconds,) * 2)


def test_a_worker_lives_while_it_is_entered(tmp_path):
    with Alive(tmp_path) as one:
        assert (tmp_path / "workers" / f"{one.name}.json").exists()
        assert not one.is_dead(one.name)
    assert not (tmp_path / "workers" / f"{one.name}.json").exists()


def test_a_process_of_this_machine_is_dead_when_it_is_gone(alive, tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        leave(tmp_path, "other", Identity(machine(), process.pid, started(process.pid)), age_seconds=9e9)
        assert not alive.is_dead("other")
        process.kill()
        # Before anybody waited for it, it is a zombie: its id is taken, and it works no more.
        deadline = time.monotonic() + 10
        while not alive.is_dead("other") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert alive.is_dead("other")
    assert alive.is_dead("other")


def test_a_process_id_that_was_given_again_is_another_process(alive, tmp_path):
    leave(tmp_path, "other", Identity(machine(), os.getpid(), "12"))
    assert alive.is_dead("other")


def test_a_worker_elsewhere_is_dead_when_it_has_been_silent(alive, tmp_path):
    leave(tmp_path, "far", Identity("far away", 1, "1"), age_seconds=SILENT_SECONDS - 30)
    assert not alive.is_dead("far")
    leave(tmp_path, "far", Identity("far away", 1, "1"), age_seconds=SILENT_SECONDS + 30)
    assert alive.is_dead("far")


def test_whoever_left_in_good_order_is_dead_and_whoever_cannot_be_read_is_not(alive, tmp_path):
    assert alive.is_dead("nobody")
    (tmp_path / "workers" / "odd.json").write_text("{")
    assert not alive.is_dead("odd")
    alive.forget("odd")
    assert alive.is_dead("odd")


def test_the_file_is_touched_while_the_worker_works(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_TOUCH_SECONDS", 0.01)
    with Alive(tmp_path) as one:
        path = tmp_path / "workers" / f"{one.name}.json"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_a_process_knows_itself():
    assert identity() == identity()
    assert identity().pid == os.getpid()
    assert started(os.getpid()) == identity().started


def test_a_process_id_that_is_given_again_makes_another_worker(tmp_path):
    """A container that is started anew has its name and its process id again."""
    with Alive(tmp_path) as before:
        pass
    with Alive(tmp_path) as now:
        assert now.name != before.name
        assert now.is_dead(before.name)


def test_who_was_taken_for_dead_and_goes_on_can_be_told_from_the_dead(tmp_path):
    with Alive(tmp_path) as slow, Alive(tmp_path) as other:
        other.forget(slow.name)
        assert other.is_dead(slow.name)
        slow.is_dead(other.name)  # its next sign of life
        path = tmp_path / "workers" / f"{slow.name}.json"
        assert msgspec.json.decode(path.read_bytes(), type=Identity) == identity()
