import pickle

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from make_bundles import write_sound
from tiny_clips import RATE, TINY_FRONTEND, call

from birdinfer.audio.windows import read_window
from birdinfer.config import WaveformConfig
from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.training.data.cache import CacheSettings, build_cache
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.metadata import read_metadata
from birdinfer.training.data.sources import DecodedSource, bucket_of

HEARINGS = [TINY_FRONTEND, WaveformConfig(TINY_FRONTEND.audio, TINY_FRONTEND.window)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """2.7 s of 16-bit sound at the rate that is used."""
    path = tmp_path_factory.mktemp("clip") / "a.wav"
    write_sound(path, call("0012", 2.7, 0), RATE, subtype="PCM_16")
    return Clip("a.wav", path, "0012", duration_seconds=2.7)


@pytest.fixture(scope="module")
def both(clip, tmp_path_factory):
    """(input, max_seconds) -> the clip decoded as needed, and cached."""
    folder, made = tmp_path_factory.mktemp("cache"), {}

    def make(input_config, max_seconds):
        key = HEARINGS.index(input_config), max_seconds
        if key not in made:
            cached = build_cache([clip], CacheSettings(input_config, max_seconds), folder)
            made[key] = DecodedSource(input_config, max_seconds), cached
        return made[key]

    return make


@given(
    input_config=st.sampled_from(HEARINGS),
    max_seconds=st.sampled_from([0.0, 0.4, 1.0, 1.99, 60.0]),
    start_seconds=st.floats(0, 3),
)
def test_a_cached_window_is_the_decoded_one_bit_by_bit(both, clip, input_config, max_seconds, start_seconds):
    decoded, cached = both(input_config, max_seconds)
    assert cached.duration_seconds(clip) == pytest.approx(decoded.duration_seconds(clip))
    if round(start_seconds * RATE) >= round(decoded.duration_seconds(clip) * RATE):
        for source in (decoded, cached):
            with pytest.raises(AudioError, match="holds no sound at"):
                source.window(clip, start_seconds)
        return
    window = decoded.window(clip, start_seconds)
    assert np.array_equal(cached.window(clip, start_seconds), window)
    assert window.dtype == np.float32
    assert len(window) == input_config.window_samples + 2 * input_config.margin_samples


def test_max_seconds_is_where_a_clip_ends(clip):
    source = DecodedSource(TINY_FRONTEND, 1.2)
    assert source.duration_seconds(clip) == 1.2
    margin = TINY_FRONTEND.margin_samples
    output, whole = source.window(clip, 0.5), read_window(clip.path, 0.5, TINY_FRONTEND)
    n_true = margin + round(0.7 * RATE)
    assert np.array_equal(output[:n_true], whole[:n_true])
    assert not output[n_true : margin + RATE].any()
    with pytest.raises(AudioError, match=r"holds no sound at 1\.2 s"):
        source.window(clip, 1.2)


@pytest.mark.parametrize("max_seconds", [0.0, 0.5])
def test_a_part_of_a_file_is_a_clip_of_its_own(clip, tmp_path, max_seconds):
    """Decoded and cached alike, as if its sound were in a file of its own."""
    samples, _ = soundfile.read(clip.path, dtype="float32")
    write_sound(tmp_path / "part.wav", samples[round(0.5 * RATE) : round(1.9 * RATE)], RATE, subtype="PCM_16")
    part = clip._replace(filename="a.wav#t=0.5,1.9", begin_seconds=0.5, end_seconds=1.9, duration_seconds=1.4)
    alone = Clip("part.wav", tmp_path / "part.wav", "0012", duration_seconds=1.4)
    cached = build_cache([part], CacheSettings(TINY_FRONTEND, max_seconds), tmp_path)
    decoded = DecodedSource(TINY_FRONTEND, max_seconds)
    for start in (0.0, 0.3, 0.45):
        window = decoded.window(part, start)
        assert np.array_equal(window, decoded.window(alone, start))
        assert np.array_equal(window, cached.window(part, start))
    with pytest.raises(AudioError, match="holds no sound at"):
        decoded.window(part, max_seconds or 1.4)


def test_a_file_that_is_gone_is_named(clip, tmp_path):
    gone = clip._replace(path=tmp_path / "gone.wav")
    with pytest.raises(InputNotFoundError, match="no such file"):
        DecodedSource(TINY_FRONTEND).window(gone, 0.0)


@pytest.mark.parametrize("index", [0, 1])
def test_a_source_travels_to_workers_and_says_the_same_there(both, clip, index):
    source = both(TINY_FRONTEND, 0.0)[index]
    before = source.window(clip, 0.3)
    packed = pickle.dumps(source)
    assert len(packed) < 2_000
    assert np.array_equal(pickle.loads(packed).window(clip, 0.3), before)


def test_a_cache_knows_only_the_clips_it_was_built_from(both, clip):
    _, cached = both(TINY_FRONTEND, 0.0)
    with pytest.raises(AudioError, match="is not in the cache"):
        cached.window(clip._replace(filename="b.wav"), 0.0)


def test_cached_sound_is_resampled_once_and_whole(clips_dir, tmp_path):
    """Clips at another rate than the model's: 8 kHz read at 6 kHz, within a 16-bit step of decoding each window."""
    input_config = WaveformConfig(type(TINY_FRONTEND.audio)(6_000), TINY_FRONTEND.window)
    clip = read_metadata(clips_dir).clips[0]
    cached = build_cache([clip], CacheSettings(input_config), tmp_path)
    decoded = DecodedSource(input_config).window(clip, 0.0)
    assert cached.duration_seconds(clip) == pytest.approx(1.5)
    np.testing.assert_allclose(cached.window(clip, 0.0)[:5_900], decoded[:5_900], atol=2**-15)


@given(names=st.sets(st.text(), min_size=200, max_size=200))
@settings(max_examples=5)
def test_clips_spread_evenly_over_buckets(names):
    held = np.bincount([bucket_of(name, 4) for name in names], minlength=4)
    assert held.min() > 20
