"""Make soundscapes and clips whose truth is known: a random generator -> waveforms and events, or files on disk.

For the quick start and the tests, which must run without a download. Calls of eight invented species
(:mod:`birdinfer.synthetic.calls`) are mixed with coloured noise, clicks and gusts of wind.

* Waveforms are mono float32 [samples] in [-1, 1] at ``sample_rate`` (Hz).
* SNR is in dB: the call's power over the background's, both averaged over the whole event (pauses of a trill included)
  and over the call's band, which holds the middle 95 % of its energy.
* A window is positive for a species if one of its events overlaps it by at least ``MIN_OVERLAP_SECONDS``. No event
  overlaps a window by less: the truth of every cell is certain.
* Equal seeds give equal samples.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from birdinfer.audio.windows import count_windows, end_seconds
from birdinfer.config import FrontEndConfig, WindowConfig
from birdinfer.errors import ConfigError
from birdinfer.species import Species
from birdinfer.synthetic.calls import HIGHEST_HZ, VOICES, make_call
from birdinfer.system.files import atomic_file, write_atomic
from birdinfer.tables.csv import csv_text
from birdinfer.typing import Bool, Float32, Float64

SPECIES: tuple[Species, ...] = tuple(VOICES)
"""The invented species, in column order."""

SAMPLE_RATE = 32_000
MIN_OVERLAP_SECONDS = 0.25
"""A quarter of a second holds a note of every species; a shorter part could not be identified."""

SPECIES_PER_SOUNDSCAPE = 4

_BAND_ENERGY = 0.95
_PEAK = 0.98


class Event(NamedTuple):
    """One call in a soundscape or clip."""

    label: str
    onset_seconds: float
    offset_seconds: float
    snr_db: float


def make_soundscape(
    rng: np.random.Generator,
    duration_seconds: float = 60.0,
    sample_rate: int = SAMPLE_RATE,
    *,
    labels: Sequence[str] | None = None,
    calls_per_minute: float = 14.0,
    snr_db: tuple[float, float] = (3.0, 20.0),
) -> tuple[Float32, list[Event]]:
    """Make one soundscape [samples] and its events in order of their onset; ConfigError for unusable arguments.

    ``rng``: source of randomness. The background does not depend on the calls: with ``calls_per_minute=0`` an equal
    generator gives it alone.
    ``labels``: the species that call; by default four random ones.
    ``calls_per_minute``: expected number; the number is Poisson distributed.

    >>> waveform, events = make_soundscape(np.random.default_rng(0), duration_seconds=5)
    >>> waveform.shape, waveform.dtype
    ((160000,), dtype('float32'))
    """
    _check(duration_seconds, sample_rate)
    background_rng, call_rng = rng.spawn(2)
    background = make_background(background_rng, round(duration_seconds * sample_rate), sample_rate)
    singers = _singers(call_rng, labels)
    waveform, events = background.copy(), []
    for _ in range(call_rng.poisson(calls_per_minute * duration_seconds / 60)):
        species = singers[call_rng.integers(len(singers))]
        call = make_call(species, call_rng, sample_rate)
        onset = _draw_onset(call_rng, len(call), len(background), sample_rate)
        snr = call_rng.uniform(*snr_db)
        events.append(add_call(waveform, background, species.label, call, onset, snr, sample_rate))
    return _limited(waveform), sorted(events, key=lambda event: event.onset_seconds)


def make_clip(
    rng: np.random.Generator,
    label: str,
    secondary_label: str | None = None,
    sample_rate: int = SAMPLE_RATE,
    *,
    snr_db: tuple[float, float] = (3.0, 25.0),
) -> tuple[Float32, list[Event]]:
    """Make one training clip of 6 to 12 s: one species calls throughout, a second one perhaps once, 3 to 10 dB softer.

    ``label``: the dominating species; it is never silent for more than 1.5 s.
    ``secondary_label``: a species that calls once in the background.
    ``snr_db``: lowest and highest SNR of the dominating species; all its calls in a clip have the same.
    """
    _check(6.0, sample_rate)
    bout = _draw_bout(rng, _singers(rng, [label])[0], sample_rate)
    n_samples = bout[-1][0] + len(bout[-1][1]) + round(rng.uniform(0, 0.5) * sample_rate)
    background = make_background(rng, n_samples, sample_rate)
    waveform, snr = background.copy(), rng.uniform(*snr_db)
    events = [add_call(waveform, background, label, call, onset, snr, sample_rate) for onset, call in bout]
    if secondary_label is not None:
        call = make_call(_singers(rng, [secondary_label])[0], rng, sample_rate)
        onset, softer = int(rng.integers(n_samples - len(call))), snr - rng.uniform(3.0, 10.0)
        events.append(add_call(waveform, background, secondary_label, call, onset, softer, sample_rate))
    return _limited(waveform), sorted(events, key=lambda event: event.onset_seconds)


def make_background(rng: np.random.Generator, n_samples: int, sample_rate: int) -> Float32:
    """Make background [n_samples]: coloured noise of -44 to -34 dB rms that swells, with clicks and gusts of wind."""
    level = 10 ** (rng.uniform(-44, -34) / 20)
    knot_seconds = np.arange(0, n_samples / sample_rate + 4.0, 4.0)
    drift_db = np.interp(
        np.arange(n_samples) / sample_rate, knot_seconds, rng.normal(0, 1.5, len(knot_seconds)).cumsum() / 2
    )
    noise = level * _coloured_noise(rng, n_samples, sample_rate) * 10 ** (drift_db / 20)
    for _ in range(rng.poisson(n_samples / sample_rate / 15)):
        _add_at_random(rng, noise, level * rng.uniform(3, 10) * _click(rng, sample_rate))
    for _ in range(rng.poisson(n_samples / sample_rate / 30)):
        _add_at_random(rng, noise, level * rng.uniform(1, 4) * _gust(rng, sample_rate))
    return noise.astype(np.float32)


def window_truth(events: Iterable[Event], n_windows: int, window_seconds: float = 5.0) -> Bool:
    """Compute which species occurs in which window.

    Returns [n_windows, species] in the order of :data:`SPECIES`; True from ``MIN_OVERLAP_SECONDS`` of overlap on.
    """
    columns = {species.label: column for column, species in enumerate(SPECIES)}
    starts = np.arange(n_windows) * window_seconds
    truth = np.zeros((n_windows, len(SPECIES)), np.bool_)
    for event in events:
        overlap = np.minimum(event.offset_seconds, starts + window_seconds) - np.maximum(event.onset_seconds, starts)
        # Half a sample of tolerance: times are samples divided by the rate, and 0.25 s may read 0.24999999.
        truth[:, columns[event.label]] |= overlap >= MIN_OVERLAP_SECONDS - 0.5 / SAMPLE_RATE
    return truth


def _check(duration_seconds: float, sample_rate: int) -> None:
    if duration_seconds < 5:
        raise ConfigError("duration_seconds", f"is {duration_seconds:g}, a soundscape needs at least 5")
    if sample_rate < 2 * HIGHEST_HZ:
        raise ConfigError("sample_rate", f"is {sample_rate}, the calls need at least {2 * HIGHEST_HZ:.0f} Hz")


def _singers(rng: np.random.Generator, labels: Sequence[str] | None) -> list[Species]:
    if labels is None:
        return [SPECIES[i] for i in rng.permutation(len(SPECIES))[:SPECIES_PER_SOUNDSCAPE]]
    by_label = {species.label: species for species in SPECIES}
    for label in labels:
        if label not in by_label:
            raise ConfigError("labels", f"{label!r} is none of the synthetic species", f"known are {list(by_label)}")
    return [by_label[label] for label in labels]


def _draw_bout(rng: np.random.Generator, species: Species, sample_rate: int) -> list[tuple[int, Float64]]:
    """Calls of one bird with their onsets (samples), one after the other for 6 to 7 s."""
    bout, end, enough = [], 0, rng.uniform(6.0, 7.0) * sample_rate
    while end < enough:
        onset, call = end + round(rng.uniform(0.2, 1.5) * sample_rate), make_call(species, rng, sample_rate)
        bout.append((onset, call))
        end = onset + len(call)
    return bout


def _draw_onset(rng: np.random.Generator, length: int, n_samples: int, sample_rate: int) -> int:
    """A random onset (sample) of a call of ``length`` samples that overlaps no window by too little."""
    window, least = round(WindowConfig().window_seconds * sample_rate), round(MIN_OVERLAP_SECONDS * sample_rate)
    # One draw in ten does: never 64 of them in a row.
    onsets = rng.integers(n_samples - length + 1, size=64)
    before_edge, after_edge = window - onsets % window, (onsets + length) % window
    crosses = onsets // window != (onsets + length - 1) // window
    too_little = crosses & ((before_edge < least) | ((after_edge > 0) & (after_edge < least)))
    return int(onsets[~too_little][0])


def add_call(
    waveform: Float32, background: Float32, label: str, call: Float64, onset: int, snr_db: float, sample_rate: int
) -> Event:
    """Add a call to ``waveform`` [samples] in place at ``onset`` (sample), with this SNR (dB) over ``background``."""
    span = slice(onset, onset + len(call))
    call_power, background_power = _band_powers(call, background[span])
    gain = np.sqrt(background_power * 10 ** (snr_db / 10) / call_power)
    waveform[span] += (gain * call).astype(np.float32)
    return Event(label, onset / sample_rate, (onset + len(call)) / sample_rate, float(snr_db))


def _band_powers(call: Float64, background: Float32) -> tuple[float, float]:
    """Power of both [samples] within the call's band, in the same unit."""
    # Padding to a power of two: rfft of a length with a large prime factor is many times slower.
    n_fft = 1 << (len(call) - 1).bit_length()
    call_power, background_power = (np.abs(np.fft.rfft(sound, n_fft)) ** 2 for sound in (call, background))
    share = np.cumsum(call_power) / call_power.sum()
    low, high = np.searchsorted(share, ((1 - _BAND_ENERGY) / 2, (1 + _BAND_ENERGY) / 2))
    band = slice(int(low), int(high) + 1)
    return float(call_power[band].sum()), float(background_power[band].sum())


