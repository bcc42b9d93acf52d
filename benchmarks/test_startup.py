"""How long a user waits before anything happens, as multiples of what Python takes to import numpy; CPU seconds."""

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import soundfile

from birdinfer.inference.bundle import demo_bundle_path

ROUNDS = 9
BIRDINFER = str(Path(sys.executable).with_name("birdinfer"))
ENVIRONMENT = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def cpu_seconds(*command):
    """CPU seconds of a whole process with its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def in_turns(*commands):
    """The median CPU seconds of each command; the first round compiles modules and does not count."""
    rounds = [[cpu_seconds(*command) for command in commands] for _ in range(ROUNDS + 1)]
    return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]


PLAIN = (sys.executable, "-c", "pass")
NUMPY = (sys.executable, "-c", "import numpy")
ONNXRUNTIME = (sys.executable, "-c", "import onnxruntime")


def add_row(table, what, seconds, unit, bound, detail):
    ratio = seconds / unit
    table.append({"what": what, "measured": f"{ratio:.2f}x", "bound": f"<= {bound:g}x", "detail": detail})
    assert ratio <= bound


def test_help(table):
    middle, numpy, bare = in_turns((BIRDINFER, "--help"), NUMPY, PLAIN)
    detail = f"{middle:.3f} s, import numpy {numpy:.3f} s, an empty Python {bare:.3f} s"
    add_row(table, "birdinfer --help against import numpy, CPU", middle, numpy, 2.5, detail)


def test_a_file_of_5_seconds(soundscapes, table, tmp_path):
    """Next to no sound: what is left is the start, the session and the tables."""
    wave, rate = soundfile.read(soundscapes[0], dtype="float32", frames=160_000)
    soundfile.write(tmp_path / "a.ogg", wave, rate)
    predict = (BIRDINFER, "predict", str(tmp_path / "a.ogg"), "--bundle", str(demo_bundle_path()), "-q")
    middle, runtime, numpy = in_turns((*predict, "-o", str(tmp_path / "submission.csv")), ONNXRUNTIME, NUMPY)
    detail = f"{middle:.2f} s, import onnxruntime {runtime:.2f} s, import numpy {numpy:.2f} s"
    add_row(table, "predict, a file of 5 s, demo bundle, against import onnxruntime, CPU", middle, runtime, 4, detail)


def test_one_file(b0, soundscapes, table, tmp_path):
    """A minute, against the same minute within a longer run: the difference is what a start costs."""
    predict = (BIRDINFER, "predict", "--bundle", str(b0.folder), "-q", "--workers", "1")
    for index in range(5):
        (tmp_path / f"f{index}.ogg").symlink_to(soundscapes[0])
    one, five, numpy = in_turns(
        (*predict, str(tmp_path / "f0.ogg"), "-o", str(tmp_path / "one.csv")),
        (*predict, str(tmp_path), "-o", str(tmp_path / "five.csv")),
        NUMPY,
    )
    start = one - (five - one) / 4
    detail = f"{one:.2f} s for a file of 60 s, {(five - one) / 4:.2f} s for each more, import numpy {numpy:.2f} s"
    add_row(
        table, "predict, efficientnet_b0: start without the sound, against import numpy, CPU", start, numpy, 6, detail
    )
