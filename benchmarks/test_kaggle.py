"""A dry run's forecast of the hidden run, held against one of full size: both as Kaggle runs them, but here."""

import sys
from pathlib import Path

import pytest

from birdinfer.kaggle.competitions import competition
from birdinfer.kaggle.dry_run import DryRunSettings, RunReport, dry_run
from birdinfer.kaggle.fake_kaggle import Layout, Run
from birdinfer.kaggle.notebook import NotebookSettings, write_notebook
from birdinfer.kaggle.pack import write_dataset_metadata, write_kernel_metadata
from bundles import write_measured

COMPETITION = competition("birdclef-2026")
N_MEMBERS = 5
BUDGET_MINUTES = 85.0
LARGEST_ERROR = 0.15

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Five efficientnet_b0 in fp32, packed without wheels: this Python has them."""
    folder = tmp_path_factory.mktemp("packed")
    write_measured(folder / "dataset", "efficientnet_b0", N_MEMBERS, int8=False)
    (folder / "kernel").mkdir()
    write_dataset_metadata(folder / "dataset", "someone", "five members")
    write_kernel_metadata(folder / "kernel", "someone", "five members", COMPETITION)
    write_notebook(
        folder / "kernel" / "birdinfer.ipynb",
        NotebookSettings(competition=COMPETITION, budget_minutes=BUDGET_MINUTES, engine="onnxruntime"),
    )
    return folder


def hidden_run(packed: Path, soundscapes: list[Path], n_files: int) -> RunReport:
    """One hidden run with this Python's packages; ``n_files`` counts the corrupt one, too."""
    settings = DryRunSettings(
        packed=packed,
        soundscapes=tuple(soundscapes),
        python=Path(sys.executable),
        layouts=(Layout.mounts_2026,),
        runs=(Run.hidden,),
        n_files=n_files - 1,
    )
    report = dry_run(settings)
    (run,) = report.runs
    assert report.ok, run.faults
    assert run.n_files == n_files
    return run


@pytest.mark.timeout(5400)
def test_the_forecast_of_the_hidden_run(packed, soundscapes, table):
    short = hidden_run(packed, soundscapes, DryRunSettings(packed=packed).n_files + 1)
    full = hidden_run(packed, soundscapes, COMPETITION.n_hidden_files)
    assert short.forecast_seconds is not None
    ratio = short.forecast_seconds / full.seconds
    table.append(
        {
            "what": f"forecast of a dry run of {short.n_files} files over a hidden run of {full.n_files}, five b0",
            "measured": f"{ratio:.3f}",
            "bound": f"{1 - LARGEST_ERROR:g} to {1 + LARGEST_ERROR:g}",
            "detail": f"notebooks from start to end: the short one {short.seconds:.0f} s, forecast "
            f"{short.forecast_seconds:.0f} s, the full one {full.seconds:.0f} s; peak {full.peak_mb:.0f} MB",
        }
    )
    assert abs(ratio - 1) <= LARGEST_ERROR
