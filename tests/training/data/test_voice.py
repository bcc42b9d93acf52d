import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import tone, write_sound
from tiny_clips import TINY_FRONTEND
from voices import load, needs_silero

from birdinfer.config import AudioConfig, FrontEndConfig
from birdinfer.errors import ConfigError
from birdinfer.training.data.cache import CacheSettings, build_cache
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.voice import remove_spans


class TestRemoval:
    RATE = 1_000

    def test_what_is_outside_the_spans_is_left_in_order(self):
        wave = np.arange(10_000, dtype=np.float32)
        left = remove_spans(wave, [(2.0, 3.0), (9.5, 10.0)], self.RATE, 1.0)
        assert left.removed_seconds == 1.5
        assert np.array_equal(left.samples[:1_990], wave[:1_990])
        assert np.array_equal(left.samples[2_000:], wave[3_010:9_500])

    def test_a_join_is_a_fade_of_equal_power(self):
        noise = np.random.default_rng(0).normal(0, 1, 400_000).astype(np.float32)
        spans = [(second + 0.4, second + 0.6) for second in range(399)]
        joined = remove_spans(noise, spans, self.RATE, 1.0).samples
        assert np.sqrt(np.mean(np.square(joined))) == pytest.approx(1.0, abs=0.01)
        steps = np.diff(remove_spans(np.ones(3_000, np.float32), [(1.0, 2.0)], self.RATE, 1.0).samples)
        assert np.abs(steps).max() < 0.16  # a hard cut between unlike sounds would be a click of any height

    def test_speech_at_either_end_is_cut_without_a_join(self):
        wave = np.arange(5_000, dtype=np.float32)
        left = remove_spans(wave, [(0.0, 1.0), (4.0, 5.0)], self.RATE, 1.0)
        assert np.array_equal(left.samples, wave[1_000:4_000])

    def test_a_clip_of_which_too_little_would_be_left_is_kept_and_says_so(self):
        wave = np.ones(6_000, np.float32)
        for spans, rest in (([(0.0, 6.0)], "0.0"), ([(1.0, 3.5)], "3.5")):
            left = remove_spans(wave, spans, self.RATE, 5.0)
            assert left.samples is wave
            assert left.removed_seconds == 0
            assert left.note.endswith(f"s of speech are left in, without them there would be {rest} s")

    def test_without_speech_nothing_changes(self):
        wave = np.ones(100, np.float32)
        assert remove_spans(wave, [], self.RATE, 5.0) == (wave, 0.0, "")

    @given(
        n_samples=st.integers(1, 3_000),
        edges=st.sets(st.integers(0, 3_500), max_size=8).map(sorted),
    )
    def test_no_sample_is_made_up(self, n_samples, edges):
        """Each sample that is left is one of the wave's, or within a join between two."""
        spans = [(begin / 1_000, end / 1_000) for begin, end in zip(edges[::2], edges[1::2], strict=False)]
        wave = np.arange(1, n_samples + 1, dtype=np.float32)
        left = remove_spans(wave, spans, self.RATE, 0.001)
        n_kept = n_samples - round(left.removed_seconds * 1_000)
        assert n_kept - 10 * len(spans) <= len(left.samples) <= n_kept
        assert np.isin(left.samples, wave).sum() >= len(left.samples) - 10 * len(spans)


@needs_silero
class TestCache:
    def test_a_cache_is_built_without_voices(self, shared_data, tmp_path):
        reader, bird = (
            load(next(shared_data.rglob(pattern)), 32_000)
            for pattern in ("speech/**/librispeech/*.ogg", "background/**/*.ogg")
        )
        spoken = np.concatenate([bird, reader[: 6 * 32_000]])
        clips = [
            self.written(tmp_path / "spoken.flac", np.stack([spoken, spoken], axis=1)),
            self.written(tmp_path / "reader.flac", reader[: 6 * 32_000]),
            self.written(tmp_path / "bird.flac", bird),
        ]
        input_config = FrontEndConfig(AudioConfig(32_000))
        cached = build_cache(clips, CacheSettings(input_config, remove_voice=True), tmp_path / "cache")
        assert cached.duration_seconds(clips[0]) == pytest.approx(len(bird) / 32_000, abs=1.5)
        assert cached.duration_seconds(clips[1]) == 6.0
        assert cached.duration_seconds(clips[2]) == len(bird) / 32_000
        assert cached.voice_seconds == pytest.approx(6.0, abs=1.5)
        (note,) = cached.notes
        assert note.startswith("reader.flac (")
        assert "are left in, without them there would be" in note
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["32000hz-without-voice"]

    def written(self, path, samples):
        write_sound(path, samples, 32_000)
        return Clip(path.name, path, "a", duration_seconds=len(samples) / 32_000)


class TestMissing:
    @pytest.fixture
    def clip(self, tmp_path):
        write_sound(tmp_path / "a.wav", tone(1.5, 8_000), 8_000)
        return Clip("a.wav", tmp_path / "a.wav", "a", duration_seconds=1.5)

    def test_a_missing_package_is_reported_with_the_command_that_installs_it(self, clip, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ConfigError) as refused:
            build_cache([clip], CacheSettings(TINY_FRONTEND, remove_voice=True), tmp_path / "cache")
        expected = "data.remove_voice: needs silero-vad, which is not installed - pip install --no-deps silero-vad"
        assert str(refused.value) == expected
        assert not list((tmp_path / "cache").rglob("*.clips"))
