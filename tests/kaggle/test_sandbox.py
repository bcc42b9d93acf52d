"""A program of someone else's gets no network, no variables, few cores, and only so much memory and time."""

import os
import sys

import pytest

from birdinfer.errors import ConfigError
from birdinfer.kaggle.sandbox import Limits, NoNetwork, no_network, refusing_sockets, run_isolated, session_bytes

LIMITS = Limits(seconds=30.0, memory_gb=4.0, cores=64)
CONNECT = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
RESOLVE = "import socket; socket.getaddrinfo('example.org', 80)"


@pytest.fixture
def run(tmp_path):
    """``run(code)`` -> how it ended, by the surest isolation that there is here."""
    working = tmp_path / "working"
    working.mkdir()
    surest = no_network(tmp_path)

    def run(code, limits=LIMITS, network=surest, **environment):
        return run_isolated([sys.executable, "-c", code], working, environment, limits, network)

    return run


def test_what_a_program_says_and_how_it_ends(run):
    ran = run("import sys; print('out'); sys.stdout.flush(); print('error', file=sys.stderr); sys.exit(7)")
    assert (ran.exit_code, ran.stopped_for) == (7, "")
    assert ran.output.split() == ["out", "error"]
    assert 0 < ran.seconds < 20


@pytest.mark.parametrize("way", [no_network, refusing_sockets])
@pytest.mark.parametrize("code", [CONNECT, RESOLVE])
def test_no_way_leads_into_the_network(run, tmp_path, way, code):
    ran = run(code, network=way(tmp_path))
    assert ran.exit_code == 1
    assert "Network is unreachable" in ran.output or "name resolution" in ran.output


def test_sockets_within_the_machine_still_work_without_a_namespace(run, tmp_path):
    code = "import socket; a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'"
    assert run(code, network=refusing_sockets(tmp_path)).exit_code == 0


def test_the_way_that_was_found_is_described(tmp_path, monkeypatch):
    monkeypatch.setattr("birdinfer.kaggle.sandbox._output", lambda command: "" if command[1] == "-rn" else None)
    assert no_network(tmp_path).description == "a network namespace of its own (unshare -rn)"
    monkeypatch.setattr("birdinfer.kaggle.sandbox._output", lambda command: None)
    second_best = no_network(tmp_path)
    assert second_best.prefix == ()
    assert second_best.description.startswith("Python's sockets refuse")


def test_no_variable_of_ours_is_handed_on(run, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    ran = run("import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))", GIVEN="1")
    assert "KAGGLE_KEY" not in ran.output
    assert "GIVEN" in ran.output


def test_a_program_that_takes_too_long_ends_with_all_that_it_started(run):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    ran = run(code, LIMITS._replace(seconds=0.5))
    assert ran.stopped_for == "time"
    assert ran.seconds < 10


def test_memory_counts_over_all_processes(run):
    """Two processes of 150 MB each: neither alone is beyond 250 MB."""
    child = "import time; much = bytearray(150_000_000); time.sleep(30)"
    code = f"import subprocess, sys; [subprocess.Popen([sys.executable, '-c', {child!r}]) for _ in '12'][0].wait()"
    ran = run(code, LIMITS._replace(memory_gb=0.25))
    assert ran.stopped_for == "memory"
    assert ran.peak_mb > 250


def test_the_peak_is_what_was_held(run):
    ran = run("import time; much = bytearray(200_000_000); time.sleep(0.5)")
    assert ran.exit_code == 0
    assert 200 < ran.peak_mb < 300


def test_cores_are_few(run):
    before = os.sched_getaffinity(0)
    ran = run("import os; print(len(os.sched_getaffinity(0)))", LIMITS._replace(cores=1))
    assert ran.output.strip() == "1"
    assert os.sched_getaffinity(0) == before


def test_the_memory_of_this_session_is_seen():
    assert session_bytes(os.getsid(0)) > 10_000_000
    assert session_bytes(2**30) == 0


def test_a_program_that_is_not_there_is_one_line(tmp_path):
    (tmp_path / "working").mkdir()
    with pytest.raises(ConfigError, match="cannot be started"):
        run_isolated([tmp_path / "nothing"], tmp_path / "working", {}, LIMITS, NoNetwork((), (), ""))
