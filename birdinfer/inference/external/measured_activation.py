"""Find the activation of an external graph: what turns its outputs into probabilities.

In: its outputs for silence, noise and tones, and what is known of the model. Out: the function, and how it was found.
No graph states it, so it is looked up or measured; what a measurement cannot decide is refused and asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from birdinfer.errors import BundleError
from birdinfer.inference.activation import activate
from birdinfer.inference.external.known_models import KnownModel
from birdinfer.inference.external.onnx_probe import N_NOISE
from birdinfer.typing import Float32

Requested = Literal["auto", "sigmoid", "softmax", "none"]

MAX_NOISE_SHARE = 0.01
"""Of the labels that may score above one half on silence or noise."""
_MANY_LABELS = 100
"""From which on that share says something."""
_SUM_TOLERANCE = 1e-3


class MeasuredActivation(NamedTuple):
    """The function that turns a graph's outputs into probabilities, and how it was found."""

    activation: Literal["sigmoid", "softmax", "none"]
    reason: str
    slope: float = 1.0
    intercept: float = 0.0


def measure_activation(
    path: Path, outputs: Sequence[Float32], requested: Requested, known: KnownModel | None = None
) -> MeasuredActivation:
    """Find the function that turns a graph's outputs into probabilities.

    Args:
        path: the graph's, for messages.
        outputs: each [windows, (frames,) labels], of :func:`birdinfer.inference.external.onnx_probe.probe_windows`.
        requested: by the user; ``auto`` takes what is known of the model, or looks at the values.
        known: the public model that the graph is.

    Raises:
        BundleError: a value is not finite; is no probability although no function is to be applied; or, with ``auto``,
            can be neither logit nor probability, or more than :data:`MAX_NOISE_SHARE` of the labels score above one
            half on noise.
    """
    if not all(np.isfinite(output).all() for output in outputs):
        raise BundleError(path, "returns NaN or Inf for silence, noise or a tone", "it cannot be used as it is")
    lowest, highest = min(float(output.min()) for output in outputs), max(float(output.max()) for output in outputs)
    values = f"values from {lowest:.3g} to {highest:.3g}"
    is_bounded = lowest >= 0 and highest <= 1
    if requested == "none" and not is_bounded:
        raise BundleError(path, f"returns {values}, which are no probabilities", "--activation auto")
    if requested != "auto":
        doubt = ", which could be probabilities already" if is_bounded and requested != "none" else ""
        return MeasuredActivation(requested, f"{requested}, as requested, of {values}{doubt}")
    if known is not None and known.activation != "auto" and is_bounded == (known.activation == "none"):
        scale = "" if known.slope == 1 else f", {known.slope:g} x logit {known.intercept:+g}"
        reason = f"{known.title}: {known.activation}{scale}, as is known of it ({values})"
        found = MeasuredActivation(known.activation, reason, known.slope, known.intercept)
    elif is_bounded:
        return _measure_probabilities(outputs, values)
    elif lowest >= 0:
        raise BundleError(
            path, f"returns {values}, which are neither logits nor probabilities", "name its scores: --output"
        )
    else:
        found = MeasuredActivation(
            "sigmoid",
            f"logits ({values}), sigmoid makes them probabilities; give --activation softmax for a network that was "
            "trained with softmax, as Perch v2 was",
        )
    _check_noise(path, outputs[0], found)
    return found


def _measure_probabilities(outputs: Sequence[Float32], values: str) -> MeasuredActivation:
    sums_to_one = all(np.allclose(output.sum(axis=-1), 1, atol=_SUM_TOLERANCE) for output in outputs)
    if sums_to_one and outputs[0].shape[-1] > 2:
        return MeasuredActivation("none", f"probabilities that sum to 1: the graph ends with softmax ({values})")
    return MeasuredActivation("none", f"probabilities: the graph ends with sigmoid ({values})")


def _check_noise(path: Path, scores: Float32, found: MeasuredActivation) -> None:
    """Refuse an activation with which silence and noise are full of species."""
    n_labels = scores.shape[-1]
    probabilities = activate(scores[:N_NOISE], found.activation, slope=found.slope, intercept=found.intercept)
    share = float((probabilities.reshape(-1, n_labels) > 0.5).mean(axis=1).max())
    if n_labels >= _MANY_LABELS and share > MAX_NOISE_SHARE:
        raise BundleError(
            path,
            f"scores {100 * share:.0f} % of its labels above 0.5 on noise with a {found.activation}",
            "its network was trained otherwise: give --activation softmax, or sigmoid to take it as it is",
        )
