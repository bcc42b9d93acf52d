"""Sound of which everything is known: a generator -> soundscapes and clips with their truth.

For the quick start and the tests, which must run without a download. Calls of eight invented species
(:mod:`birdinfer.synthetic_calls`) stand over coloured noise with clicks and gusts of wind.

Conventions
-----------
* Waveforms are mono float32 [samples] in [-1, 1] at ``sample_rate`` (Hz).
* SNR is in dB: the call's power over the background's, both averaged over the event's whole time (pauses of a
  trill included) and over the call's band, the frequencies that the middle 95 % of its energy lie between.
* A window is positive for a species if one of its events overlaps it by at least ``MIN_OVERLAP_SECONDS``. Events
  are placed so that none overlaps a window by less but more than nothing: truth has no doubtful cell.
* Equal seeds give equal samples.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from birdinfer.config import WindowConfig
from birdinfer.errors import ConfigError
from birdinfer.labels import Species
from birdinfer.synthetic_calls import HIGHEST_HZ, VOICES, make_call

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

SPECIES: tuple[Species, ...] = tuple(VOICES)
"""The invented species, in column order."""

SAMPLE_RATE = 32_000
MIN_OVERLAP_SECONDS = 0.25
"""A quarter of a second holds a note of every species; less is a fragment that nobody could name."""

SPECIES_PER_SOUNDSCAPE = 4

_BAND_ENERGY = 0.95
_PEAK = 0.98


class Event(NamedTuple):
    """One call in a soundscape or clip."""

    label: str
    onset_seconds: float
    offset_seconds: float
    snr_db: float
    """Over the call's band and time, see Conventions."""


def make_soundscape(
    rng: np.random.Generator,
    duration_seconds: float = 60.0,
    sample_rate: int = SAMPLE_RATE,
    *,
    labels: Sequence[str] | None = None,
    calls_per_minute: float = 14.0,
    snr_db: tuple[float, float] = (3.0, 20.0),
) -> tuple[Float32, list[Event]]:
    """One soundscape and what is to be heard in it.

    Args:
        rng: source of all chance. The background does not depend on the calls: with ``calls_per_minute=0`` an equal
            generator gives it alone.
        duration_seconds: at least 5.
        sample_rate: Hz, at least 18,000.
        labels: the species that call; by default four drawn by chance.
        calls_per_minute: how many calls are expected; their number is Poisson distributed.
        snr_db: lowest and highest SNR.

    Returns:
        Waveform [samples] and the events in order of their onset.

    Raises:
        ConfigError: too short, too low a rate, or a label that is not one of :data:`SPECIES`.
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
        events.append(_add_call(waveform, background, species.label, call, onset, snr, sample_rate))
    return _limited(waveform), sorted(events, key=lambda event: event.onset_seconds)


def make_clip(
    rng: np.random.Generator,
    label: str,
    secondary_label: str | None = None,
    sample_rate: int = SAMPLE_RATE,
    *,
    snr_db: tuple[float, float] = (3.0, 25.0),
) -> tuple[Float32, list[Event]]:
    """One training clip of 6 to 12 s: a species calls all through it, a second one perhaps once, 3 to 10 dB softer.

    Args:
        rng: source of all chance.
        label: the species that dominates; it is never silent for more than 1.5 s.
        secondary_label: a species that calls once in the background.
        sample_rate: Hz, at least 18,000.
        snr_db: lowest and highest SNR of the dominating species; all its calls in a clip have the same.

    Returns:
        Waveform [samples] and the events in order of their onset.

    Raises:
        ConfigError: too low a rate, or a label that is not one of :data:`SPECIES`.
    """
    _check(6.0, sample_rate)
    bout = _draw_bout(rng, _singers(rng, [label])[0], sample_rate)
    n_samples = bout[-1][0] + len(bout[-1][1]) + round(rng.uniform(0, 0.5) * sample_rate)
    background = make_background(rng, n_samples, sample_rate)
    waveform, snr = background.copy(), rng.uniform(*snr_db)
    events = [_add_call(waveform, background, label, call, onset, snr, sample_rate) for onset, call in bout]
    if secondary_label is not None:
        call = make_call(_singers(rng, [secondary_label])[0], rng, sample_rate)
        onset, softer = int(rng.integers(n_samples - len(call))), snr - rng.uniform(3.0, 10.0)
        events.append(_add_call(waveform, background, secondary_label, call, onset, softer, sample_rate))
    return _limited(waveform), sorted(events, key=lambda event: event.onset_seconds)


def make_background(rng: np.random.Generator, n_samples: int, sample_rate: int) -> Float32:
    """A soundscape without calls: coloured noise of slowly changing level, some clicks, some gusts of wind.

    Returns:
        Waveform [n_samples], between -44 and -34 dB rms below full scale before clicks and gusts.
    """
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
    """Which species is to be heard in which window.

    Args:
        events: calls of one file.
        n_windows: windows side by side from its beginning.
        window_seconds: length of each.

    Returns:
        [n_windows, species] in the order of :data:`SPECIES`; True from ``MIN_OVERLAP_SECONDS`` of overlap on.
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
    """The species of the labels, or four by chance."""
    if labels is None:
        return [SPECIES[i] for i in rng.permutation(len(SPECIES))[:SPECIES_PER_SOUNDSCAPE]]
    by_label = {species.label: species for species in SPECIES}
    for label in labels:
        if label not in by_label:
            raise ConfigError("labels", f"{label!r} is none of the synthetic species", f"known are {list(by_label)}")
    return [by_label[label] for label in labels]


