"""Runs inside birdnet's environment: its own pipeline over a folder, from decoding to its CSV.

    python peer_birdnet.py MODEL.onnx LABELS.txt SECONDS SOUNDS OUTPUT.csv

``SOUNDS`` is a file or a folder. All else is left at birdnet's defaults: one process decodes, a worker process a core
runs the network window by window, the five best species of a window are kept where they reach 0.1.
"""

import sys
from pathlib import Path

import birdnet


def main() -> None:
    """Predict and write the table."""
    model, labels, window_seconds, sounds, output = sys.argv[1:]
    # The check loads the model in one more process before the workers do; a user who knows the file leaves it out.
    network = birdnet.load_custom("acoustic", "3.0", "onnx", model, labels, check_validity=False)
    network.predict(sounds, segment_size_s=float(window_seconds)).to_csv(Path(output), silent=True)


# Its workers are started by import, not by fork: without the guard each of them would start workers, too.
if __name__ == "__main__":
    main()
