"""Validation: a model and the clips it was not trained on -> out-of-fold probabilities and what they are worth.

Hearing clips and scoring them are two steps, for several processes may each hear a share before one of them scores. A
clip's probability is the mean over its windows. Truth counts a clip's secondary labels as present: the recordist heard
them, and a model that does so, too, is not wrong.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from birdinfer.errors import ConfigError
from birdinfer.labels import Species
from birdinfer.metrics import macro_roc_auc, padded_cmap
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.dataset import ClipWindows
from birdinfer.training.logits import Logits
from birdinfer.training.targets import truth

Float32 = npt.NDArray[np.float32]
Predict = Callable[[torch.Tensor], Logits]

_SMALLEST = 1e-7
"""Keeps the logarithm of a probability finite."""


class Heard(NamedTuple):
    """What a model says of clips, all of them or one process's share."""

    probabilities: dict[int, Float32]
    """The clip's index -> float32 [labels], 0 to 1."""
    failed: tuple[str, ...]
    """Clips that could not be decoded, a line each."""

    @classmethod
    def together(cls, shares: Iterable["Heard"]) -> "Heard":
        """The shares of several processes as one."""
        probabilities: dict[int, Float32] = {}
        failed: tuple[str, ...] = ()
        for share in shares:
            probabilities |= share.probabilities
            failed += share.failed
        return cls(probabilities, failed)


class Validation(NamedTuple):
    """Clips that could be decoded, and what the model says of them; a score is None where it cannot be computed."""

    clips: tuple[Clip, ...]
    probabilities: Float32
    """[clips, labels], 0 to 1."""
    failed: tuple[str, ...]
    """Clips that could not be decoded, a line each; they are not in ``clips``."""
    loss: float | None
    """Binary cross-entropy of the probabilities, the same for all training losses."""
    macro_auc: float | None
    """The metric of BirdCLEF 2024 to 2026, 0 to 1."""
    padded_cmap: float | None
    """The metric of BirdCLEF 2023, 0 to 1."""
    top1: float | None
    """Share of the clips whose most probable species is their primary label."""


def predict_clips(
    predict: Predict,
    loader: Iterable[Sequence[ClipWindows]],
    activation: Literal["sigmoid", "softmax"],
    between: Callable[[], None] = lambda: None,
) -> Heard:
    """Hear clips.

    Args:
        predict: waveforms [windows, samples] -> logits; its model is in eval mode.
        loader: batches of the clips' windows.
        activation: what makes the clip's logits into probabilities.
        between: called between batches; may raise to stop.
    """
    probabilities: dict[int, Float32] = {}
    failed: list[str] = []
    for batch in loader:
        between()
        failed += [item.failed for item in batch if item.failed]
        probabilities |= _hear(predict, [item for item in batch if len(item.waveforms)], activation)
    return Heard(probabilities, tuple(failed))


def score(clips: Sequence[Clip], heard: Heard, species: Sequence[Species]) -> Validation:
    """Score what was heard.

    Args:
        clips: the validation clips, which the indices of ``heard`` refer to.
        heard: of all of them, or of those that could be decoded.
        species: columns of the probabilities.

    Raises:
        ConfigError: the model answers with what is no number.
    """
    labels = [one.label for one in species]
    kept = tuple(clips[index] for index in sorted(heard.probabilities))
    rows = [heard.probabilities[index] for index in sorted(heard.probabilities)]
    probabilities = np.stack(rows) if rows else np.zeros((0, len(labels)), np.float32)
    _check_finite(probabilities)
    if not kept:
        return Validation(kept, probabilities, heard.failed, None, None, None, None)
    present = truth(kept, labels)
    return Validation(
        kept,
        probabilities,
        heard.failed,
        loss=_cross_entropy(present, probabilities),
        macro_auc=_or_none(macro_roc_auc(present, probabilities)),
        padded_cmap=_or_none(padded_cmap(present, probabilities)),
        top1=_top1(kept, probabilities, labels),
    )


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The model in eval mode, without gradients; afterwards in the mode it was in.

    In training mode BatchNorm would use the batch's own statistics, so that a clip's score would hang on its
    neighbours, and would go on learning from the validation clips.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train(was_training)


def oof_table(validation: Validation, labels: Sequence[str]) -> str:
    """Out-of-fold probabilities as CSV: filename, primary_label, then one column per label."""
    import pandas as pd

    columns: dict[str, Any] = {
        "filename": [clip.filename for clip in validation.clips],
        "primary_label": [clip.primary_label for clip in validation.clips],
    }
    scores = pd.DataFrame(validation.probabilities, columns=list(labels))
    table = pd.concat([pd.DataFrame(columns, dtype=str), scores], axis=1)
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, float_format="%.7g", lineterminator="\n")
    return buffer.getvalue()


def _hear(predict: Predict, items: Sequence[ClipWindows], activation: str) -> dict[int, Float32]:
    """Clip index -> mean probability of its windows [labels]."""
    if not items:
        return {}
    logits = predict(torch.from_numpy(np.concatenate([item.waveforms for item in items]))).clip.float()
    activated = torch.softmax(logits, dim=1) if activation == "softmax" else torch.sigmoid(logits)
    ends = np.cumsum([len(item.waveforms) for item in items])
    per_clip = np.split(activated.cpu().numpy(), ends[:-1])
    return {item.clip_index: rows.mean(axis=0) for item, rows in zip(items, per_clip, strict=True)}


def _check_finite(probabilities: Float32) -> None:
    """A network whose weights or statistics overflowed answers nan; fp16 does that to some (pitfall 12)."""
    n_wrong = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if n_wrong:
        raise ConfigError(
            "optim.lr",
            f"the model's answers to {n_wrong} of {len(probabilities)} validation clips are no numbers",
            "lower it, or set loop.amp=off",
        )


def _cross_entropy(present: npt.NDArray[np.int8], probabilities: Float32) -> float:
    sure = np.clip(probabilities, _SMALLEST, 1 - _SMALLEST).astype(np.float64)
    return float(-np.mean(np.log(np.where(present, sure, 1 - sure))))


def _top1(clips: Sequence[Clip], probabilities: Float32, labels: Sequence[str]) -> float:
    guessed = [labels[index] for index in probabilities.argmax(axis=1)]
    return float(np.mean([clip.primary_label == label for clip, label in zip(clips, guessed, strict=True)]))


def _or_none(score: float) -> float | None:
    return None if np.isnan(score) else score