def _limited(waveform: Float32) -> Float32:
    """The whole waveform, softer if its peak would be clipped; SNR stays."""
    return waveform * np.float32(min(1.0, _PEAK / float(np.abs(waveform).max())))


def _coloured_noise(rng: np.random.Generator, n_samples: int, sample_rate: int) -> Float64:
    """Noise [n_samples] of rms 1: a random mix of pink and brown noise and a recorder's hiss, with random tilt."""
    n_fft = -(-n_samples // sample_rate) * sample_rate  # whole seconds: small prime factors, a fast FFT
    hz = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    khz = np.maximum(hz, 50) / 1000
    pink, brown, hiss, tilt = rng.uniform(0.3, 1), rng.uniform(0, 0.7), rng.uniform(0.1, 0.4), rng.uniform(-0.25, 0.25)
    colour = (pink * khz**-0.5 + brown / khz + hiss) * khz**tilt * (hz**2 / (hz**2 + 80.0**2))
    spectrum = rng.standard_normal((len(hz), 2)).view(np.complex128)[:, 0] * colour
    noise = np.fft.irfft(spectrum, n_fft)[:n_samples]
    return np.asarray(noise / np.sqrt(np.mean(noise**2)))


def _click(rng: np.random.Generator, sample_rate: int) -> Float64:
    """A short broadband crack, peak about 3."""
    decay = np.exp(-np.linspace(0, 6, round(rng.uniform(0.003, 0.015) * sample_rate)))
    return np.asarray(rng.standard_normal(len(decay)) * decay)


def _gust(rng: np.random.Generator, sample_rate: int) -> Float64:
    """One to three seconds of wind: noise below about 200 Hz that swells and fades, rms below 1."""
    n_samples = round(rng.uniform(1, 3) * sample_rate)
    knots = np.arange(0, n_samples + 100, 100)  # straight lines between knots every 3 ms leave the low end of noise
    rumble = np.interp(np.arange(n_samples), knots, rng.standard_normal(len(knots)))
    return np.asarray(rumble * np.hanning(n_samples))


def _add_at_random(rng: np.random.Generator, waveform: Float64, sound: Float64) -> None:
    onset = int(rng.integers(max(1, len(waveform) - len(sound))))
    part = waveform[onset : onset + len(sound)]
    part += sound[: len(part)]


# ---- Files

AUTHORS_PER_SPECIES = 6
"""Enough for folds that keep an author's recordings together."""

_FIRST_RECORDING = datetime(2026, 5, 1, 5, 30)


def write_soundscapes(
    folder: Path,
    n_files: int,
    duration_seconds: float = 60.0,
    seed: int = 0,
    *,
    snr_db: tuple[float, float] = (3.0, 20.0),
) -> Path:
    """Write soundscapes with the truth that ``birdinfer score`` takes, and return the path of ``truth.csv``.

    ``<file id>.ogg`` at 32 kHz, ``truth.csv`` (row ids ``<file id>_<end second>``, 0 or 1 per label), ``events.csv``.
    Four species call in a file, the other four in the next. File i depends on the seed and i alone.
    """
    truth_rows: list[list[object]] = []
    event_rows: list[list[object]] = []
    for index in range(n_files):
        file_id = _file_id(index)
        rng = np.random.default_rng([seed, index])
        waveform, events = make_soundscape(rng, duration_seconds, labels=_labels_of_file(seed, index), snr_db=snr_db)
        write_ogg(folder / f"{file_id}.ogg", waveform, SAMPLE_RATE)
        truth_rows += _truth_rows(file_id, events, len(waveform))
        event_rows += [
            [f"{file_id}.ogg", event.label, *(f"{value:.5f}" for value in event[1:3]), f"{event.snr_db:.2f}"]
            for event in events
        ]
    write_csv(folder / "events.csv", ["filename", "label", "onset_seconds", "offset_seconds", "snr_db"], event_rows)
    return write_csv(folder / "truth.csv", ["row_id", *(species.label for species in SPECIES)], truth_rows)


def write_training_data(folder: Path, clips_per_species: int, seed: int = 0) -> Path:
    """Write clips and tables in the layout of BirdCLEF 2025: train.csv, taxonomy.csv, train_audio/<label>/*.ogg.

    A fifth of the clips has a second species in the background, named in ``secondary_labels``. Clip i of a species
    depends on the seed, the species and i alone.
    """
    taxonomy = [[s.label, 90_000 + i, s.scientific_name, s.common_name, s.class_name] for i, s in enumerate(SPECIES)]
    write_csv(
        folder / "taxonomy.csv",
        ["primary_label", "inat_taxon_id", "scientific_name", "common_name", "class_name"],
        taxonomy,
    )
    rows = [
        _write_training_clip(folder, species, clip, np.random.default_rng([seed, column, clip]))
        for column, species in enumerate(SPECIES)
        for clip in range(clips_per_species)
    ]
    write_csv(folder / "train.csv", list(rows[0]) if rows else [], [list(row.values()) for row in rows])
    return folder


def _labels_of_file(seed: int, index: int) -> list[str]:
    """Four labels for file ``index``: the species are shuffled and split, so that two files hold all of them."""
    n_parts = len(SPECIES) // SPECIES_PER_SOUNDSCAPE
    order = np.random.default_rng([seed, index // n_parts, 1]).permutation(len(SPECIES))
    part = order[(index % n_parts) * SPECIES_PER_SOUNDSCAPE :][:SPECIES_PER_SOUNDSCAPE]
    return [SPECIES[i].label for i in part]


def _file_id(index: int) -> str:
    """Site, date and time, as recorders name their files: four sites, each every half hour."""
    started = _FIRST_RECORDING + timedelta(minutes=30 * (index // 4))
    return f"synthetic_S{index % 4 + 1:02d}_{started:%Y%m%d_%H%M%S}"


def _truth_rows(file_id: str, events: list[Event], n_samples: int) -> list[list[object]]:
    config = FrontEndConfig()
    n_windows = count_windows(n_samples, config.window_samples, config.min_tail_samples)
    truth = window_truth(events, n_windows).astype(int).tolist()
    ends = end_seconds(n_windows, config.window)
    return [[f"{file_id}_{end}", *row] for end, row in zip(ends, truth, strict=True)]


def _write_training_clip(folder: Path, species: Species, clip: int, rng: np.random.Generator) -> dict[str, object]:
    others = [other.label for other in SPECIES if other is not species]
    secondary = others[rng.integers(len(others))] if rng.random() < 0.2 else None
    author = clip % AUTHORS_PER_SPECIES + 1
    waveform, _ = make_clip(rng, species.label, secondary)
    name = f"{species.label}/SYN{clip:05d}.ogg"
    write_ogg(folder / "train_audio" / name, waveform, SAMPLE_RATE)
    return {
        "primary_label": species.label,
        "secondary_labels": str([secondary or ""]),
        "type": str(["song" if species.class_name == "Aves" else "call"]),
        "latitude": f"{rng.uniform(-5, 10):.4f}",
        "longitude": f"{rng.uniform(-80, -70):.4f}",
        "scientific_name": species.scientific_name,
        "common_name": species.common_name,
        "author": f"{species.common_name} recordist {author}",
        "license": "CC0 1.0",
        "rating": rng.integers(4, 11) / 2,
        "url": "",
        "filename": name,
        "collection": "SYN",
    }


def write_ogg(path: Path, waveform: Float32, sample_rate: int) -> None:
    """Write [samples] as Ogg Vorbis, second by second: in one call libsndfile overflows its stack."""
    with (
        atomic_file(path) as file,
        soundfile.SoundFile(file, "w", sample_rate, 1, format="OGG", subtype="VORBIS") as ogg,
    ):
        for start in range(0, len(waveform), sample_rate):
            ogg.write(waveform[start : start + sample_rate])


def write_csv(path: Path, header: list[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a table, whole or not at all, and return its path."""
    write_atomic(path, csv_text(header, rows))
    return path
