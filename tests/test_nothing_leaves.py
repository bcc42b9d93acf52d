"""Nothing leaves the machine, and nothing is written outside what was asked for and birdinfer's own cache.

Commands run under strace with CI unset, for libraries keep quiet where they see CI. Where strace is missing or may not
trace, nothing of this is tried, and the tests say so.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from tiny_clips import TINY_FRONTEND, write_clips

from birdinfer.training.recipe.schema import DataConfig, LoopConfig, ModelConfig, OptimConfig, Recipe
from birdinfer.training.recipe.toml import write_recipe

CALLS = "trace=socket,open,openat,creat,mkdir,mkdirat"
STRACE = [
    "strace",
    "-f",
    "-q",
    "-y",
    "-s",
    "300",
    "--seccomp-bpf",
    "-e",
    CALLS,
]
QUIET = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "JENKINS_URL", "DO_NOT_TRACK")
ELSEWHERE = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "COVERAGE_PROCESS_START")
OUTSIDE_FILES = ("/dev/", "/proc/", "/sys/")
SPACE = "optim.lr = {low = 1e-4, high = 1e-2, log = true}\n"


@cache
def why_not() -> str:
    if shutil.which("strace") is None:
        return "strace is not installed: NOT TRIED is that nothing leaves the machine"
    done = subprocess.run([*STRACE, "-o", os.devnull, sys.executable, "-c", ""], capture_output=True, text=True)
    return f"strace cannot trace here: {done.stderr.strip()[-200:]}" if done.returncode else ""


class Home:
    """A user's folders: a home, a place for temporary files, and one to work in."""

    def __init__(self, folder: Path) -> None:
        if reason := why_not():
            pytest.skip(reason)
        self.folder = folder
        for name in ("home", "tmp", "work"):
            (folder / name).mkdir()

    def run(self, *arguments: object) -> tuple[list[str], list[str]]:
        """Run birdinfer; returns sockets other than the machine's own, and files made elsewhere than they may be."""
        log, home = self.folder / "strace.log", self.folder / "home"
        kept = (name for name in os.environ if name not in QUIET + ELSEWHERE and not name.startswith("ORT_"))
        environment = {name: os.environ[name] for name in kept}
        environment |= {"HOME": str(home), "TMPDIR": str(self.folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(
            [*STRACE, "-o", log, sys.executable, "-m", "birdinfer", *map(str, arguments)],
            cwd=self.folder / "work", env=environment, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        calls = log.read_text(errors="replace").splitlines()
        allowed = (self.folder / "work", home / ".cache" / "birdinfer", self.folder / "tmp")
        made = [path for call in calls if (path := made_file(call, self.folder / "work"))]
        outside = [path for path in made if not is_within(path, allowed, home / ".cache")]
        assert len(calls) > 10, "strace saw nothing"
        assert not list((self.folder / "tmp").iterdir()), "temporary files stay behind"
        return [call for call in calls if re.search(r"socket\((?!AF_UNIX)", call)], outside


def made_file(call: str, cwd: Path) -> str | None:
    """The file or folder that a call has made or opened to write, as the kernel names it."""
    if opened := re.search(r"(?:creat\(|open(?:at)?\(.*(?:O_WRONLY|O_RDWR|O_CREAT)).* = \d+<(.*)>$", call):
        return opened[1]
    if folder := re.search(r'mkdir(?:at)?\((?:AT_FDCWD<(.*?)>, )?"(.*)", \d+\) = 0$', call):
        return str(cwd / (folder[1] or "") / folder[2])
    return None


def is_within(path: str, folders: tuple[Path, ...], parent: Path) -> bool:
    # ~/.cache itself is made on the way to the cache.
    return path.startswith(OUTSIDE_FILES) or Path(path) == parent or any(map(Path(path).is_relative_to, folders))


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def test_predict_opens_no_socket_and_writes_its_result_only(home, soundscapes, bundle):
    options = ("--bundle", bundle, "-o", "scores.csv", "--engine")
    for engine in ("onnxruntime", "auto"):
        assert home.run("predict", soundscapes, *options, engine) == ([], [])
        (home.folder / "work" / "scores.csv").unlink()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_export_and_search_open_no_socket_and_write_their_results_only(home):
    work = home.folder / "work"
    write_clips(work / "data")
    recipe = Recipe(
        name="tiny",
        data=DataConfig(n_folds=3),
        frontend=TINY_FRONTEND,
        model=ModelConfig(backbone="test_efficientnet"),
        optim=OptimConfig(warmup_epochs=0),
        loop=LoopConfig(epochs=1, batch_size=4, val_windows=1),
    )
    (work / "tiny.toml").write_text(write_recipe(recipe))
    (work / "space.toml").write_text(SPACE)
    given = ("--recipe", "tiny.toml", "--data", "data", "--device", "cpu")
    assert home.run("train", *given, "--debug", "--fold", 0) == ([], [])
    assert home.run("export", "--run", next((work / "runs").iterdir())) == ([], [])
    assert home.run("tune", *given, "--space", "space.toml", "--trials", 2) == ([], [])
    assert list((work / "runs").glob("*/*.png")), "pictures are part of it: matplotlib keeps a cache, too"


def test_every_import_of_onnx_runtime_comes_after_its_switch():
    """In whichever module a user begins, the switches stand before ONNX Runtime is loaded, over what a shell says."""
    program = "import birdinfer.inference.predictor, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["1"]
