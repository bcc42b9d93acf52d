import subprocess
import sys
import threading
import time

import msgspec
import pytest

from birdinfer.errors import OutputError
from birdinfer.training.tuning import lock as room
from birdinfer.training.tuning.alive import Identity, identity, machine, started
from birdinfer.training.tuning.lock import locked

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def left(tmp_path):
    """``left(who)``: a lock that somebody holds."""

    def write(who: Identity):
        path = tmp_path / "study.lock"
        path.write_bytes(msgspec.json.encode({"by": who, "token": "theirs"}))
        return path

    return write


def waited_seconds(folder):
    began = time.monotonic()
    with locked(folder):
        pass
    return time.monotonic() - began


def test_only_one_is_in_it(tmp_path):
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


def test_who_was_killed_in_it_is_not_waited_for(tmp_path, left):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        its = Identity(machine(), process.pid, started(process.pid) or "")
    left(its)
    assert waited_seconds(tmp_path) < 2
    assert not any(tmp_path.iterdir())


def test_who_is_silent_elsewhere_is_waited_for_a_while(tmp_path, left, monkeypatch):
    monkeypatch.setattr(room, "SILENT_SECONDS", 0.2)
    left(Identity("far away", 1, "1"))
    assert 0.2 <= waited_seconds(tmp_path) < 5


def test_who_is_killed_as_it_takes_it_is_waited_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SILENT_SECONDS", 0.2)
    (tmp_path / "study.lock").touch()
    assert 0.2 <= waited_seconds(tmp_path) < 5


def test_who_is_slow_elsewhere_does_not_lose_it(tmp_path, monkeypatch):
    """One that waits for the journal in it, say, while others wait for the lock itself."""
    monkeypatch.setattr(room, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(room, "_TOUCH_SECONDS", 0.05)
    far, entered = Identity("far away", 1, "1"), threading.Event()

    def enter():
        with locked(tmp_path):
            entered.set()

    other = threading.Thread(target=enter)
    with monkeypatch.context() as patch:
        patch.setattr(room, "identity", lambda: far)
        held = locked(tmp_path)
        held.__enter__()
    other.start()
    assert not entered.wait(0.6)
    held.__exit__(None, None, None)
    other.join()
    assert entered.is_set()


def test_who_was_taken_for_dead_leaves_it_to_the_next_one(tmp_path, left):
    with locked(tmp_path):
        path = left(identity())
    assert path.exists()


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    with pytest.raises(OutputError, match=r"study\.lock: cannot be written"), locked(tmp_path / "nowhere"):
        pass
    assert not any(tmp_path.iterdir())
