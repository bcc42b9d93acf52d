"""Commands side by side: small Python programs instead of trainings."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from birdinfer.cores import available_cores
from birdinfer.errors import ConfigError, OutputError
from birdinfer.training.side_by_side import Job, device_environment, parse_devices, run_side_by_side, why_failed

SAVES = """
import signal, sys, time
def save(number, frame):
    print("saved", file=sys.stderr, flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("ready", file=sys.stderr, flush=True)
time.sleep(60)
"""
DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", file=sys.stderr, flush=True)
time.sleep(60)
"""

PARENT = """
import sys
from pathlib import Path
from birdinfer.training.side_by_side import Job, run_side_by_side
job = Job("one", (sys.executable, "-c", sys.argv[1]), Path(sys.argv[2]))
run_side_by_side([job], ("cpu",), lambda line: print(line, flush=True))
"""
WITH_A_WORKER = """
import subprocess, sys
worker = subprocess.Popen(["sleep", "60"])
print(f"worker {worker.pid}", file=sys.stderr, flush=True)
"""


def wait_until(is_so):
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < 30
        time.sleep(0.02)


def worker_of(said):
    """The process that a job has started, from what it said."""
    (worker,) = [int(line.split()[-1]) for line in said if ": worker " in line]
    return worker


def is_at_work(pid: int) -> bool:
    """Whether a process is there that has not ended; one that nobody has asked for its exit code has."""
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


class Signalling(list):
    """Says: sends this process signals, once so many jobs are ready."""

    def __init__(self, n_ready: int, *numbers: int) -> None:
        self._n_ready, self._numbers = n_ready, numbers

    def __call__(self, line: str) -> None:
        self.append(line)
        if sum(said.endswith(": ready") for said in self) == self._n_ready and line.endswith(": ready"):
            threading.Thread(target=self._send).start()

    def _send(self) -> None:
        for number in self._numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)


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
        tell = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], 'seen', file=sys.stderr)"
        jobs = [
            job("quick", f"{tell}; print('a result')"),
            job("slow", f"{tell}; import time; time.sleep(1)"),
            job("third", f"{tell}; sys.exit('birdinfer: --fold: there is none')"),
        ]
        said = []
        assert run_side_by_side(jobs, ("3", "5"), said.append) == {"quick": 0, "slow": 0, "third": 1}
        assert said[:2] == [f"{one.name}: on GPU {gpu}, log in {one.log}" for one, gpu in zip(jobs, "35", strict=False)]
        assert {"quick: 3 seen", "slow: 5 seen", "third: 3 seen"} < set(said)
        assert said[-1] == "third: failed (exit code 1)"
        assert "quick: a result" not in said
        assert jobs[0].log.read_text().splitlines()[1:] == ["3 seen", "a result"]
        assert why_failed(jobs[0], 0) == ""
        assert why_failed(jobs[2], 1) == "--fold: there is none"

    def test_a_job_that_is_killed_is_told_by_its_signal(self, job):
        one = job("killed", "import os; os.kill(os.getpid(), 9)")
        assert run_side_by_side([one], ("cpu", "cpu", "cpu"), lambda line: None) == {"killed": -9}
        assert why_failed(one, -9) == f"ended with SIGKILL, see {one.log}"

    def test_one_that_says_nothing_is_told_by_its_code_and_an_earlier_log_stays(self, job):
        one = job("dumb", "import sys; sys.exit(7)")
        one.log.parent.mkdir()
        one.log.write_text("an earlier failure\n")
        run_side_by_side([one], ("cpu",), lambda line: None)
        assert why_failed(one, 7) == f"ended with exit code 7, see {one.log}"
        assert one.log.read_text().startswith("an earlier failure\n$ ")

    def test_a_log_that_cannot_be_written_ends_what_runs(self, job, tmp_path):
        (tmp_path / "file").touch()
        jobs = [job("one", SAVES), Job("two", ("true",), tmp_path / "file" / "two.log")]
        began = time.monotonic()
        with pytest.raises(OutputError, match=r"two\.log: cannot be written"):
            run_side_by_side(jobs, ("cpu", "cpu"), lambda line: None)
        assert time.monotonic() - began < 30

    @pytest.mark.parametrize(("number", "left"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
    def test_a_signal_lets_jobs_save_and_begins_no_further_one(self, job, number, left):
        jobs = [job(name, SAVES) for name in ("one", "two", "three")]
        say = Signalling(2, number)
        with pytest.raises(left):
            run_side_by_side(jobs, ("cpu", "cpu"), say)
        assert {"one: saved", "two: saved"} < set(say)
        assert not jobs[2].log.exists()

    def test_a_second_signal_does_not_wait(self, job):
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run_side_by_side([job("deaf", DEAF)], ("cpu",), Signalling(1, signal.SIGTERM, signal.SIGINT))
        assert time.monotonic() - began < 30

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_what_a_job_has_started_ends_with_it_at_a_second_signal(self, job):
        """A loader's workers would go on decoding for nobody."""
        said = Signalling(1, signal.SIGTERM, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            run_side_by_side([job("deaf", WITH_A_WORKER + DEAF)], ("cpu",), said)
        wait_until(lambda: not is_at_work(worker_of(said)))

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_what_a_job_has_started_ends_with_it_when_it_is_killed(self, job):
        """For want of memory, say."""
        said = []
        one = job("killed", WITH_A_WORKER + "import os; os.kill(os.getpid(), 9)")
        assert run_side_by_side([one], ("cpu",), said.append) == {"killed": -9}
        wait_until(lambda: not is_at_work(worker_of(said)))

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
    def test_jobs_save_and_end_when_who_has_started_them_is_killed(self, job):
        """Or they would train on beside the same folds of the next call."""
        one = job("one", SAVES)
        words = [sys.executable, "-c", PARENT, SAVES, str(one.log)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
            assert "one: ready\n" in (parent.stdout.readline(), parent.stdout.readline())
            parent.kill()
        wait_until(lambda: one.log.read_text().endswith("\nsaved\n"))

    def test_a_log_that_is_full_in_the_end_fails_nothing(self, job):
        """The disk's end is played by a limit of 4 kB for a file: what a job has said and its result are more."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            one = job("one", "import sys; sys.stderr.write(3000 * 'x'); print(3000 * 'y')")
            assert run_side_by_side([one], ("cpu",), lambda line: None) == {"one": 0}
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
