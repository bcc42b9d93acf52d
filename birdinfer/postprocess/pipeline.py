"""Steps in a row: one file's probabilities [rows, species] in time order -> the same shape, float32 in [0, 1].

The steps are data (:mod:`birdinfer.postprocess.steps`); a pipeline is those bound to the species of a bundle. It keeps
nothing between calls, so that files can neither leak into each other nor be in the wrong order.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from birdinfer.labels import Species
from birdinfer.postprocess.step import Step

Float32 = npt.NDArray[np.float32]


class Pipeline:
    """Steps, one after the other; may be shared by threads."""

    def __init__(self, steps: Sequence[Step], species: Sequence[Species]) -> None:
        """Bind the steps; those of neutral parameters are checked, too, and then left out.

        Args:
            steps: in the order in which they are done.
            species: in column order.

        Raises:
            ConfigError: a step does not fit the species.
        """
        bound = [(step, step.bind(species)) for step in steps]
        done = [(step, function) for step, function in bound if not step.is_neutral]
        self._functions = [function for _, function in done]
        self.names = [str(type(step).__struct_config__.tag) for step, _ in done]
        """Of the steps that change something, in order."""
        reaches = [step.reach for step, _ in done]
        known = [reach for reach in reaches if reach is not None]
        self.reach = sum(known) if len(known) == len(reaches) else None
        """How many rows before and behind a row it depends on; None: on the whole file."""

    def __call__(self, probabilities: Float32, stem: str) -> Float32:
        """Do all steps.

        Args:
            probabilities: [rows, species] of one file in time order; left as it is.
            stem: the file's name without its ending.

        Returns:
            [rows, species]; without steps, or rows, the very input.
        """
        if not len(probabilities):
            return probabilities
        for function in self._functions:
            probabilities = function(probabilities, stem)
        return probabilities
