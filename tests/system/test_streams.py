import contextlib
import errno
import io
import os
import subprocess
import sys

import pytest

from birdinfer.system.streams import LastingStream, lasting_streams


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, "is broken")

    def flush(self):
        raise OSError(self.number, "is broken")


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_what_a_stream_does_not_take_is_dropped_and_known(monkeypatch, number):
    out, err = Broken(number), Broken(number)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with lasting_streams() as lasting:
        print("a", flush=True)
        print("b", file=sys.stderr, flush=True)
        assert lasting.problem.errno == number
        assert sys.stdout.isatty() is False
    assert (sys.stdout, sys.stderr) == (out, err)


def test_streams_that_were_closed_before_the_start_have_a_place(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with lasting_streams() as lasting:
        print("a")
        print("b", file=sys.stderr)
    assert lasting.problem is None
    sys.stdout.close()
    sys.stderr.close()


def test_a_name_that_the_screen_cannot_show_is_escaped(tmp_path):
    printed = (
        "from birdinfer.system.streams import lasting_streams\nwith lasting_streams():\n    print('caf\\udce9 \\u266a')"
    )
    done = subprocess.run(
        [sys.executable, "-c", printed], capture_output=True, check=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert done.stdout == b"caf\\udce9 \\u266a\n"


@pytest.mark.skipif(os.name != "posix", reason="only there a stream shows whether it takes something")
def test_a_receiver_that_takes_nothing_is_not_waited_for():
    """A terminal that was stopped: what it would not show is dropped, what comes after it continues is shown."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    with open(writing, "w") as file:  # noqa: PTH123
        stream = LastingStream(file, patience_seconds=0.01)
        for _ in range(3):
            print("lost", file=stream, flush=True)
        assert stream.is_stuck
        with contextlib.suppress(BlockingIOError):
            while os.read(reading, 65536):
                pass
        print("shown", file=stream, flush=True)
        assert not stream.is_stuck
        assert os.read(reading, 100) == b"shown\n"
    os.close(reading)
