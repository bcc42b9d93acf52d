"""Validation: a model and the clips it was not trained on -> out-of-fold probabilities and what they are worth.

A clip's probability is the mean over its windows. Truth counts a clip's secondary labels as present: the recordist
heard them, and a model that does so, too, is not wrong.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from birdinfer.metrics import macro_roc_auc
from birdinfer.training.dataset import ClipWindows, build_targets
from birdinfer.training.metadata import Clip

Float32 = npt.NDArray[np.float32]

_SMALLEST = 1e-7
"""Keeps the logarithm of a probability finite."""


class Validation(NamedTuple):
    """Clips that could be decoded, and what the model says of them."""

    clips: tuple[Clip, ...]
    probabilities: Float32
    """[clips, labels], 0 to 1."""
    failed: tuple[str, ...]
    """Clips that could not be decoded, a line each; they are not in ``clips``."""
    loss: float | None
    macro_auc: float | None
    top1: float | None


def evaluate(
    predict: Callable[[torch.Tensor], torch.Tensor],
    loader: Iterable[Sequence[ClipWindows]],
    clips: Sequence[Clip],
    labels: Sequence[str],
    between: Callable[[], None] = lambda: None,
) -> Validation:
    """Predict validation clips and score them.

    Args:
        predict: waveforms [windows, samples] -> logits [windows, labels]; its model is in eval mode.
        loader: batches of the clips' windows.
        clips: the validation clips, which the loader's indices refer to.
        labels: columns of the logits.
        between: called between batches; may raise to stop.
    """
    heard: dict[int, Float32] = {}
    failed: list[str] = []
    for batch in loader:
        between()
        failed += [item.failed for item in batch if item.failed]
        heard |= _predict_clips(predict, [item for item in batch if len(item.waveforms)])
    kept = tuple(clips[index] for index in sorted(heard))
    rows = [heard[index] for index in sorted(heard)]
    probabilities = np.stack(rows) if rows else np.zeros((0, len(labels)), np.float32)
    return Validation(kept, probabilities, tuple(failed), *_score(kept, probabilities, labels))


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


def _predict_clips(predict: Callable[[torch.Tensor], torch.Tensor], items: Sequence[ClipWindows]) -> dict[int, Float32]:
    """Clip index -> mean probability of its windows [labels]."""
    if not items:
        return {}
    logits = predict(torch.from_numpy(np.concatenate([item.waveforms for item in items])))
    windows = torch.sigmoid(logits.float()).cpu().numpy()
    ends = np.cumsum([len(item.waveforms) for item in items])
    per_clip = np.split(windows, ends[:-1])
    return {item.clip_index: rows.mean(axis=0) for item, rows in zip(items, per_clip, strict=True)}


def _score(
    clips: Sequence[Clip], probabilities: Float32, labels: Sequence[str]
) -> tuple[float | None, float | None, float | None]:
    """Loss, macro ROC-AUC and top-1; None for what cannot be computed."""
    if not clips:
        return None, None, None
    truth = build_targets(clips, labels, secondary_weight=1.0)
    sure = np.clip(probabilities, _SMALLEST, 1 - _SMALLEST).astype(np.float64)
    loss = float(-np.mean(truth * np.log(sure) + (1 - truth) * np.log(1 - sure)))
    auc = macro_roc_auc(truth.astype(np.int8), probabilities)
    guessed = [labels[index] for index in probabilities.argmax(axis=1)]
    top1 = float(np.mean([clip.primary_label == label for clip, label in zip(clips, guessed, strict=True)]))
    return loss, None if np.isnan(auc) else auc, top1
