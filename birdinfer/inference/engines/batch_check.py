"""An engine around a graph of which it is not known whether its scores of a window depend on the others of a batch.

Graphs of birdinfer's export are known to be free of that, adopted ones were tried; those of a bundle made by hand are
tried here, at the first call: a run's worker makes it, so that a graph that never returns cannot stop the main thread.
"""

import threading
from pathlib import Path

import numpy as np

from birdinfer.errors import BundleError
from birdinfer.inference.engines.base import Engine
from birdinfer.typing import Float32

_LEVELS = (0.5, 0.1, 0.02)
"""Of three windows of noise; the one that is compared is neither the first nor the loudest nor the quietest."""
_TOLERANCE = 1e-2
"""Relative and absolute, of any output: kernels for other batch sizes, also of bf16, round differently, no more."""
_HINT = 'export it for a batch of 1, or state "batch": "one" in its member\'s entry of manifest.json'


class BatchCheckedEngine:
    """Runs as the engine within does, once a window has scored alone as it does in a batch."""

    def __init__(self, engine: Engine, path: Path) -> None:
        """Wrap an engine; ``path``: of its graph, for messages."""
        self.facts = engine.facts
        self._engine, self._path = engine, path
        self._is_checked = False
        self._turn = threading.Lock()

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Compute the outputs by name, each [windows, ...]; BundleError if scores depend on the batch."""
        if not self._is_checked:
            with self._turn:
                self._check(batch.shape[1:])
        return self._engine.run(batch)

    def _check(self, sample_shape: tuple[int, ...]) -> None:
        if self._is_checked:
            return
        noise = np.random.default_rng(0).normal(0, 1, (len(_LEVELS), *sample_shape))
        windows = np.stack([level * each for level, each in zip(_LEVELS, noise, strict=True)]).astype(np.float32)
        try:
            alone = self._engine.run(windows[1:2])
            together = self._engine.run(windows)
        except Exception as error:  # of the engines' own kinds, which share no base but Exception
            if self._fails_at_one(windows):  # a loud one, perhaps: what it does with files shows there
                self._is_checked = True
                return
            raise BundleError(self._path, f"cannot be run on several windows at once ({error})", _HINT) from error
        for name, scores in alone.items():
            others = together[name][1:2]
            if others.shape != scores.shape or not np.allclose(
                others, scores, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
            ):
                raise BundleError(self._path, "scores a window differently in a batch than alone", _HINT)
        self._is_checked = True

    def _fails_at_one(self, windows: Float32) -> bool:
        """Whether a window fails that is alone, which has nothing to do with batches."""
        try:
            for index in range(len(windows)):
                self._engine.run(windows[index : index + 1])
        except Exception:
            return True
        return False
