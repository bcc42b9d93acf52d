"""``pytest benchmarks/``: measurements, each a ratio of things measured side by side in one run.

Every benchmark adds rows to one table, which is printed at the end and stored in ``benchmarks/results/``. Those marked
``slow``, over a minute, are left out where no file is named, unless ``--all`` is given. ``--smoke`` runs each in one
round, with the values of its ``SMOKE``, and a bound that is missed is no failure: it shows that benchmarks still run.
"""

import json
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from birdinfer.cli.doctor import cpu_features
from birdinfer.synthetic.soundscapes import write_soundscapes
from birdinfer.system.cpu import available_cores
from bundles import SHARED_DATA, Measured, write_measured

RESULTS = Path(__file__).parent / "results"
ROWS: list[dict[str, str]] = []
LEFT_OUT: list[str] = []
SECONDS: dict[str, float] = {}
"""Of each benchmark that ran, without its fixtures."""
SLOW_SECONDS = 60
MOST_SECONDS = 1200


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what ``pytest benchmarks/`` takes."""
    group = parser.getgroup("benchmarks")
    group.addoption("--all", action="store_true", help="benchmarks over a minute, too; naming a file does the same")
    group.addoption("--smoke", action="store_true", help="one round each, bounds do not count: do they still run?")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out those over a minute, unless they are asked for; the time limit holds for fixtures, too."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(MOST_SECONDS))
    if config.getoption("--smoke"):
        for module in {item.module for item in items if isinstance(item, pytest.Function)}:
            for name, value in ({"ROUNDS": 1} | getattr(module, "SMOKE", {})).items():
                if hasattr(module, name):
                    setattr(module, name, value)
    named = any(".py" in str(given) for given in config.args) or bool(config.getoption("markexpr"))
    if named or config.getoption("--all"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if item not in slow]
    config.hook.pytest_deselected(items=slow)
    LEFT_OUT.extend(dict.fromkeys(item.nodeid.partition("[")[0] for item in slow))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """With ``--smoke`` a bound that is missed is no failure: a busy machine proves nothing."""
    began = perf_counter()
    try:
        return (yield)
    except AssertionError as error:
        if not pyfuncitem.config.getoption("--smoke"):
            raise
        pytest.skip(f"ran; does not count: {str(error).splitlines()[0] if str(error) else 'a bound'}")
    finally:
        SECONDS[pyfuncitem.nodeid] = perf_counter() - began


@pytest.fixture(scope="session")
def table() -> list[dict[str, str]]:
    """Rows of the table: what, value, bound, detail."""
    return ROWS


@pytest.fixture(scope="session")
def soundscapes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Real one-minute soundscapes where the recordings are beside the checkout, else as many synthetic ones."""
    real = sorted((SHARED_DATA / "soundscapes" / "public").glob("**/audio/*.ogg"))
    if real:
        return real
    folder = tmp_path_factory.mktemp("synthetic")
    write_soundscapes(folder, 24, 60.0, seed=1)
    return sorted(folder.glob("*.ogg"))


@pytest.fixture(scope="session")
def b0(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """One efficientnet_b0, fp32 and INT8."""
    return write_measured(tmp_path_factory.mktemp("bundles") / "b0", "efficientnet_b0", 1, int8=True)


@pytest.fixture(scope="session")
def relu_b0(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """One efficientnet_b0 with ReLU, fp32 and INT8: of the speed, not of the scores, that a second training gives."""
    return write_measured(tmp_path_factory.mktemp("bundles") / "relu", "efficientnet_b0", 1, int8=True, relu=True)


@pytest.fixture(scope="session")
def five_b0(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Five efficientnet_b0 of other weights, fp32 and INT8."""
    return write_measured(tmp_path_factory.mktemp("bundles") / "five", "efficientnet_b0", 5, int8=True)


@pytest.fixture(scope="session")
def nfnet(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """One eca_nfnet_l0, fp32 and INT8."""
    return write_measured(tmp_path_factory.mktemp("bundles") / "nfnet", "eca_nfnet_l0", 1, int8=True)


@pytest.fixture(scope="session", autouse=True)
def _store() -> Iterator[None]:
    """Store the table when all benchmarks have run."""
    yield
    if not ROWS:
        return
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    record = {"utc": now.isoformat(timespec="seconds"), "machine": machine(), "rows": ROWS, "seconds": SECONDS}
    (RESULTS / f"{now:%Y%m%d_%H%M%S}.json").write_text(json.dumps(record, indent=2) + "\n")
    (RESULTS / "latest.md").write_text("\n".join(markdown()) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table below pytest's own lines, what was left out, and what is not marked as slow as it is."""
    if ROWS:
        terminalreporter.section("birdinfer benchmarks")
        for line in markdown():
            terminalreporter.write_line(line)
    for name, seconds in sorted(SECONDS.items(), key=lambda each: -each[1]):
        if seconds > SLOW_SECONDS / 6:
            terminalreporter.write_line(f"{seconds:6.0f} s  {name}")
    if LEFT_OUT:
        terminalreporter.write_line(f"left out, over a minute each: {len(LEFT_OUT)} benchmarks; --all runs them, too")
        for name in LEFT_OUT:
            terminalreporter.write_line(f"  pytest {name}")


def machine() -> dict[str, str]:
    """What the figures were measured on, the kind of processor first."""
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    return {"kind": processor_kind(), "processor": model, "cores": str(available_cores()),
            "python": platform.python_version(), "numpy": np.__version__}  # fmt: skip


def markdown() -> list[str]:
    """The table as Markdown lines."""
    head = [f"Measured on {', '.join(f'{key} {value}' for key, value in machine().items())}.", ""]
    head += ["| what | processor | measured | bound | detail |", "|---|---|---|---|---|"]
    kind = processor_kind()
    return head + [f"| {row['what']} | {kind} | {row['measured']} | {row['bound']} | {row['detail']} |" for row in ROWS]


def processor_kind() -> str:
    """The widest vectors, and what networks gain by: ``AVX2``, ``AVX-512 VNNI bf16``, ``NEON``."""
    features = cpu_features()
    kind = next((name for name in ("AVX-512", "AVX2", "NEON") if name in features), platform.machine())
    more = [name.removeprefix("AVX-512 ").removeprefix("AVX-") for name in features if name not in (kind, "AVX2")]
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return " ".join([kind, *more]) + (f", oneDNN limited to {limit}" if limit else "")


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
