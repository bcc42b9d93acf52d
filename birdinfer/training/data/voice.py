"""A clip without people's speech: a waveform and where there is speech -> what is left of it.

In: mono float32 [samples] at any rate, and spans in seconds (:mod:`birdinfer.inference.voice` finds them). Out: the
sound that is left. Recordists name date and species at a clip's end; a network would learn their voices as well as the
birds'.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from birdinfer.audio.speech import Span
from birdinfer.typing import Float32

_FADE_SECONDS = 0.01


class Removal(NamedTuple):
    """A waveform after :func:`remove_spans`."""

    samples: Float32
    removed_seconds: float
    note: str = ""
    """Why speech was left in, "" if none was."""


def remove_spans(samples: Float32, spans: Sequence[Span], sample_rate: int, least_seconds: float) -> Removal:
    """Cut spans out of a waveform; what is left is joined by cross-fades of 10 ms of equal power.

    Args:
        samples: mono waveform.
        spans: from and to in seconds, in order, not touching.
        sample_rate: Hz, of the waveform.
        least_seconds: where less than this would be left, everything is, with a note.
    """
    cuts = [0, *(min(round(edge * sample_rate), len(samples)) for span in spans for edge in span), len(samples)]
    removed = sum(end - begin for begin, end in zip(cuts[1::2], cuts[2::2], strict=False)) / sample_rate
    if not removed:
        return Removal(samples, 0.0)
    kept = len(samples) / sample_rate - removed
    if kept < least_seconds:
        note = f"{removed:.1f} s of speech are left in, without them there would be {kept:.1f} s"
        return Removal(samples, 0.0, note)
    pieces = [samples[begin:end] for begin, end in zip(cuts[::2], cuts[1::2], strict=True) if end > begin]
    return Removal(_joined(pieces, round(_FADE_SECONDS * sample_rate)), removed)


def _joined(pieces: Sequence[Float32], n_fade: int) -> Float32:
    """The pieces one after another, each join a fade of at most ``n_fade`` samples that both share."""
    whole = [pieces[0]]
    for piece in pieces[1:]:
        before = whole.pop()
        shared = min(n_fade, len(before), len(piece))
        way = (
            (np.arange(shared, dtype=np.float32) + np.float32(0.5)) / np.float32(max(1, shared)) * np.float32(np.pi / 2)
        )
        kept = len(before) - shared
        join = before[kept:] * np.cos(way) + piece[:shared] * np.sin(way)
        whole += [before[:kept], join, piece[shared:]]
    return np.concatenate(whole)
