"""Measure what a linear part of a graph computes: one set of weights that moves over the waveform.

In: a function from waveforms [windows, samples] to values [windows, ...]. Out: :class:`FrameKernel`, so that value c of
frame t is ``waveform[first + t * hop : ...] @ taps[c] + offsets[c]``, or None if it computes something else. Impulses
find the weights, noise proves them, at the edges, too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birdinfer.typing import Float32, Int64

Run = Callable[[Float32], Float32]

TOLERANCE = 1e-4
"""Of the largest value for noise, between the kernel and the graph."""
_QUIET = 1e-6
"""Share of the loudest response below which a frame does not answer an impulse: rounding."""
_LEAST_FRAMES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Silence:
    """What a linear function gives for a frame that is constant."""

    steady: Float32
    """[channels]: for 1, beyond the offsets; nearly 0 for most bins of a windowed transform."""
    window: Float32 | None = None
    """[length]: the frame is multiplied with it first, in single precision."""
    rest: NDArray[np.float64] | None = None
    """[length, channels]: what becomes of that product."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameKernel:
    """Weights that move over a waveform."""

    taps: Float32
    """[channels, length]."""
    offsets: Float32
    """[channels]: the values of silence."""
    first: int
    """The sample with which frame 0 begins; below 0 or beyond the end there is silence."""
    hop: int
    n_frames: int
    time_axis: int
    """Of the values of one window."""
    channel_shape: tuple[int, ...]
    """The values of one frame."""
    silence: Silence | None = None
    """What it gives for a constant waveform, if that is needed."""


def measure_kernel(run: Run, n_samples: int) -> FrameKernel | None:
    """Find the weights that a linear function of a waveform applies to every frame.

    ``run``: waveforms [windows, n_samples], any number -> values [windows, ...].
    """
    silence = run(np.zeros((1, n_samples), np.float32))[0]
    middle = n_samples // 2
    alone = _responses(run, [[middle]], n_samples, silence)[0]
    found = _time_axis(alone)
    if found is None:
        return None
    axis, begin, end = found
    n_frames = alone.shape[axis]
    frames = _frames_first(alone, axis)
    hop = _hop(run, n_samples, silence, axis, frames)
    if hop is None:
        return None
    # Impulses so far apart that no frame answers two of them.
    reach = (end - begin + 2) * hop
    per_run = max(1, (n_samples - 4 * reach) // (2 * reach))
    low = middle - (per_run // 2) * 2 * reach
    places = [low + 2 * reach * index for index in range(per_run)]
    rounds = [
        [place + shift for place, shift in zip(places, range(start, hop), strict=False)]
        for start in range(0, hop, per_run)
    ]
    taps: dict[int, Float32] = {}
    for some, values in zip(rounds, _responses(run, rounds, n_samples, silence), strict=True):
        every = _frames_first(values, axis)
        for place in some:
            nearest = begin + (place - middle) // hop
            for frame in range(max(0, nearest - 1), min(n_frames, nearest + end - begin + 2)):
                taps[place - hop * frame] = every[frame]
    loudest = max(float(np.abs(tap).max()) for tap in taps.values())
    loud = [place for place, tap in taps.items() if float(np.abs(tap).max()) > _QUIET * loudest]
    span = range(min(loud), max(loud) + 1)
    if not all(place in taps for place in span):
        return None
    channels = _frames_first(silence, axis)
    kernel = FrameKernel(
        taps=np.stack([taps[place] for place in span], axis=1).astype(np.float32),
        offsets=channels[0],
        first=span.start,
        hop=hop,
        n_frames=n_frames,
        time_axis=axis,
        channel_shape=tuple(np.delete(alone.shape, axis).tolist()),
    )
    return kernel if _is_proven(run, kernel, n_samples, axis) else None


def apply_kernel(kernel: FrameKernel, waveform: Float32, frames: Int64) -> Float32:
    """Compute some frames of one waveform [samples]: [frames, channels]."""
    length = kernel.taps.shape[1]
    before = max(0, -kernel.first)
    after = max(0, kernel.first + kernel.hop * (kernel.n_frames - 1) + length - len(waveform))
    padded = np.pad(waveform, (before, after))
    index = (kernel.first + before + kernel.hop * frames)[:, None] + np.arange(length)
    return np.asarray(padded[index] @ kernel.taps.T + kernel.offsets, np.float32)


def _responses(run: Run, places: list[list[int]], n_samples: int, silence: Float32) -> list[Float32]:
    found = []
    for some in places:
        waveform = np.zeros((1, n_samples), np.float32)
        waveform[0, some] = 1
        found.append(run(waveform)[0] - silence)
    return found


def _frames_first(values: Float32, axis: int) -> Float32:
    """[frames, channels]."""
    return np.ascontiguousarray(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1))


def _time_axis(values: Float32) -> tuple[int, int, int] | None:
    """The axis along which few places answer an impulse, and the first and last of them; None if there is none."""
    found = []
    for axis, size in enumerate(values.shape):
        level = np.abs(_frames_first(values, axis)).max(axis=1)
        lit = np.flatnonzero(level > _QUIET * level.max()) if level.max() > 0 else np.zeros(0, np.int64)
        if size >= _LEAST_FRAMES and len(lit):
            found.append(((lit[-1] + 1 - lit[0]) / size, axis, int(lit[0]), int(lit[-1]) + 1))
    share, axis, begin, end = min(found, default=(1.0, 0, 0, 0))
    return (axis, begin, end) if share < 0.5 else None


def _hop(run: Run, n_samples: int, silence: Float32, axis: int, frames: Float32) -> int | None:
    """Samples after which the next frame answers as this one did; None if none does."""
    middle, n_frames = n_samples // 2, len(frames)
    step = n_samples // 4

    def answers(place: int) -> Float32:
        return _frames_first(_responses(run, [[place]], n_samples, silence)[0], axis)

    def centre(values: Float32) -> float:
        energy = np.square(values).sum(axis=1)
        return float((energy * np.arange(n_frames)).sum() / energy.sum())

    later = answers(middle + step)
    moved = centre(later) - centre(frames) if later.any() else 0
    if moved <= 0:
        return None
    # Where two frames answer an impulse, both centres may be off by one of them: of a long hop that is many samples.
    guess = round(step / moved)
    least, most = (round(step / max(1.0, moved + by)) for by in (2.0, -2.0))
    loudest = np.abs(frames).max()
    near = range(max(1, min(least, guess - 3)), min(max(most, guess + 3), step) + 1)
    for hop in sorted(near, key=lambda each: abs(each - guess)):
        if np.abs(answers(middle + hop)[1:] - frames[:-1]).max() <= 1e-5 * loudest:
            return hop
    return None


def _is_proven(run: Run, kernel: FrameKernel, n_samples: int, axis: int) -> bool:
    """Whether the kernel gives what the graph gives for noise, at both edges and everywhere between."""
    noise = np.random.default_rng(0).normal(0, 0.3, (1, n_samples)).astype(np.float32)
    values = _frames_first(run(noise)[0], axis)
    edge = np.arange(min(4, kernel.n_frames))
    between = np.linspace(0, kernel.n_frames - 1, 16).astype(np.int64)
    some = np.unique(np.concatenate([edge, between, kernel.n_frames - 1 - edge]))
    expected = apply_kernel(kernel, noise[0], some)
    return bool(np.abs(expected - values[some]).max() <= TOLERANCE * np.abs(values).max())
