"""``pytest benchmarks/``: measurements, each a ratio of things measured side by side in one run.

Every benchmark adds rows to one table, which is printed at the end and stored in ``benchmarks/results/``.
"""

import json
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from birdinfer.synthetic.soundscapes import write_soundscapes
from birdinfer.system.cpu import available_cores
from bundles import SHARED_DATA, Measured, write_measured

RESULTS = Path(__file__).parent / "results"
ROWS: list[dict[str, str]] = []


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
    record = {"utc": now.isoformat(timespec="seconds"), "machine": machine(), "rows": ROWS}
    (RESULTS / f"{now:%Y%m%d_%H%M%S}.json").write_text(json.dumps(record, indent=2) + "\n")
    (RESULTS / "latest.md").write_text("\n".join(markdown()) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table below pytest's own lines."""
    if ROWS:
        terminalreporter.section("birdinfer benchmarks")
        for line in markdown():
            terminalreporter.write_line(line)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    return {"processor": model, "cores": str(available_cores()), "python": platform.python_version(),
            "numpy": np.__version__}  # fmt: skip


def markdown() -> list[str]:
    """The table as Markdown lines."""
    head = [f"Measured on {', '.join(f'{key} {value}' for key, value in machine().items())}.", ""]
    head += ["| what | measured | bound | detail |", "|---|---|---|---|"]
    return head + [f"| {row['what']} | {row['measured']} | {row['bound']} | {row['detail']} |" for row in ROWS]


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