def _draw_bout(rng: np.random.Generator, species: Species, sample_rate: int) -> list[tuple[int, Float64]]:
    """Calls of one bird with their onsets (samples), one after the other until 6 or 7 s are full."""
    bout, end, enough = [], 0, rng.uniform(6.0, 7.0) * sample_rate
    while end < enough:
        onset, call = end + round(rng.uniform(0.2, 1.5) * sample_rate), make_call(species, rng, sample_rate)
        bout.append((onset, call))
        end = onset + len(call)
    return bout


def _draw_onset(rng: np.random.Generator, length: int, n_samples: int, sample_rate: int) -> int:
    """A random onset (sample) of a call of ``length`` samples that leaves no window with a doubtful overlap."""
    window, least = round(WindowConfig().window_seconds * sample_rate), round(MIN_OVERLAP_SECONDS * sample_rate)
    # One draw in ten is doubtful: 64 of them in a row are not.
    onsets = rng.integers(n_samples - length + 1, size=64)
    before_edge, after_edge = window - onsets % window, (onsets + length) % window
    crosses = onsets // window != (onsets + length - 1) // window
    doubtful = crosses & ((before_edge < least) | ((after_edge > 0) & (after_edge < least)))
    return int(onsets[~doubtful][0])


def _add_call(
    waveform: Float32, background: Float32, label: str, call: Float64, onset: int, snr_db: float, sample_rate: int
) -> Event:
    """Add a call to ``waveform`` in place, as loud as the SNR over ``background`` says."""
    place = slice(onset, onset + len(call))
    call_power, background_power = _band_powers(call, background[place])
    gain = np.sqrt(background_power * 10 ** (snr_db / 10) / call_power)
    waveform[place] += (gain * call).astype(np.float32)
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
    """The whole waveform made softer where its peak would be clipped; SNR stays."""
    return waveform * np.float32(min(1.0, _PEAK / float(np.abs(waveform).max())))


def _coloured_noise(rng: np.random.Generator, n_samples: int, sample_rate: int) -> Float64:
    """Noise [n_samples] of rms 1: pink and brown in a random mix and tilt, over the hiss of a recorder."""
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
    """One to three seconds of wind: noise below some 200 Hz that swells and fades, rms below 1."""
    n_samples = round(rng.uniform(1, 3) * sample_rate)
    knots = np.arange(0, n_samples + 100, 100)  # straight lines between knots every 3 ms leave the low end of noise
    rumble = np.interp(np.arange(n_samples), knots, rng.standard_normal(len(knots)))
    return np.asarray(rumble * np.hanning(n_samples))


def _add_at_random(rng: np.random.Generator, waveform: Float64, sound: Float64) -> None:
    onset = int(rng.integers(max(1, len(waveform) - len(sound))))
    place = waveform[onset : onset + len(sound)]
    place += sound[: len(place)]
