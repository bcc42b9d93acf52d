"""An archive in a store, predicted by a cluster of two Ray nodes: whatever is killed, it ends as on one machine."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import fake_store
import pytest
import ray_nodes
from held_files import held, hold, let_go, until
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer.cli.app import main
from birdinfer.errors import ConfigError
from birdinfer.scale.launchers import LauncherSettings
from birdinfer.scale.places import Place
from birdinfer.scale.plan import open_plan
from birdinfer.scale.run import read_markers

REASON = ray_nodes.why_not() or fake_store.why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
ARCHIVE, PLAN = f"s3://{fake_store.BUCKET}/archive", f"s3://{fake_store.BUCKET}/plan"
N_FILES, N_HELD = 24, 8
POISON = "poison"


def scale(*arguments):
    with pytest.raises(SystemExit) as left:
        main(["scale", *map(str, arguments)])
    return left.value.code or 0


@pytest.fixture
def held_archive(tmp_path):
    """Files of 2 s; at the first ones a process can be held, the last one kills it."""
    folder = tmp_path / "archive"
    folder.mkdir()
    names = [f"held_{n:02}" if n < N_HELD else f"site_{n:02}" for n in range(N_FILES)] + [POISON]
    for number, name in enumerate(names):
        write_sound(folder / f"{name}.ogg", tone(10.0, hz=500.0 + 40 * number, seed=number), SAMPLE_RATE)
    return folder


def plan_of(archive, bundle, place):
    """A plan with a unit a file."""
    options = ("--unit-seconds", "1e-6", "--scores", "float32", "--engine", "onnxruntime", "--quiet")
    assert scale("plan", archive, "--plan", place, "--bundle", bundle, *options) == 0
    opened = open_plan(place)
    assert opened.plan.n_units == N_FILES + 1
    return opened


def digests(opened):
    """Of each file that could be predicted: the digests of its tables."""
    markers = list(read_markers(opened, range(opened.plan.n_units)))
    return {file.name: marker.sha256 for marker in markers for file in marker.files if file.name != POISON}


def start_driver(address, log, environment):
    command = [sys.executable, "-m", "birdinfer", "scale", "run", PLAN, "--on", "ray", "--address", address]
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file, process_group=0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_is_killed_every_file_is_predicted_once_as_on_one_machine(held_archive, bundle, tmp_path, monkeypatch):
    alone = plan_of(held_archive, bundle, tmp_path / "plan")
    assert scale("run", tmp_path / "plan", "--workers", "1", "--quiet") == 0

    holding, short = tmp_path / "holding", tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp")
    with short, fake_store.fake_store(refuse_every=10) as store:
        for name, value in store.items():
            monkeypatch.setenv(name, value)
        Place(ARCHIVE).files.put(f"{held_archive}/", f"{ARCHIVE}/", recursive=True)
        opened = plan_of(ARCHIVE, bundle, PLAN)
        scratch = Path(short.name) / "scratch"
        scratch.mkdir()
        variables = {**store, **hold(holding), "BIRDINFER_SCRATCH": str(scratch)}
        with ray_nodes.ray_nodes(Path(short.name), variables) as nodes:
            disturb(nodes, holding, {**os.environ, **variables}, tmp_path)
        assert nodes.processes() == []

        assert digests(opened) == digests(alone)
        markers = list(read_markers(opened, range(opened.plan.n_units)))
        assert Counter(file.name for marker in markers for file in marker.files).most_common(1)[0][1] == 1
        statuses = {file.name: str(file.status) for marker in markers for file in marker.files}
        assert {name for name, status in statuses.items() if status != "ok"} == {POISON}
        assert statuses[POISON] == "crashed"


def disturb(nodes, holding, environment, tmp_path):
    """Two drivers at once; one is killed, then a worker of the other one, then a node."""
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    drivers = [start_driver(nodes.address, log, environment) for log in logs]
    try:
        until(lambda: len(held(holding)) >= 2 * ray_nodes.CORES)
        drivers[0].kill()
        drivers[0].wait()
        until(lambda: len(held(holding)) >= 2 * ray_nodes.CORES)
        os.kill(next(iter(held(holding))), signal.SIGKILL)
        nodes.kill_second()
        let_go(holding)
        code = drivers[1].wait(300)
    finally:
        for driver in drivers:
            driver.kill()
            driver.wait()
    said = logs[1].read_text()
    assert code == 3, said  # there is a file with a problem
    assert "a process was lost at unit" in said
    assert "Traceback" not in said
    again = start_driver(nodes.address, tmp_path / "third.log", environment)
    assert again.wait(300) == 0, (tmp_path / "third.log").read_text()
    assert f"{N_FILES + 1} of {N_FILES + 1} units are done already" in (tmp_path / "third.log").read_text()


def test_an_address_without_ray_is_one_line_at_once(held_archive, bundle, tmp_path, birdinfer):
    plan_of(held_archive, bundle, tmp_path / "plan")
    with socket.socket() as taken:  # and does not listen
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, errors = birdinfer("scale", "run", tmp_path / "plan", "--on", "ray", "--address", address)
    assert (code, errors.count("\n")) == (2, 1)
    assert f"Ray at {address}: cannot be joined (ConnectionRefusedError" in errors


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--on", "bats"), "--on: is 'bats', there are local, ray, slurm"),
        (("--address", "127.0.0.1:1"), "--address: is of a Ray cluster"),
        (("--option", "gpus=1"), "--option: is gpus=1, which this machine does not need"),
    ],
)
def test_what_a_launcher_does_not_take_is_refused(birdinfer, words, error):
    code, _, errors = birdinfer("scale", "run", "plan", *words)
    assert (code, errors.count("\n")) == (2, 1)
    assert error in errors


@pytest.mark.parametrize("option", ["gpus=many", "gpus=0", "memory_gb=-1", "colour=blue", "gpus"])
def test_what_a_process_of_ray_cannot_need_is_refused(option):
    from birdinfer.scale.ray import RayLauncher

    with pytest.raises(ConfigError, match="Ray takes gpus="):
        RayLauncher(LauncherSettings(options=(option,)))
