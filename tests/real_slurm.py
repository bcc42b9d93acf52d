"""A real SLURM of one node, started for a test from Debian's packages: a folder in, a cluster that takes jobs out.

Its own munged, slurmctld and slurmd have sockets, ports, state and folders of their own: another SLURM or munge of the
machine, and another test's, are not touched. No systemd and no cgroups. They are the children of a server, this file
run as a program, which ends them, their jobs and their folder when whoever started it lets go of it, or has died.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PARTITION, GRACEFUL, URGENT = "birds", "graceful", "urgent"
"""Jobs of the last one send those of the others back into the queue; the second warns first."""
CORES = 6
"""The number that the test needs, whatever the machine has."""
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# A job that is requeued waits until its old credential has expired; 5 s are the least that SLURM takes.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/state
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName={partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName={graceful} Nodes={host} MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName={urgent} Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""


def why_not() -> str:
    """Why SLURM cannot be started here, and what to do; "" where it can."""
    missing = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=_SYSTEM_PATH) is None]
    if missing:
        return f"needs slurm-wlm and munge ({missing[0]} is missing): apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "needs root: slurmd starts jobs as their users"


@contextlib.contextmanager
def real_slurm() -> Iterator[dict[str, str]]:
    """Start SLURM and stop it, with all of its jobs, whatever happens in between.

    Yields:
        The variables that its programs, and those of ours that call them, need.

    Raises:
        RuntimeError: it does not come up; what its daemons said stands on standard error.
    """
    # A group of its own: a Ctrl-C for pytest is not for the daemons, which have jobs to end first.
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise RuntimeError("SLURM does not come up")
        try:
            yield json.loads(line)
        finally:
            server.stdin.close()
            server.wait()


def _keep() -> None:
    """What the server does: start SLURM, print the variables, and end it when the reader has ended."""
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as name, contextlib.ExitStack() as running:
        folder = Path(name)
        _configure(folder)
        variables = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:{_SYSTEM_PATH}"}
        for command in _commands(folder):
            running.enter_context(_daemon(command, folder, variables))
        running.callback(_end_jobs, variables)
        _wait_for_node(folder, variables)
        print(json.dumps(variables), flush=True)
        sys.stdin.read()


def _configure(folder: Path) -> None:
    folder.chmod(0o755)
    for part in ("state", "score_store", "munge"):
        (folder / part).mkdir(mode=0o700)
    key = folder / "munge" / "key"
    key.touch(mode=0o400)
    key.write_bytes(secrets.token_bytes(128))
    # A name with dots is none for a node.
    host = socket.gethostname().partition(".")[0]
    ports = dict(zip(("controller_port", "node_port"), _free_ports(2), strict=True))
    names = {"host": host, "folder": folder, "cores": CORES, "partition": PARTITION}
    names |= {"graceful": GRACEFUL, "urgent": URGENT}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**names, **ports))


def _commands(folder: Path) -> list[list[str]]:
    """The daemons, each in the foreground."""
    own = folder / "munge"
    munge = [f"--socket={folder}/munge.socket", f"--key-file={own}/key", f"--seed-file={own}/seed"]
    munge += [f"--pid-file={own}/pid", f"--log-file={own}/log"]
    return [["munged", "--foreground", "--force", *munge], ["slurmctld", "-D", "-i"], ["slurmd", "-D"]]


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def _daemon(command: list[str], folder: Path, variables: dict[str, str]) -> Iterator[None]:
    environment = os.environ | variables
    with (folder / f"{command[0]}.out").open("wb") as said:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        if command[0] == "munged":
            _wait_until((folder / "munge.socket").exists, 10)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_node(folder: Path, variables: dict[str, str]) -> None:
    if not _wait_until(lambda: "idle" in asked(variables, "sinfo", "--noheader", "--format=%T"), 30):
        said = "\n".join(f"{path.name}: {path.read_text()[-2_000:]}" for path in sorted(folder.glob("*.out")))
        raise RuntimeError(f"SLURM's node does not come up:\n{said}")


def _end_jobs(variables: dict[str, str]) -> None:
    """What still runs would outlive its slurmd."""
    asked(variables, "scancel", "--user=root")
    if not _wait_until(lambda: not asked(variables, "squeue", "--noheader"), 10):
        asked(variables, "scancel", "--signal=KILL", "--full", "--user=root")
        _wait_until(lambda: not asked(variables, "squeue", "--noheader"), 10)


def asked(variables: dict[str, str], *command: str) -> str:
    """What one of SLURM's programs prints; "" where it fails."""
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def _wait_until(holds, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


if __name__ == "__main__":
    _keep()
