"""What reviews say about confidences: a bundle's calibration -> thresholds, and how often detections are right.

The curve is Platt's (1999, "Probabilistic Outputs for Support Vector Machines"), of the confidence's logit;
:mod:`birdinfer.evaluation.calibrate` fits it.
"""

import numpy as np
import numpy.typing as npt

from birdinfer.errors import ConfigError
from birdinfer.inference.manifest import Curve, Manifest, scores_sha256
from birdinfer.typing import Float32, Float64

EDGE = 1e-4
"""Confidences closer to 0 or 1 count as this: tables round them to four digits."""


def logits_of(confidences: npt.ArrayLike) -> Float64:
    """Compute log(p / (1 - p)) of confidences 0 to 1, any shape; finite, see :data:`EDGE`.

    >>> logits_of([0.5, 1.0]).round(3).tolist()
    [0.0, 9.21]
    """
    inner = np.clip(np.asarray(confidences, np.float64), EDGE, 1 - EDGE)
    logits: Float64 = np.log(inner) - np.log1p(-inner)
    return logits


def share_right(curve: Curve, confidences: npt.ArrayLike) -> Float64:
    """Compute which share of the detections with these confidences is right, 0 to 1, any shape."""
    share: Float64 = 0.5 + 0.5 * np.tanh(0.5 * (curve.slope * logits_of(confidences) + curve.intercept))
    return share


def thresholds_of(manifest: Manifest, default: float) -> Float32:
    """Find the confidence from which on detections of each species count.

    Args:
        manifest: of the bundle, as it predicts.
        default: of species without a curve, and of all in a bundle without a calibration.

    Returns:
        [species]; infinite where no confidence reaches the wanted precision.

    Raises:
        ConfigError: the calibration is of other scores, because members, overlap, blend or post-processing changed.
    """
    calibration = manifest.calibration
    if calibration is None:
        return np.full(len(manifest.species), default, np.float32)
    if calibration.scores_sha256 != scores_sha256(manifest):
        what = "is of other scores: members, overlap, blend or post-processing have changed"
        raise ConfigError("the bundle's calibration", what, "birdinfer calibrate makes it again from reviews of these")
    curves = [calibration.curve_of(species) for species in manifest.species]
    thresholds = [
        default if curve is None else np.inf if curve.threshold is None else curve.threshold for curve in curves
    ]
    return np.array(thresholds, np.float32)
