"""Waveform -> spectrogram as PNG for the page of detections: dark on white, mel-scaled, a picture of few kilobytes.

The log-mel is the front end's; sixteen shades of grey need no library to be written.
"""

import struct
import zlib

import numpy as np

from birdinfer.config import MelConfig
from birdinfer.features.log_mel import hz_to_mel, log_mel
from birdinfer.typing import Float32, UInt8

_COLUMNS_PER_SECOND = 64
_ROWS = 112
_LOWEST_HZ = 150.0
_SHADES = 16
_QUIET_PERCENTILE, _NOISE_PERCENTILE, _LOUD_PERCENTILE = 2.0, 35.0, 99.8
_LEAST_CONTRAST_DB = 25.0
"""Between white and black, so that noise alone does not become a pattern."""
_MARKS_KHZ = (1, 2, 4, 8, 16, 32, 64)


def mel_config(sample_rate: int) -> MelConfig:
    """Configure a spectrogram of sound at ``sample_rate`` Hz."""
    n_fft = 1 << max(6, round(np.log2(sample_rate * 0.032)))
    return MelConfig(
        n_fft=n_fft, hop_length=max(16, sample_rate // _COLUMNS_PER_SECOND), n_mels=_ROWS, f_min_hz=_LOWEST_HZ,
        f_max_hz=sample_rate / 2,
    )  # fmt: skip


def draw_spectrogram(samples: Float32, sample_rate: int) -> bytes:
    """Draw mono sound [samples], at least one, as PNG: white is the sound's noise, black its loudest."""
    config = mel_config(sample_rate)
    n_frames = max(1, len(samples) // config.hop_length)
    padded = np.pad(samples, config.n_fft // 2, mode="reflect" if len(samples) > config.n_fft // 2 else "constant")
    decibels = log_mel(np.pad(padded, (0, config.n_fft)), n_frames, config, sample_rate).T[::-1]
    noise = np.percentile(decibels, _NOISE_PERCENTILE)
    noise_of_rows = np.percentile(decibels, _NOISE_PERCENTILE, axis=1, keepdims=True)
    # Half of each frequency's own noise: wind and traffic are paler, a long tone is still there.
    louder = decibels - (noise + noise_of_rows) / 2
    levels = louder / max(float(np.percentile(louder, _LOUD_PERCENTILE)), _LEAST_CONTRAST_DB)
    shades = np.rint((1 - np.clip(levels, 0, 1)) * (_SHADES - 1)).astype(np.uint8)
    return _grey_png(shades)


def draw_input(values: Float32) -> bytes:
    """Draw a network's input [rows, columns], the lowest frequency first, as PNG: its range from white to black."""
    low, high = np.percentile(values, (_QUIET_PERCENTILE, _LOUD_PERCENTILE))
    levels = (values[::-1] - low) / max(float(high - low), 1e-6)
    return _grey_png(np.rint((1 - np.clip(levels, 0, 1)) * (_SHADES - 1)).astype(np.uint8))


def khz_marks(sample_rate: int) -> list[tuple[int, float]]:
    """List round frequencies in kHz with their height in the picture, 0 (bottom) to 1, none at its edges."""
    config = mel_config(sample_rate)
    edges_and_marks = np.array([config.f_min_hz, config.f_max_hz, *(1000.0 * khz for khz in _MARKS_KHZ)])
    low, high, *marks = hz_to_mel(edges_and_marks, config.scale)
    heights = [(khz, round(float((mark - low) / (high - low)), 4)) for khz, mark in zip(_MARKS_KHZ, marks, strict=True)]
    return [(khz, height) for khz, height in heights if 0.05 < height < 0.95]


def _grey_png(shades: UInt8) -> bytes:
    """Write shades 0 (black) to 15 (white) [rows, columns] as PNG with 4 bits each (W3C, Portable Network Graphics)."""
    rows, columns = shades.shape
    even = np.pad(shades, ((0, 0), (0, columns % 2)))
    packed = even[:, ::2] << 4 | even[:, 1::2]
    lines = np.pad(packed, ((0, 0), (1, 0)))  # each begins with its filter, 0: none
    header = struct.pack(">IIBBBBB", columns, rows, 4, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
