"""Fixtures that several folders share."""

import gc
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports numpy or torch: the threads of tiny models wait for each other longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from made_embeddings import write_embedding_bundle
from make_bundles import SAMPLE_RATE, tone, write_bundle, write_sound

from birdinfer.cli.app import main
from birdinfer.inference.bundle import Bundle
from birdinfer.prediction.run import PredictionSettings, predict_to_csv
from birdinfer.system.cpu import available_cores

# `dev` gives the same result on every call; `ci` looks further (TEST_PROFILE=ci, see .ci/run). Time proves nothing
# on a busy machine.
LOAD_SAFE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "dev", max_examples=25, derandomize=True, database=None, deadline=None, suppress_health_check=LOAD_SAFE
)
settings.register_profile("ci", max_examples=50, deadline=None, suppress_health_check=LOAD_SAFE)
settings.load_profile(os.environ.get("TEST_PROFILE", "dev"))


# Ten thousand tests are not looked through for rubbish, neither while they are collected nor whenever one of them runs.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole walks are not traced, which takes half as long again: each module has tests of its own."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker("no_cover")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and os.environ.get("TEST_PROFILE") != "ci":
        pytest.skip("slow: make coverage runs it, and TEST_PROFILE=ci")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests of SLURM and of killed processes wait more than they compute."""
    return available_cores() + 1


SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_arrives() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and tests that send it would never end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Name a folder that does not exist yet, once for each test."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_cache(_caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds what another, or the user, has let ``--engine auto`` remember."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(next(_caches)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real recordings beside the checkout; a clone elsewhere has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real recordings (../shared/data), which are not part of the repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def soundscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three good files: 12, 3 and 2 windows."""
    folder = tmp_path_factory.mktemp("soundscapes")
    for index, seconds in enumerate((60.0, 15.0, 8.0)):
        write_sound(folder / f"site_{index}.ogg", tone(seconds, hz=1_000.0 * (index + 1), seed=index), SAMPLE_RATE)
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two linear members."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "linear")


@pytest.fixture(scope="session")
def embedding_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same whose first member gives embeddings of 32 numbers."""
    return write_embedding_bundle(bundle, tmp_path_factory.mktemp("embedding") / "bundle")


@pytest.fixture(scope="session")
def embedded(embedding_bundle: Bundle, soundscapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embeddings of the three good files; not to be changed."""
    folder = tmp_path_factory.mktemp("embedded")
    settings = PredictionSettings(output=folder / "scores.csv", embeddings=folder / "embeddings")
    predict_to_csv(embedding_bundle, [soundscapes], settings)
    return folder / "embeddings"


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Make a bundle of one's own, to break it."""
    return lambda **options: write_bundle(tmp_path / "bundle", **options)


@pytest.fixture
def birdinfer(capsys, monkeypatch):
    """``birdinfer("predict", folder)`` -> (exit code, standard output, standard error)."""

    def run(*arguments):
        # A time budget counts from the start of the process, and a worker of the tests may be older than any budget.
        if "--time-budget" in arguments:
            monkeypatch.setattr("birdinfer.cli.predict.STARTED", perf_counter())
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return run
