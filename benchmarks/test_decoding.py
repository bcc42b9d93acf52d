"""How long a minute of sound takes from file to waveform, against the plain way to read it with the same library."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soundfile
import soxr

from birdinfer.audio.stream import AudioStream

RATE = 32_000
ROUNDS = 40
"""Many short rounds: the least of them is one that no other process disturbed."""


def decode(path, rates=(RATE,)):
    """Our way: blocks of ten seconds, finite, with a word on what is broken."""
    with AudioStream(path, RATE) as stream:
        for _ in stream.blocks_at(rates):
            pass


def decode_twice(path):
    """Two rates by decoding twice."""
    decode(path, (RATE,))
    decode(path, (48_000,))


def decode_both(path):
    """Two rates of one decoding."""
    decode(path, (RATE, 48_000))


def plain(path):
    """The plain way: the whole file, the mean of its channels, nothing checked."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wave = wave[:, 0] if wave.shape[1] == 1 else wave.mean(axis=1)
    if rate != RATE:
        soxr.resample(wave, rate, RATE)


def ms_per_minute(readers, paths, threads=1):
    """Least of many rounds of each reader in turn, in ms per file; all files are one minute long."""
    least = [float("inf")] * len(readers)
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(ROUNDS):
            for index, reader in enumerate(readers):
                began = time.perf_counter()
                list(pool.map(reader, paths))
                least[index] = min(least[index], (time.perf_counter() - began) / len(paths) * 1_000)
    return least


def add_row(table, what, pair, bound, other_name="soundfile.read"):
    measured, other = pair
    table.append(
        {
            "what": what,
            "measured": f"{measured / other:.2f}",
            "bound": f"<= {bound}",
            "detail": f"{measured:.1f} ms, {other_name} {other:.1f} ms",
        }
    )
    assert measured / other <= bound


def test_ogg_on_one_thread_and_on_two(soundscapes, table):
    alone = ms_per_minute((decode, plain), soundscapes[:1])
    add_row(table, "decoding a minute of Ogg Vorbis, mono, one thread", alone, 1.15)
    # Against two threads of soundfile, not against one of ours: that would measure whether a second core is free.
    together = ms_per_minute((decode, plain), soundscapes[:4], threads=2)
    add_row(table, "decoding a minute of Ogg Vorbis, mono, two threads", together, 1.25)


def test_16_bit_wav_and_stereo(soundscapes, table, tmp_path):
    wave, rate = soundfile.read(soundscapes[0], dtype="float32")
    soundfile.write(tmp_path / "mono.wav", wave, rate, subtype="PCM_16")
    soundfile.write(tmp_path / "stereo.flac", np.stack([wave, wave[::-1]], 1), rate)
    mono = ms_per_minute((decode, plain), [tmp_path / "mono.wav"])
    # Half of it is the level of the channel, which soundfile does not measure.
    add_row(table, "reading a minute of 16-bit WAV, mono", mono, 1.4)
    stereo = ms_per_minute((decode, plain), [tmp_path / "stereo.flac"])
    add_row(table, "decoding a minute of FLAC, stereo", stereo, 0.8)


def test_two_rates(soundscapes, table):
    both = ms_per_minute((decode_both, decode_twice), soundscapes[:1])
    add_row(table, "a minute of Ogg Vorbis at 32 and 48 kHz, decoded once", both, 0.8, "decoded twice")
