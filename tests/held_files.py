"""Files at which a process stops until it may continue, or dies: what a test needs to disturb a run in its middle.

``hold(folder)`` gives variables for the processes of a run, which load the hook below when Python starts. Opening a
file whose name begins with ``held`` leaves ``NAME.PID`` in the folder and waits there until the folder has a file
``open``; opening one whose name begins with ``poison`` is SIGKILL for the process.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path

HOOK = """
import os, signal, sys, time
FOLDER = os.environ.get("HELD_FILES")
def hook(event, arguments):
    if event != "open" or not isinstance(arguments[0], str):
        return
    name = arguments[0].rpartition("/")[2]
    if name.startswith("poison") and name.endswith(".ogg"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("held") and name.endswith(".ogg") and not os.path.exists(f"{FOLDER}/open"):
        os.close(os.open(f"{FOLDER}/{name}.{os.getpid()}", os.O_CREAT))
        while not os.path.exists(f"{FOLDER}/open"):
            time.sleep(0.02)
if FOLDER:
    sys.addaudithook(hook)
"""
REPOSITORY = Path(__file__).parents[1]


def hold(folder: Path) -> dict[str, str]:
    """Write the hook into a new folder; the variables by which processes load it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join([str(folder), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return {"HELD_FILES": str(folder), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""}


def held(folder: Path) -> Mapping[int, str]:
    """Which processes, that are still there, wait at which file."""
    found = (path.name.rpartition(".") for path in folder.glob("held*.ogg.*"))
    return {int(pid): name for name, _, pid in found if Path(f"/proc/{pid}").exists()}


def until(holds, seconds: float = 120.0) -> None:
    """Wait until something holds; the assertion shows what never came."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def let_go(folder: Path) -> None:
    """Let all continue, from now on."""
    (folder / "open").touch()
