"""birdinfer: bird-sound recognition ensembles on long field recordings.

Importing this package imports nothing heavy; the names below load on first use::

    import birdinfer

    model = birdinfer.load("demo")
    result = model.predict("soundscape.ogg")
    result.probabilities  # [windows, species]
    result.detections(0.5)  # which species when
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from birdinfer.version import __version__

if TYPE_CHECKING:
    from birdinfer.detections.events import Detection as Detection
    from birdinfer.detections.recordings import OriginSettings as OriginSettings
    from birdinfer.detections.recordings import Recording as Recording
    from birdinfer.detections.similar import SimilarSettings as SimilarSettings
    from birdinfer.detections.similar import SimilarWindow as SimilarWindow
    from birdinfer.detections.similar import find_similar as find_similar
    from birdinfer.detections.similar import write_similar as write_similar
    from birdinfer.errors import BirdinferError as BirdinferError
    from birdinfer.inference.bundle import Bundle as Bundle
    from birdinfer.inference.embeddings import read_embeddings as read_embeddings
    from birdinfer.inference.predictor import Predictor as Predictor
    from birdinfer.inference.soundscapes import predict_soundscapes as predict_soundscapes
    from birdinfer.model import Model as Model
    from birdinfer.model import load as load
    from birdinfer.prediction.detect import DetectionCallback as DetectionCallback
    from birdinfer.prediction.detect import DetectionSettings as DetectionSettings
    from birdinfer.prediction.detect import detect_recordings as detect_recordings
    from birdinfer.prediction.run import PredictionCallback as PredictionCallback
    from birdinfer.prediction.run import PredictionSettings as PredictionSettings
    from birdinfer.prediction.run import predict_to_csv as predict_to_csv
    from birdinfer.report.look import look as look
    from birdinfer.report.run import DataReportSettings as DataReportSettings
    from birdinfer.report.run import report_data as report_data
    from birdinfer.result import Detections as Detections
    from birdinfer.result import Result as Result
    from birdinfer.result import ScoredWindow as ScoredWindow

# Nothing leaves the machine. Libraries read these switches when they are first imported, so they are set before any
# part of birdinfer can import one; child processes inherit them.
os.environ.update(
    ORT_DISABLE_TELEMETRY="1",  # ONNX Runtime from 1.29 on sends on Linux by default, and keeps an id in ~/.cache
    ORT_TELEMETRY_DISABLED="1",  # the same in some versions
    DO_NOT_TRACK="true",  # MLflow, huggingface_hub
    RAY_USAGE_STATS_ENABLED="0",
)
# OpenVINO and NNCF send where they are imported, and have no switch but to miss this package.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_MODULES = {
    "BirdinferError": "birdinfer.errors",
    "Bundle": "birdinfer.inference.bundle",
    "DataReportSettings": "birdinfer.report.run",
    "Detection": "birdinfer.detections.events",
    "DetectionCallback": "birdinfer.prediction.detect",
    "DetectionSettings": "birdinfer.prediction.detect",
    "Detections": "birdinfer.result",
    "Model": "birdinfer.model",
    "OriginSettings": "birdinfer.detections.recordings",
    "PredictionCallback": "birdinfer.prediction.run",
    "PredictionSettings": "birdinfer.prediction.run",
    "Predictor": "birdinfer.inference.predictor",
    "Recording": "birdinfer.detections.recordings",
    "Result": "birdinfer.result",
    "ScoredWindow": "birdinfer.result",
    "SimilarSettings": "birdinfer.detections.similar",
    "SimilarWindow": "birdinfer.detections.similar",
    "detect_recordings": "birdinfer.prediction.detect",
    "find_similar": "birdinfer.detections.similar",
    "load": "birdinfer.model",
    "look": "birdinfer.report.look",
    "predict_soundscapes": "birdinfer.inference.soundscapes",
    "predict_to_csv": "birdinfer.prediction.run",
    "read_embeddings": "birdinfer.inference.embeddings",
    "report_data": "birdinfer.report.run",
    "write_similar": "birdinfer.detections.similar",
}
__all__ = [
    "BirdinferError",
    "Bundle",
    "DataReportSettings",
    "Detection",
    "DetectionCallback",
    "DetectionSettings",
    "Detections",
    "Model",
    "OriginSettings",
    "PredictionCallback",
    "PredictionSettings",
    "Predictor",
    "Recording",
    "Result",
    "ScoredWindow",
    "SimilarSettings",
    "SimilarWindow",
    "__version__",
    "detect_recordings",
    "find_similar",
    "load",
    "look",
    "predict_soundscapes",
    "predict_to_csv",
    "read_embeddings",
    "report_data",
    "write_similar",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'birdinfer' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the public names, which are not there before their first use."""
    return __all__
