"""Commands side by side: small Python programs instead of trainings."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from birdinfer.callbacks import Callback
from birdinfer.errors import ConfigError, OutputError
from birdinfer.system.cpu import available_cores
from birdinfer.training.callbacks import FoldStart, TrainingCallback
from birdinfer.training.launch.local import Job, device_environment, parse_devices, receive, run_side_by_side, sending
from birdinfer.training.run import _EVENTS

SAVES = """
import signal, sys, time
def save(number, frame):
    print("saved", file=sys.stderr, flush=True)
    print('["saved"]', flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print('["ready"]', flush=True)
time.sleep(60)
"""
DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('["ready"]', flush=True)
time.sleep(60)
"""

PARENT = """
import sys
from pathlib import Path
from birdinfer.callbacks import Callback
from birdinfer.training.launch.local import Job, run_side_by_side
job = Job("one", (sys.executable, "-c", sys.argv[1]), Path(sys.argv[2]))
run_side_by_side([job], ("cpu",), Callback(), lambda name, event, arguments: print(name, event, flush=True))
"""
WITH_A_WORKER = """
import subprocess, sys
worker = subprocess.Popen(["sleep", "60"])
print(f'["worker", {worker.pid}]', flush=True)
"""


def wait_until(is_so):
    while not is_so():
        time.sleep(0.02)


def worker_of(reports):
    """The process that a job has started, from what it reported."""
    (worker,) = [arguments[0] for _, event, arguments in reports.events if event == "worker"]
    return worker


def is_at_work(pid: int) -> bool:
    """Whether a process is there that has not ended; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def job(tmp_path):
    """A job that runs a line of Python."""

    def made(name: str, source: str) -> Job:
        return Job(name, (sys.executable, "-c", source), tmp_path / "logs" / f"{name}.log")

    return made


class Reports(Callback):
    """Remembers what jobs report; may send this process signals, once so many jobs are ready."""

    def __init__(self, n_ready: int = 0, *numbers: int) -> None:
        self.lines, self.events = [], []
        self._n_ready, self._numbers = n_ready, numbers

    def on_message(self, line: str) -> None:
        self.lines.append(line)

    def event(self, name, event, arguments) -> None:
        self.events.append((name, event, arguments))
        if event == "ready" and [each[1] for each in self.events].count("ready") == self._n_ready:
            threading.Thread(target=self._send).start()

    def _send(self) -> None:
        for number in self._numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)


def run(jobs, devices, reports=None):
    reports = reports or Reports()
    return run_side_by_side(jobs, devices, reports, reports.event)


class TestParseDevices:
    @pytest.mark.parametrize(
        ("text", "devices"),
        [("0", ("0",)), ("0, 1", ("0", "1")), ("01,2", ("1", "2")), ("cpu,cpu", ("cpu", "cpu")), ("1,1", ("1", "1"))],
    )
    def test_reads_gpus_and_shares_of_the_cores(self, text, devices):
        assert parse_devices(text) == devices

    @pytest.mark.parametrize("text", ["", "0,", "gpu", "cuda:0", "-1", "0;1", "1.5", "²"])
    def test_refuses_what_is_neither(self, text):
        with pytest.raises(ConfigError, match=r"--devices: is '.*', allowed are GPUs as 0,1"):
            parse_devices(text)

    def test_refuses_a_gpu_beside_the_cpu(self):
        with pytest.raises(ConfigError, match="GPUs and the CPU together - name one kind"):
            parse_devices("0,cpu")


class TestDeviceEnvironment:
    def test_a_gpu_is_counted_among_those_we_see_ourselves(self):
        """Of a cluster that has given us the machine's GPUs 4 and 6, device 1 is the one called 6."""
        assert device_environment("1", 2, {"CUDA_VISIBLE_DEVICES": "4,6"})["CUDA_VISIBLE_DEVICES"] == "6"
        assert device_environment("1", 2, {})["CUDA_VISIBLE_DEVICES"] == "1"

    def test_on_the_cpu_no_gpu_is_seen(self):
        assert device_environment("cpu", 1, {"CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"] == ""

    def test_the_cores_are_shared_and_never_less_than_one(self):
        assert device_environment("cpu", 1, {})["OMP_NUM_THREADS"] == str(available_cores())
        assert device_environment("cpu", 10_000, {})["OMP_NUM_THREADS"] == "1"

    def test_what_the_user_has_set_stays(self):
        environment = device_environment("cpu", 1, {"OMP_NUM_THREADS": "7", "HOME": "x"})
        assert (environment["OMP_NUM_THREADS"], environment["HOME"]) == ("7", "x")


class TestRun:
    def test_jobs_share_the_devices_and_one_that_fails_stops_no_other(self, job):
        """Three jobs, two devices: the third gets the device of the one that is over first."""
        report = "import os, sys; print('[\"seen\", ' + os.environ['CUDA_VISIBLE_DEVICES'] + ']', flush=True)"
        jobs = [
            job("quick", f"{report}; print('a note', file=sys.stderr); print('no event')"),
            job("slow", f"{report}; import time; time.sleep(1)"),
            job("third", f'{report}; print(\'["failed", "--fold: there is none"]\'); sys.exit(2)'),
        ]
        reports = Reports()
        problems = run(jobs, ("3", "5"), reports)
        assert problems == {"quick": "", "slow": "", "third": "--fold: there is none"}
        assert reports.lines[:2] == [
            f"{one.name}: on GPU {gpu}, log in {one.log}" for one, gpu in zip(jobs, "35", strict=False)
        ]
        assert sorted(reports.events) == [("quick", "seen", [3]), ("slow", "seen", [5]), ("third", "seen", [3])]
        assert reports.lines[-1] == f"third: failed, see {jobs[2].log}"
        assert jobs[0].log.read_text().splitlines()[1:] == ["a note"]

    def test_a_job_that_is_killed_is_named_by_its_signal(self, job):
        one = job("killed", "import os; os.kill(os.getpid(), 9)")
        assert run([one], ("cpu", "cpu", "cpu")) == {"killed": f"ended with SIGKILL, see {one.log}"}

    def test_one_that_says_nothing_is_named_by_its_code_and_an_earlier_log_stays(self, job):
        one = job("silent", "import sys; sys.exit(7)")
        one.log.parent.mkdir()
        one.log.write_text("an earlier failure\n")
        assert run([one], ("cpu",)) == {"silent": f"ended with exit code 7, see {one.log}"}
        assert one.log.read_text().startswith("an earlier failure\n$ ")

    def test_a_log_that_cannot_be_written_ends_what_runs(self, job, tmp_path):
        (tmp_path / "file").touch()
        jobs = [job("one", SAVES), Job("two", ("true",), tmp_path / "file" / "two.log")]
        with pytest.raises(OutputError, match=r"two\.log: cannot be written"):
            run(jobs, ("cpu", "cpu"))

    @pytest.mark.parametrize(("number", "left"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
    def test_a_signal_lets_jobs_save_and_starts_no_further_one(self, job, number, left):
        jobs = [job(name, SAVES) for name in ("one", "two", "three")]
        reports = Reports(2, number)
        with pytest.raises(left):
            run(jobs, ("cpu", "cpu"), reports)
        assert sorted(reports.events)[1::2] == [("one", "saved", []), ("two", "saved", [])]
        assert not jobs[2].log.exists()

    def test_a_second_signal_does_not_wait(self, job):
        with pytest.raises(KeyboardInterrupt):
            run([job("deaf", DEAF)], ("cpu",), Reports(1, signal.SIGTERM, signal.SIGINT))

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_what_a_job_has_started_ends_with_it_at_a_second_signal(self, job):
        """A loader's workers would decode for ever."""
        reports = Reports(1, signal.SIGTERM, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            run([job("deaf", WITH_A_WORKER + DEAF)], ("cpu",), reports)
        wait_until(lambda: not is_at_work(worker_of(reports)))

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_what_a_job_has_started_ends_with_it_when_it_is_killed(self, job):
        """Because there is no memory, say."""
        reports = Reports()
        one = job("killed", WITH_A_WORKER + "import os; os.kill(os.getpid(), 9)")
        assert run([one], ("cpu",), reports)["killed"].startswith("ended with SIGKILL")
        wait_until(lambda: not is_at_work(worker_of(reports)))

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the end of a parent")
    def test_jobs_save_and_end_when_their_parent_is_killed(self, job):
        """Or they would train on beside the same folds of the next call."""
        one = job("one", SAVES)
        words = [sys.executable, "-c", PARENT, SAVES, str(one.log)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout.readline() == "one ready\n"
            parent.kill()
        wait_until(lambda: "\nsaved\n" in one.log.read_text())


EVENTS_OF_EVERY_KIND = """
import sys
from birdinfer.training.callbacks import FoldStart, TrainingCallback
from birdinfer.training.checkpoint import EpochRow
from birdinfer.training.launch.local import run_child, sending
def work(send):
    callback = sending(TrainingCallback, send)
    print("a library's note")
    callback.on_message("reading")
    callback.on_warning("too quiet")
    callback.on_progress("decoded", 1, 4)
    callback.on_progress("decoded", 2, 4)
    callback.on_fold_start(
        FoldStart(
            fold=0, n_training=8, n_validation=4, epochs=2,
            steps_per_epoch=3, first_step=0, batch_size=4, precision="fp32",
        )
    )
    callback.on_step(1, float("nan"))
    callback.on_epoch_end(EpochRow(1, 0.5, None, None, None, None, 1e-3, 1.0, 0.0, None), True)
    raise RuntimeError("no\\nmemory")
sys.exit(run_child(work))
"""


class TestEvents:
    def test_calls_of_a_callback_arrive_as_calls(self, job):
        class Calls(TrainingCallback):
            def __getattribute__(self, name):
                if name.startswith("on_"):
                    return lambda *arguments: calls.append((name, *arguments))
                return super().__getattribute__(name)

        calls, one = [], job("fold0", EVENTS_OF_EVERY_KIND)
        problems = run_side_by_side(
            [one], ("cpu",), Callback(), lambda _, event, arguments: receive(Calls(), event, arguments, _EVENTS)
        )
        assert problems == {"fold0": "no memory"}
        assert [each[0] for each in calls] == [
            "on_message", "on_warning", "on_progress", "on_fold_start", "on_step", "on_epoch_end",
        ]  # fmt: skip
        assert calls[3][1] == FoldStart(
            fold=0,
            n_training=8,
            n_validation=4,
            epochs=2,
            steps_per_epoch=3,
            first_step=0,
            batch_size=4,
            precision="fp32",
        )
        assert math.isnan(calls[4][2])
        assert (calls[5][1].epoch, calls[5][1].val_macro_auc, calls[5][2]) == (1, None, True)
        log = one.log.read_text()
        assert "a library's note\nreading\n" in log
        assert "RuntimeError: no\nmemory" in log

    def test_events_that_come_often_are_thinned_out(self):
        sent = []
        callback = sending(TrainingCallback, lambda *event: sent.append(event))
        for step in range(100):
            callback.on_step(step, 0.5)
        assert sent == [("on_step", 0, 0.5)]
