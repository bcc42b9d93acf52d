import os
import signal
import subprocess
import sys
import threading

import pytest

from birdinfer.system.threads import attended, left_behind


def test_attended_returns_and_raises_what_the_work_does():
    assert attended(lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(ZeroDivisionError):
        attended(lambda: 1 / 0)


def test_attended_waits_no_longer_than_its_check_wants():
    class Enough(Exception):
        pass

    def check():
        raise Enough

    hung = threading.Event()
    with pytest.raises(Enough):
        attended(hung.wait, check)
    (thread,) = left_behind()
    hung.set()
    thread.join()


def test_leave_ends_a_process_whose_call_does_not_return():
    """A daemon thread that Python would not wait for either stands for a call in a library that cannot be left."""
    code = (
        "import sys, threading\n"
        "from birdinfer.system.threads import leave, worker_thread\n"
        "worker_thread(threading.Event().wait).start()\n"
        "print('said', flush=False)\n"
        "leave(7)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (7, "said\n", "")


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="Windows has no pipes that break like this")
def test_leave_keeps_the_exit_code_although_nothing_takes_the_output():
    code = "from birdinfer.system.threads import leave\nprint('said', flush=False)\nleave(7)"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:  # noqa: PTH123
        run = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, env=buffered)
    assert (run.returncode, run.stderr) == (7, b"")
