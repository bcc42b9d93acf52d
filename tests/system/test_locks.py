"""One process at a time in a folder, and leases that a dead process loses."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import pytest

from birdinfer.errors import OutputError
from birdinfer.system import locks
from birdinfer.system.locks import Lease, locked, try_lock

HOLDS = """
import sys, time
from pathlib import Path
from birdinfer.system.locks import Lease, locked
held = {take}
held.take() if isinstance(held, Lease) else held.__enter__()
print("held", flush=True)
time.sleep(60)
"""


def holder(take: str) -> subprocess.Popen:
    """A process that holds a lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS.format(take=take)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


class TestLocked:
    def test_no_two_are_inside_at_once(self, tmp_path):
        """Eight threads, each with a file of its own, as processes have; without the lock they would all be inside."""
        inside, most = [], []

        def enter():
            with locked(tmp_path / "run"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.01)
                inside.pop()

        threads = [threading.Thread(target=enter) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1] * 8

    def test_leaves_no_file_behind_and_makes_no_folder(self, tmp_path):
        with locked(tmp_path / "a" / "run"):
            assert [path.name for path in (tmp_path / "a").iterdir()] == [".run.lock"]
        assert list((tmp_path / "a").iterdir()) == []

    def test_waits_says_so_once_and_continues_when_the_holder_is_killed(self, tmp_path):
        said, looks = [], []
        with holder(f"locked(Path({str(tmp_path / 'run')!r}))") as process:

            def kill_at_the_third_look():
                looks.append(1)
                if len(looks) == 3:
                    process.kill()

            with locked(tmp_path / "run", said.append, kill_at_the_third_look):
                assert process.wait() == -signal.SIGKILL
        assert said == [f"another process is at work in {tmp_path / 'run'}, waiting for it"]

    def test_can_be_stopped_while_it_waits(self, tmp_path):
        def stop():
            raise KeyboardInterrupt

        with locked(tmp_path), pytest.raises(KeyboardInterrupt), locked(tmp_path, check_stop=stop):
            pass

    def test_gives_up_after_its_patience(self, tmp_path):
        said = []
        with (
            locked(tmp_path),
            pytest.raises(OutputError, match="another process is at work there - wait for its end"),
            locked(tmp_path, said.append, patience_seconds=0.1),
        ):
            pass
        assert len(said) == 1

    def test_uses_a_file_with_its_owner_where_the_disk_has_no_locks(self, tmp_path, monkeypatch):
        def no_locks(self, **_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
        with locked(tmp_path), pytest.raises(OutputError), locked(tmp_path, patience_seconds=0):
            pass

    def test_names_a_file_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        with (
            pytest.raises(OutputError, match=r"cannot be written \(Not a directory|File exists\)"),
            locked(tmp_path / "file" / "run"),
        ):
            pass


def test_try_lock_does_not_wait(tmp_path):
    path = tmp_path / "lock"
    with try_lock(path) as is_ours, try_lock(path) as is_anothers:
        assert (is_ours, is_anothers) == (True, False)
    with try_lock(path) as is_ours:
        assert is_ours


class TestLease:
    def test_is_one_holders_until_it_is_released(self, tmp_path):
        mine, other = Lease(tmp_path / "trial"), Lease(tmp_path / "trial")
        assert mine.take()
        assert not other.take()
        mine.release()
        mine.release()
        assert other.take()
        assert not mine.is_lost
        other.release()

    def test_a_killed_holder_of_this_machine_is_not_waited_for(self, tmp_path):
        path = tmp_path / "trial"
        with holder(f"Lease(Path({str(path)!r}))") as process:
            assert not Lease(path).take()
            process.kill()
        mine = Lease(path)
        assert mine.take()
        mine.release()
        assert not any(tmp_path.iterdir())

    def test_a_silent_holder_elsewhere_is_waited_for_until_its_time_is_over(self, tmp_path, monkeypatch):
        monkeypatch.setattr(locks, "LEASE_SECONDS", 0.4)
        path, other = tmp_path / "trial", Lease(tmp_path / "trial")
        assert other.take()
        marker = path.read_text().replace(f"pid={os.getpid()}", "pid=1")
        other.release()
        path.write_text("\n".join("host=elsewhere" if line.startswith("host=") else line
                                  for line in marker.splitlines()) + "\n")  # fmt: skip
        mine = Lease(path)
        assert not mine.take()
        assert mine.take(wait=True)
        mine.release()

    def test_a_holder_that_works_on_keeps_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(locks, "LEASE_SECONDS", 0.3)
        mine, other, entered = Lease(tmp_path / "trial"), Lease(tmp_path / "trial"), threading.Event()

        def enter():
            with other:
                entered.set()

        with mine:
            thread = threading.Thread(target=enter)
            thread.start()
            assert not entered.wait(0.9)
        thread.join()
        assert entered.is_set()

    def test_a_holder_notices_that_it_was_taken(self, tmp_path, monkeypatch):
        monkeypatch.setattr(locks, "LEASE_SECONDS", 0.2)
        mine = Lease(tmp_path / "trial")
        assert mine.take()
        Path(tmp_path / "trial").unlink()
        while not mine.is_lost:
            time.sleep(0.01)
        mine.release()

    def test_a_folder_that_cannot_be_written_to_is_named(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=r"file/trial: cannot be written"):
            Lease(tmp_path / "file" / "trial").take()
