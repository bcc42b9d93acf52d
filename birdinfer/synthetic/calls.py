"""Make calls of eight invented species: a random generator -> one call, mono [samples], peak 1.

Each species has its own kind of sound (sweep, trill, warble, buzz, pulses ...) and every call its own pitch, tempo and
length, so that a model must learn the kind. Two trills differ only in tempo. All calls have the same level:
:mod:`birdinfer.synthetic.soundscapes` sets it relative to the background.
"""

from collections.abc import Callable, Sequence

import numpy as np

from birdinfer.species import Species
from birdinfer.typing import Float64

Voice = Callable[[np.random.Generator, int], Float64]
"""Generator and sample rate (Hz) -> one call [samples]."""

HIGHEST_HZ = 9_000.0
"""No call has higher frequencies: a sample rate below twice this would cause aliasing."""

_FADE_SECONDS = 0.008
"""Without a fade a note begins with a click over the whole spectrum."""


def rising_chirp(rng: np.random.Generator, sample_rate: int) -> Float64:
    """Two to four equal chirps that rise by about half an octave around 3 kHz."""
    start_hz = rng.uniform(2_000, 2_800)
    chirp = _sweep(start_hz, start_hz * rng.uniform(1.5, 1.9), rng.uniform(0.16, 0.28), sample_rate)
    return _phrase([chirp] * int(rng.integers(2, 5)), rng.uniform(0.08, 0.16), sample_rate)


def falling_whistle(rng: np.random.Generator, sample_rate: int) -> Float64:
    """One long pure whistle that falls by most of an octave."""
    start_hz = rng.uniform(4_200, 5_600)
    return _sweep(start_hz, start_hz * rng.uniform(0.5, 0.65), rng.uniform(0.7, 1.3), sample_rate)


def fast_trill(rng: np.random.Generator, sample_rate: int) -> Float64:
    """Eighteen to twenty-six short notes a second around 5.5 kHz."""
    return _trill(rng, rng.uniform(18, 26), rng.uniform(0.8, 2.0), sample_rate)


def slow_trill(rng: np.random.Generator, sample_rate: int) -> Float64:
    """The notes of the fast trill, six to nine a second."""
    return _trill(rng, rng.uniform(6, 9), rng.uniform(1.0, 2.5), sample_rate)


def warble(rng: np.random.Generator, sample_rate: int) -> Float64:
    """A tone near 3 kHz whose pitch swings several times a second, with a weak octave."""
    seconds = rng.uniform(0.8, 2.0)
    time = _times(seconds, sample_rate)
    swing = np.sin(2 * np.pi * rng.uniform(7, 12) * time + rng.uniform(0, 2 * np.pi))
    return _note(rng.uniform(2_600, 3_400) + rng.uniform(400, 700) * swing, sample_rate, (1.0, 0.2))


def two_tone_call(rng: np.random.Generator, sample_rate: int) -> Float64:
    """A high and a low note below 1.2 kHz with harmonics, once to three times, as a cuckoo calls."""
    high_hz = rng.uniform(900, 1_200)
    low_hz = high_hz * rng.uniform(0.7, 0.8)
    pair = [
        _note(np.full(round(rng.uniform(0.24, 0.36) * sample_rate), hz), sample_rate, (1.0, 0.4, 0.2))
        for hz in (high_hz, low_hz)
    ]
    return _phrase(pair * int(rng.integers(1, 4)), rng.uniform(0.06, 0.14), sample_rate)


def buzz(rng: np.random.Generator, sample_rate: int) -> Float64:
    """A cicada: a band of noise 1 kHz wide near 7 kHz, its loudness beating 40 to 70 times a second."""
    time = _times(rng.uniform(1.2, 3.0), sample_rate)
    beat = 0.5 + 0.5 * np.cos(2 * np.pi * rng.uniform(40, 70) * time)
    # Sixteen random lines sound like a band of noise and, unlike noise, have exact limits.
    lines_hz = rng.uniform(6_500, 7_800) + rng.uniform(-500, 500, 16)
    return sum((_note(np.full(len(time), hz), sample_rate) for hz in lines_hz), np.zeros(len(time))) * beat


