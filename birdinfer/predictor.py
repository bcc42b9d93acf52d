"""The hot path: a run of windows through the stations in order.

Waveform run -> log-mel (once, shared by all members) -> members -> probabilities -> ensemble; then, per file, the
post-processing. One :class:`Predictor` serves all lanes: they share the graphs' weights.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from birdinfer import ensemble, mel, postprocess
from birdinfer.audio import AudioStream
from birdinfer.bundle import Bundle, labels_sha256
from birdinfer.engines import Engine, load_engine
from birdinfer.errors import BundleError
from birdinfer.scores import sigmoid
from birdinfer.windows import WindowRun, cut_runs

Float32 = npt.NDArray[np.float32]

BATCH_SIZE = 4
"""Windows per call of a graph: fp32 convolutions are fastest while a batch's activations stay in a core's cache
(efficientnet_b0: 58 windows/s at 1, 56 at 4, 50 at 48)."""

RUN_WINDOWS = 12
"""Windows read ahead at a time: a minute of sound, 7.7 MB."""


class Predictor:
    """A bundle, loaded and ready; may be shared by threads."""

    def __init__(self, bundle: Bundle, engine: str = "onnxruntime", smoothing_kernel: tuple[float, ...] | None = None):
        """Load every member.

        Args:
            bundle: what predicts.
            engine: ``onnxruntime`` or ``openvino``.
            smoothing_kernel: instead of the bundle's own; ``(1.0,)`` smooths nothing.

        Raises:
            BundleError: a graph cannot be loaded, or its labels are not the bundle's.
            MissingExtraError: the engine is not installed.
        """
        manifest = bundle.manifest
        self.bundle = bundle
        self.labels = bundle.labels
        self.engine = engine
        self.frontend = manifest.frontend
        self.smoothing_kernel = smoothing_kernel or manifest.post.smoothing_kernel
        self.weights = [member.weight for member in manifest.members]
        self.engines = [load_engine(engine, bundle.member_path(member)) for member in manifest.members]
        for member, loaded in zip(manifest.members, self.engines, strict=True):
            _check_columns(bundle.member_path(member), loaded, self.labels)

    def score_run(self, run: WindowRun) -> Float32:
        """Ensembled probabilities [windows, species] of neighbouring windows, before post-processing."""
        batch = mel.windows_to_input(run.samples, run.n_windows, self.frontend)
        opinions = [sigmoid(_run_in_batches(engine, batch)) for engine in self.engines]
        return ensemble.weighted_mean(opinions, self.weights)

    def finish(self, probabilities: Float32) -> Float32:
        """Post-process one file's probabilities [windows, species]."""
        return postprocess.smooth(probabilities, self.smoothing_kernel)

    def predict(self, path: str | Path) -> Float32:
        """Probabilities [windows, species] of one sound file, on the calling thread.

        Raises:
            AudioError: the file yields no sound.
        """
        with AudioStream(Path(path), self.frontend.audio.sample_rate) as stream:
            runs = cut_runs(stream.blocks(), RUN_WINDOWS, self.frontend)
            return self.finish(np.concatenate([self.score_run(run) for run in runs]))


def _run_in_batches(engine: Engine, batch: Float32) -> Float32:
    pieces = [engine.run(batch[begin : begin + BATCH_SIZE]) for begin in range(0, len(batch), BATCH_SIZE)]
    return np.concatenate(pieces)


def _check_columns(path: Path, engine: Engine, labels: tuple[str, ...]) -> None:
    """A graph made for other labels would answer, in the wrong columns; so it is refused."""
    remedy = "members of one bundle need one taxonomy: export them together"
    if engine.n_labels is not None and engine.n_labels != len(labels):
        raise BundleError(path, f"scores {engine.n_labels} labels, the manifest lists {len(labels)}", remedy)
    if engine.labels_sha256 and engine.labels_sha256 != labels_sha256(labels):
        raise BundleError(path, "was exported with other labels than the manifest lists", remedy)
