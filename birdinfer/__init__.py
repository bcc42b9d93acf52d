"""birdinfer: bird-sound recognition ensembles on long field recordings.

Importing this package imports nothing heavy; the names below load on first use::

    from birdinfer import Bundle, Predictor

    predictor = Predictor(Bundle.load("exports/demo"))
    scores = predictor.predict("soundscape.ogg")  # probabilities [windows, species]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birdinfer.bundle import Bundle as Bundle
    from birdinfer.errors import BirdinferError as BirdinferError
    from birdinfer.predictor import Predictor as Predictor
    from birdinfer.soundscapes import predict_soundscapes as predict_soundscapes

__version__ = "0.1.0"

_HOME = {
    "BirdinferError": "birdinfer.errors",
    "Bundle": "birdinfer.bundle",
    "Predictor": "birdinfer.predictor",
    "predict_soundscapes": "birdinfer.soundscapes",
}

__all__ = ["BirdinferError", "Bundle", "Predictor", "__version__", "predict_soundscapes"]


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'birdinfer' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
