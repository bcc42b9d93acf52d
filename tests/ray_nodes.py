"""Two Ray nodes on this machine, started for a test: a server, this file run as a program, that ends with its starter.

Processes of the nodes take their variables from it. ``kill`` on its standard input kills the second node's daemon.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

CORES = 2
"""Of each node."""
ATTEMPTS = 3
"""On a busy machine a node's daemon may give up before its agents, which have 15 seconds, have come up."""


def why_not() -> str:
    """Why Ray cannot be started here, and what to do; "" where it can."""
    return "" if find_spec("ray") else "needs ray: pip install ray"


class Nodes(NamedTuple):
    """The nodes of a cluster."""

    address: str
    session: Path
    server: subprocess.Popen[str]

    def kill_second(self) -> None:
        """Kill the second node, with all that runs there."""
        self._say("kill")

    def _say(self, word: str) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(f"{word}\n")
        self.server.stdin.flush()
        assert self.server.stdout.readline() == f"{word}\n"

    def processes(self) -> list[int]:
        """Find all processes of the cluster that are there, also those of drivers."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode(errors="replace")
                if self.session.name in words or self.address in words:
                    found.append(int(path.parent.name))
        return found


@contextlib.contextmanager
def ray_nodes(folder: Path, variables: dict[str, str]) -> Iterator[Nodes]:
    """Start two nodes and stop them; their sockets lie in ``folder``, whose path must be short."""
    environment = {**os.environ, **variables, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder)}
    environment["RAY_agent_register_timeout_ms"] = "300000"
    for _ in range(ATTEMPTS):
        with subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, text=True, process_group=0,
        ) as server:  # fmt: skip
            assert server.stdin is not None
            assert server.stdout is not None
            try:
                words = server.stdout.readline().split()
                if len(words) == 2:
                    yield Nodes(words[0], Path(words[1]), server)
                    return
            finally:
                server.stdin.close()
                server.wait()
    raise RuntimeError("Ray does not come up")


class _PatientTime:
    """A clock for Ray's node, which gives up after 30 seconds: on a busy machine its processes need longer."""

    sleep, time = time.sleep, time.time

    @staticmethod
    def monotonic() -> float:
        return time.monotonic() / 2


def _ports() -> dict[str, int]:
    """Ports of a node's agents: a daemon that waits for them to choose their own gives up after 15 seconds."""
    names = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port", "metrics_export_port")
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints
    import ray._private.node
    from ray.cluster_utils import Cluster

    ray._private.node.time = _PatientTime
    light = {"num_cpus": CORES, "object_store_memory": 80 << 20, "include_dashboard": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args={**light, **_ports()})
    try:
        second = cluster.add_node(wait=False, **light, **_ports())
        cluster.wait_for_nodes(timeout=300)
        print(cluster.address, cluster.head_node.get_session_dir_path(), file=answers, flush=True)
        for line in sys.stdin:
            cluster.remove_node(second, allow_graceful=False)
            print(line.strip(), file=answers, flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    _serve()