def frog_pulses(rng: np.random.Generator, sample_rate: int) -> Float64:
    """A frog: ten to sixteen damped pulses a second near 1.6 kHz."""
    pulse_seconds = 1 / rng.uniform(10, 16)
    time = _times(pulse_seconds, sample_rate)
    pulse = np.sin(2 * np.pi * rng.uniform(1_300, 1_900) * time) * np.exp(-time / rng.uniform(0.010, 0.020))
    return np.tile(pulse, round(rng.uniform(0.7, 1.6) / pulse_seconds))


VOICES: dict[Species, Voice] = {
    Species("synchi1", "Phonus ascendens", "Rising Synthchirp", "Aves"): rising_chirp,
    Species("synwhi1", "Phonus descendens", "Falling Synthwhistle", "Aves"): falling_whistle,
    Species("syntri1", "Trillus celer", "Fast Synthtriller", "Aves"): fast_trill,
    Species("syntri2", "Trillus lentus", "Slow Synthtriller", "Aves"): slow_trill,
    Species("synwar1", "Vibrato modulans", "Synthwarbler", "Aves"): warble,
    Species("syncuc1", "Bitonus bitonus", "Two-toned Synthcuckoo", "Aves"): two_tone_call,
    # BirdCLEF's labels of other animals are numbers; with two of them the demo tests every table reader.
    Species("9000017", "Zizius electricus", "Synthcicada", "Insecta"): buzz,
    Species("9000025", "Quakus pulsans", "Synthfrog", "Amphibia"): frog_pulses,
}
"""The species in column order and the function that makes their calls. Names and labels are invented."""


def make_call(species: Species, rng: np.random.Generator, sample_rate: int) -> Float64:
    """Make one call [samples] of a species of :data:`VOICES`: 0.4 to 3 s, peak 1, without silence at the ends."""
    call = VOICES[species](rng, sample_rate)
    return np.asarray(call / np.abs(call).max())


def _times(seconds: float, sample_rate: int) -> Float64:
    return np.arange(round(seconds * sample_rate)) / sample_rate


def _note(hz: Float64, sample_rate: int, harmonics: Sequence[float] = (1.0,)) -> Float64:
    """A tone that follows ``hz`` [samples], faded at both ends; ``harmonics`` are amplitudes from the first."""
    phase = 2 * np.pi * np.cumsum(hz) / sample_rate
    tone = sum((amplitude * np.sin((n + 1) * phase) for n, amplitude in enumerate(harmonics)), np.zeros(len(hz)))
    from_end = np.minimum(np.arange(len(hz)), np.arange(len(hz))[::-1])
    ramp = np.clip(from_end / (_FADE_SECONDS * sample_rate), 0, 1)
    return np.asarray(tone * np.sin(np.pi / 2 * ramp) ** 2)


def _sweep(from_hz: float, to_hz: float, seconds: float, sample_rate: int) -> Float64:
    return _note(np.geomspace(from_hz, to_hz, round(seconds * sample_rate)), sample_rate)


def _trill(rng: np.random.Generator, notes_per_second: float, seconds: float, sample_rate: int) -> Float64:
    """Short falling notes of equal spacing; their length does not depend on the tempo."""
    hz = rng.uniform(4_500, 6_300)
    note_seconds = rng.uniform(0.022, 0.034)
    note = _sweep(hz * 1.1, hz * 0.9, note_seconds, sample_rate)
    n_notes = round(seconds * notes_per_second)
    return _phrase([note] * n_notes, 1 / notes_per_second - note_seconds, sample_rate)


def _phrase(notes: Sequence[Float64], gap_seconds: float, sample_rate: int) -> Float64:
    """Notes in a row with silence between them, none at the ends."""
    gap = np.zeros(round(gap_seconds * sample_rate))
    return np.concatenate([part for note in notes for part in (note, gap)][:-1])
