"""Probabilities, as they come -> whether all of them lie on a grid: were they, or the logits before, rounded?

A rank metric sees a tie wherever two scores were rounded to the same number. In: blocks of values [rows, labels]. Kept:
which grids no value has left yet.
"""

import numpy as np
import numpy.typing as npt

from birdinfer.submission_rules.findings import Findings, Kind

Float64 = npt.NDArray[np.float64]

_DIGITS = (0, 1, 2, 3)
_LOGIT_STEPS = (1.0, 0.5, 0.1, 0.05, 0.01)
_FEWEST_VALUES = 100
"""So many have to agree: of this many, chance never puts all on the finest grid."""
_LOGIT_RANGE = 6.0
"""Beyond, seven digits of a probability say too little about its logit."""
_NEAR = 0.05
"""How far from a grid's line, in steps of it, a value may lie: the seventh digit moves a logit by less."""


class Resolution:
    """Sees one block after the other."""

    def __init__(self) -> None:
        self._digits = list(_DIGITS)
        self._steps = list(_LOGIT_STEPS)
        self._n_values = 0
        self._n_logits = 0

    def see(self, values: Float64) -> None:
        """The next rows [rows, labels]; what is no probability is passed over."""
        if not self._digits and not self._steps:
            return
        flat = values[(values >= 0) & (values <= 1)]
        self._n_values += flat.size
        self._digits = [digits for digits in self._digits if _on_grid(flat, 10.0**-digits, 1e-6)]
        inner = flat[(flat > 0) & (flat < 1)]
        logits = np.log(inner) - np.log1p(-inner)
        logits = logits[np.abs(logits) < _LOGIT_RANGE]
        self._n_logits += logits.size
        self._steps = [step for step in self._steps if _on_grid(logits, step, _NEAR)]

    def finish(self, findings: Findings) -> None:
        """Note the coarsest grid that holds all values."""
        if self._digits and self._n_values >= _FEWEST_VALUES:
            findings.note(Kind.few_digits, f"{self._digits[0]} behind the point")
        elif self._steps and self._n_logits >= _FEWEST_VALUES:
            findings.note(Kind.rounded_logits, f"steps of {self._steps[0]:g}")


def _on_grid(values: Float64, step: float, tolerance: float) -> bool:
    """Whether all values are multiples of a step, but for this share of it."""
    steps = values / step
    return bool((np.abs(steps - np.round(steps)) <= tolerance).all())
