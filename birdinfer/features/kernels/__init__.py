"""The front end in C: samples [samples] -> decibels [windows, n_mels, frames], several times as fast as numpy.

:mod:`birdinfer.features.log_mel` defines what is computed and passes its window and filterbank; ``log_mel.c``
computes the same for 4, 8 or 16 frames side by side, one in each lane of the processor's vectors. The library is built
with the wheel or the editable install (``hatch_build.py``). Where it is missing, was built for another system or has
another interface, :func:`library` is None and numpy does the work. ctypes releases Python's lock during a call, so
that threads run side by side.
"""

import ctypes
import functools
from pathlib import Path

import numpy as np

from birdinfer.typing import Float32, Float64, Int32, Int64

INTERFACE = 2
"""Must equal the number in log_mel.c: raise both when the plan or the arguments change."""

LIBRARY = Path(__file__).with_name("log_mel.so")

_LEAF_POINTS = (8, 4, 1)
"""Transforms of these sizes are not split any further (``transform`` in log_mel_lanes.h)."""

_MAX_FACTOR = 61
"""The largest odd factor that ``transform`` splits off (log_mel.c); lengths with a larger one become a convolution."""

_ALIGNMENT = 64
"""Bytes of the widest vector, 16 floats."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded library, or None where numpy has to do."""
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
        return loaded if loaded.log_mel_interface() == INTERFACE else None
    except (OSError, AttributeError):  # not built, built for another processor, or no library of ours
        return None


