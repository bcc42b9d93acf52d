import subprocess
import sys

import numpy as np


def test_peak_memory_is_this_process_own(tmp_path, monkeypatch):
    """Not that of whoever started it: a child of a process with 200 MB more must not report them."""
    from birdinfer.cli import prediction_report

    ballast = np.ones(25_000_000)
    code = "from birdinfer.cli.prediction_report import peak_memory_mb; print(peak_memory_mb())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < ballast.nbytes / 1e6 / 2
    monkeypatch.setattr(prediction_report, "_PROCESS_STATUS", tmp_path / "gone")
    assert prediction_report.peak_memory_mb() > ballast.nbytes / 1e6
    monkeypatch.setitem(sys.modules, "resource", None)
    assert prediction_report.peak_memory_mb() is None
