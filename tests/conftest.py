"""Fixtures that many rooms share."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from making import SAMPLE_RATE, tone, write_bundle, write_sound

from birdinfer.cli.app import main

# Before anything imports torch: the threads of tiny models wait for each other longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and tests that send it would go on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds what another, or the user, has let ``--engine auto`` remember."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


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


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Make a bundle of one's own, to break it."""
    return lambda **options: write_bundle(tmp_path / "bundle", **options)


@pytest.fixture
def birdinfer(capsys):
    """``birdinfer("predict", folder)`` -> (exit code, standard output, standard error)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return run