class _Plan(ctypes.Structure):
    """``struct log_mel_plan`` of log_mel.c, field by field."""

    _fields_ = (
        ("n_fft", ctypes.c_int32),
        ("hop_length", ctypes.c_int32),
        ("n_mels", ctypes.c_int32),
        ("n_transform", ctypes.c_int32),
        ("floor", ctypes.c_float),
        ("window", ctypes.c_void_p),
        ("twiddles", ctypes.c_void_p),
        ("real_twiddles", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("chirp", ctypes.c_void_p),
        ("chirp_spectrum", ctypes.c_void_p),
        ("first_bins", ctypes.c_void_p),
        ("n_bins", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
    )


class LogMelKernel:
    """The kernel with its tables for one setting; may be shared by threads."""

    def __init__(self, window: Float32, bank: Float32, hop_length: int, floor: float) -> None:
        """Compute the tables.

        ``window``: [n_fft], an even number of samples, at least 64.
        ``bank``: filters [n_fft / 2 + 1, n_mels]; the bins of each are neighbours, or it has none.
        ``floor``: power added before the logarithm, > 0.
        """
        n_points = len(window) // 2
        is_smooth = max(_radices(n_points), default=1) <= _MAX_FACTOR
        n_transform = n_points if is_smooth else 1 << (2 * n_points - 2).bit_length()
        self._n_fft, self._n_mels, self._n_transform = len(window), bank.shape[1], n_transform
        places = np.empty(n_transform, np.int32)
        places[_order(np.arange(n_transform))] = np.arange(n_transform)
        # The plan holds addresses only: the tables live as long as it does.
        self._tables = (
            window * np.float32(0.5),
            _twiddles(n_transform),
            _roots(np.arange(n_points // 2 + 1) / len(window)),
            places,
            *_chirp(n_points, n_transform),
            *_bands(bank),
        )
        addresses = [table.ctypes.data for table in self._tables]
        self._plan = _Plan(self._n_fft, hop_length, self._n_mels, n_transform, floor, *addresses)

    def __call__(self, samples: Float32, stride: int, out: Float32, lanes: int | None = None) -> None:
        """Compute the decibels of windows.

        ``samples``: contiguous float32; frame t of window i covers ``n_fft`` samples from
        ``i * stride + t * hop_length``.
        ``out``: contiguous float32 [windows, n_mels, frames], written to.
        ``lanes``: frames side by side, 4, 8 or 16; by default what the processor has. The tests ask for less.

        Raises:
            ValueError: an array has another layout or is too small: C would read or write beyond it.
            RuntimeError: the library is not there.
        """
        kernel = library()
        if kernel is None:
            raise RuntimeError(f"{LIBRARY}: is not there or does not load - use numpy's front end")
        self._check(samples, stride, out)
        most = int(kernel.log_mel_lanes())
        lanes = most if lanes is None else max(4, min(lanes, most))
        n_floats = lanes * (4 * self._n_transform + self._n_fft // 2 + 1)  # what log_mel() asks for
        scratch = np.empty(n_floats * 4 + _ALIGNMENT, np.uint8)
        aligned = -(-scratch.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        for index, window in enumerate(out):
            kernel.log_mel(
                ctypes.byref(self._plan),
                ctypes.c_int32(lanes),
                ctypes.c_void_p(samples.ctypes.data + index * stride * samples.itemsize),
                ctypes.c_int64(out.shape[2]),
                ctypes.c_void_p(window.ctypes.data),
                ctypes.c_void_p(aligned),
            )

    def _check(self, samples: Float32, stride: int, out: Float32) -> None:
        if not all(
            array.dtype == np.float32 and array.flags.c_contiguous and array.flags.aligned for array in (samples, out)
        ):
            raise ValueError(f"samples and out: contiguous float32 is needed, got {samples.dtype} and {out.dtype}")
        if out.ndim != 3 or out.shape[1] != self._n_mels or not out.flags.writeable:
            raise ValueError(f"out: [windows, {self._n_mels}, frames], writeable, is needed, got {list(out.shape)}")
        reach = (len(out) - 1) * stride + (out.shape[2] - 1) * self._plan.hop_length + self._n_fft
        if samples.ndim != 1 or stride < 0 or (out.size and len(samples) < reach):
            raise ValueError(f"samples: {reach} in one row are needed, got {list(samples.shape)}, stride {stride}")


def _roots(turns: Float64) -> Float32:
    """``e^(-2 pi i turns)`` as pairs of float32, flat; computed in double, for a table is rounded once only."""
    angles = -2.0 * np.pi * turns.ravel()
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32).ravel()


def _radices(n_points: int) -> list[int]:
    """Into how many parts ``transform`` splits that many points, outermost level first."""
    radices = []
    while n_points not in _LEAF_POINTS:
        odd = (factor for factor in range(3, n_points + 1, 2) if n_points % factor == 0)
        radices.append(4 if n_points % 4 == 0 else 2 if n_points % 2 == 0 else next(odd))
        n_points //= radices[-1]
    return radices


def _twiddles(n_points: int) -> Float32:
    """The roots of 1 that ``transform`` reads: per level, for each j the powers 1 to r - 1 of e^(-2 pi i j / n)."""
    levels = [np.zeros(0, np.float32)]
    for radix in _radices(n_points):
        if radix % 2:
            levels.append(_roots(np.arange(radix) / radix))
        levels.append(_roots(np.arange(n_points // radix)[:, None] * np.arange(1, radix) / n_points))
        n_points //= radix
    return np.concatenate(levels)


def _order(points: Int64) -> Int64:
    """The points as ``transform`` wants them: at each level of r parts, those of equal remainder by r together."""
    radix = next(iter(_radices(len(points))), 1)
    if radix == 1:
        return points
    return np.concatenate([_order(points[remainder::radix]) for remainder in range(radix)])


def _chirp(n_points: int, n_transform: int) -> tuple[Float32, Float32]:
    """What turns a transform into a convolution: e^(-pi i j j / n), and the spectrum of its conjugate / n_transform."""
    if n_transform == n_points:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    turns = (np.arange(n_points) ** 2 % (2 * n_points)) / (2 * n_points)
    circular = np.zeros(n_transform, np.complex128)
    circular[:n_points] = np.exp(2j * np.pi * turns)
    circular[n_transform - n_points + 1 :] = circular[1:n_points][::-1]
    spectrum = np.fft.fft(circular) / n_transform
    return _roots(turns), spectrum.astype(np.complex64).view(np.float32)


def _bands(bank: Float32) -> tuple[Int32, Int32, Float32]:
    """Filters [bins, n_mels] -> first bin [n_mels], number of bins [n_mels], weights one filter after another."""
    own_bins = [np.flatnonzero(weights) for weights in bank.T]
    bands = [slice(int(bins[0]), int(bins[-1]) + 1) if bins.size else slice(0, 0) for bins in own_bins]
    weights = np.concatenate([bank[band, mel] for mel, band in enumerate(bands)])
    first = np.array([band.start for band in bands], np.int32)
    return first, np.array([band.stop - band.start for band in bands], np.int32), weights
