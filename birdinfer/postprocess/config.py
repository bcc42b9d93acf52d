"""The post-processing that a manifest or a recipe states: smoothing over time, then any other steps."""

import msgspec

from birdinfer.postprocess.smoothing import Smooth, check_kernel
from birdinfer.postprocess.steps import AnyStep


class PostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The post-processing of a soundscape's probabilities."""

    smoothing_kernel: tuple[float, ...] = (0.2, 0.6, 0.2)
    """Weights of the neighbouring rows: an odd number, summing to 1. ``(1.0,)`` smooths nothing."""

    steps: tuple[AnyStep, ...] = ()
    """Steps after the smoothing, in order."""

    def __post_init__(self) -> None:
        check_kernel("smoothing_kernel", self.smoothing_kernel)

    @property
    def all_steps(self) -> tuple[AnyStep, ...]:
        """The smoothing, if it changes anything, and the other steps."""
        smoothing = Smooth(self.smoothing_kernel)
        return self.steps if smoothing.is_neutral else (smoothing, *self.steps)
