"""The front end's compiled twin, several times as fast: samples [samples] -> decibels [windows, n_mels, frames].

:mod:`birdinfer.mel` defines what is computed and hands over its window and filterbank; ``log_mel.c`` computes the same
for 4, 8 or 16 frames side by side, as many as the processor has lanes. Its library is built with the wheel or the
editable install (``hatch_build.py``). Where it is missing, foreign or of another interface, :func:`library` is None and
numpy does the work. ctypes lets go of Python's lock during a call, so lanes run side by side.
"""

import ctypes
import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

INTERFACE = 1
"""The number that log_mel.c must give, too: raised there and here when the plan or the arguments change."""

LIBRARY = Path(__file__).with_name("log_mel.so")

_LEAF_POINTS = 8
"""So many points, or half as many, are transformed at once (log_mel_lanes.h); more are split into four parts."""

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


def takes(n_fft: int) -> bool:
    """Whether the kernel is there and computes frames of ``n_fft`` samples: powers of two from 64."""
    return library() is not None and n_fft >= 64 and n_fft & (n_fft - 1) == 0


class _Plan(ctypes.Structure):
    """``struct log_mel_plan`` of log_mel.c, field by field."""

    _fields_ = (
        ("n_fft", ctypes.c_int32),
        ("hop_length", ctypes.c_int32),
        ("n_mels", ctypes.c_int32),
        ("floor", ctypes.c_float),
        ("window", ctypes.c_void_p),
        ("twiddles", ctypes.c_void_p),
        ("real_twiddles", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("first_bins", ctypes.c_void_p),
        ("n_bins", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
    )


class LogMelKernel:
    """The kernel with its tables for one setting; may be shared by threads."""

    def __init__(self, window: Float32, bank: Float32, hop_length: int, floor: float) -> None:
        """Make the tables.

        Args:
            window: [n_fft]; ``n_fft`` is one that :func:`takes` says yes to.
            bank: filters [n_fft / 2 + 1, n_mels]; each hears neighbouring bins, or none.
            hop_length: samples between frames.
            floor: power added before the logarithm, > 0.
        """
        n_points = len(window) // 2
        self._n_fft, self._n_mels = len(window), bank.shape[1]
        # The plan holds addresses only: the tables live as long as it does.
        self._tables = (
            window * np.float32(0.5),
            _twiddles(n_points),
            _roots(np.arange(n_points // 2 + 1) / len(window)),
            np.argsort(_order(np.arange(n_points))).astype(np.int32),
            *_bands(bank),
        )
        addresses = [table.ctypes.data for table in self._tables]
        self._plan = _Plan(self._n_fft, hop_length, self._n_mels, floor, *addresses)

    def __call__(self, samples: Float32, stride: int, out: Float32, lanes: int | None = None) -> None:
        """Compute the decibels of windows.

        Args:
            samples: contiguous float32; frame t of window i covers ``n_fft`` samples from
                ``i * stride + t * hop_length``.
            stride: samples between the begins of windows, >= 0.
            out: contiguous float32 [windows, n_mels, frames], written to.
            lanes: frames side by side, 4, 8 or 16; by default what the processor has. The tests ask for less.

        Raises:
            ValueError: an array is laid out otherwise or too small: C would read or write beyond it.
            RuntimeError: the library is not there.
        """
        kernel = library()
        if kernel is None:
            raise RuntimeError(f"{LIBRARY}: is not there or does not load - use numpy's front end")
        self._check(samples, stride, out)
        most = int(kernel.log_mel_lanes())
        lanes = most if lanes is None else max(4, min(lanes, most))
        # Points and power of a block, as log_mel() asks for them.
        scratch = np.empty(lanes * (self._n_fft * 3 // 2 + 1) * 4 + _ALIGNMENT, np.uint8)
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


def _roots(turns: npt.NDArray[np.float64]) -> Float32:
    """``e^(-2 pi i turns)`` as pairs of float32, flat; computed in double, for a table is rounded once only."""
    angles = -2.0 * np.pi * turns.ravel()
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32).ravel()


def _twiddles(n_points: int) -> Float32:
    """The transform's roots of 1, outermost level first: for each j the powers 1, 2 and 3 of e^(-2 pi i j / n)."""
    levels = [np.zeros(0, np.float32)]
    while n_points > _LEAF_POINTS:
        levels.append(_roots(np.arange(n_points // 4)[:, None] * np.arange(1, 4) / n_points))
        n_points //= 4
    return np.concatenate(levels)


def _order(points: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The points as the transform wants them: at each level, those of equal remainder by 4 together."""
    if len(points) <= _LEAF_POINTS:
        return points
    return np.concatenate([_order(points[remainder::4]) for remainder in range(4)])


def _bands(bank: Float32) -> tuple[Int32, Int32, Float32]:
    """Filters [bins, n_mels] -> first heard bin [n_mels], number of bins [n_mels], weights one filter after another."""
    heard = [np.flatnonzero(weights) for weights in bank.T]
    bands = [slice(int(bins[0]), int(bins[-1]) + 1) if bins.size else slice(0, 0) for bins in heard]
    weights = np.concatenate([bank[band, mel] for mel, band in enumerate(bands)])
    first = np.array([band.start for band in bands], np.int32)
    return first, np.array([band.stop - band.start for band in bands], np.int32), weights
