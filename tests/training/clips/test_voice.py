import importlib.util
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import tone, write_sound
from tiny_clips import TINY_FRONTEND

from birdinfer.audio import AudioStream
from birdinfer.config import AudioConfig, FrontEndConfig
from birdinfer.errors import ConfigError
from birdinfer.training.clips import voice
from birdinfer.training.clips.cache import CacheSettings, build_cache
from birdinfer.training.clips.metadata import Clip
from birdinfer.training.clips.voice import VOICE_RATE, VoiceDetector, remove_spans, spans_of

IS_INSTALLED = importlib.util.find_spec("silero_vad") is not None
needs_silero = pytest.mark.skipif(not IS_INSTALLED, reason="needs silero-vad: pip install --no-deps silero-vad")
CHUNK_SECONDS = 0.032


@pytest.fixture(scope="module")
def detector():
    return VoiceDetector()


def load(path, rate=VOICE_RATE):
    with AudioStream(path, rate) as stream:
        return np.concatenate(list(stream.blocks()))


def chunks(*pieces):
    """(probability, seconds) ... -> probabilities of chunks."""
    return np.concatenate([np.full(round(seconds / CHUNK_SECONDS), value, np.float32) for value, seconds in pieces])


class TestSpans:
    def spans(self, *pieces):
        probabilities = chunks(*pieces)
        return spans_of(probabilities, len(probabilities) * CHUNK_SECONDS)

    def test_a_stretch_of_speech_is_widened_on_either_side(self):
        ((begin, end),) = self.spans((0, 0.96), (0.9, 0.64), (0, 0.96))
        assert (begin, end) == pytest.approx((0.86, 1.7))

    def test_the_edges_of_the_sound_end_it(self):
        ((begin, end),) = self.spans((0.9, 0.64))
        assert (begin, end) == pytest.approx((0.0, 0.64))

    def test_between_the_thresholds_speech_goes_on_but_does_not_begin(self):
        assert self.spans((0.4, 3.2)) == []
        ((begin, end),) = self.spans((0.4, 0.96), (0.9, 0.32), (0.4, 1.28), (0, 0.96))
        assert (begin, end) == pytest.approx((0.86, 2.66))

    def test_a_click_is_no_speech(self):
        assert self.spans((0, 0.96), (0.99, 0.224), (0, 0.96)) == []

    def test_a_pause_between_words_is_speech_a_longer_one_is_not(self):
        assert len(self.spans((0.9, 0.64), (0, 0.256), (0.9, 0.64), (0, 0.96))) == 1
        assert len(self.spans((0.9, 0.64), (0, 0.64), (0.9, 0.64), (0, 0.96))) == 2

    def test_nothing_heard_nothing_found(self):
        assert spans_of(np.zeros(0, np.float32), 0.0) == []

    @given(st.lists(st.floats(0, 1, width=32), max_size=300))
    def test_spans_are_in_order_apart_and_within_the_sound(self, values):
        duration = len(values) * CHUNK_SECONDS
        edges = [edge for span in spans_of(np.array(values, np.float32), duration) for edge in span]
        assert all(one < other for one, other in itertools.pairwise(edges))
        assert not edges or (edges[0] >= 0 and edges[-1] <= duration)


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
class TestDetector:
    def test_a_call_for_many_chunks_gives_what_chunk_by_chunk_gives(self, detector, shared_data):
        """Against the package's streaming network: 64 samples of the chunk before, and a state that is handed on."""
        import onnxruntime

        folder = importlib.util.find_spec("silero_vad").submodule_search_locations[0]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        path = f"{folder}/data/silero_vad_16k_op15.onnx"
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        samples = load(next(shared_data.rglob("speech/**/librispeech/*.ogg")))[: 20 * VOICE_RATE + 100]
        padded = np.pad(samples, (64, -len(samples) % 512))
        state, expected = np.zeros((2, 1, 128), np.float32), []
        for begin in range(0, len(padded) - 64, 512):
            inputs = {"input": padded[None, begin : begin + 576], "state": state, "sr": np.array(VOICE_RATE)}
            value, state = session.run(None, inputs)
            expected.append(value.item())
        np.testing.assert_allclose(detector.probabilities(samples), expected, atol=1e-3)

    def test_its_calls_join_without_a_seam(self, detector, shared_data, monkeypatch):
        samples = load(next(shared_data.rglob("speech/**/librispeech/*.ogg")))
        whole = detector.probabilities(samples)
        monkeypatch.setattr(voice, "_CHUNKS_PER_CALL", 7)
        np.testing.assert_allclose(detector.probabilities(samples), whole, atol=1e-5)

    @pytest.mark.parametrize("n_samples", [0, 1, 511, 512, 513])
    def test_each_chunk_has_a_probability(self, detector, n_samples):
        assert len(detector.probabilities(np.zeros(n_samples, np.float32))) == -(-n_samples // 512)

    def test_readers_are_found_and_birds_are_not(self, detector, shared_data):
        def share(paths):
            sounds = [load(path) for path in paths]
            speech = sum(end - begin for sound in sounds for begin, end in detector.speech_spans(sound))
            return speech / (sum(map(len, sounds)) / VOICE_RATE)

        assert share(shared_data.rglob("speech/**/librispeech/*.ogg")) > 0.85
        assert share(sorted((shared_data / "birds" / "eval_audio").rglob("*.ogg"))[:8]) < 0.01

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
        hearing = FrontEndConfig(AudioConfig(32_000))
        cached = build_cache(clips, CacheSettings(hearing, remove_voice=True), tmp_path / "cache")
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

    def test_a_missing_package_is_told_with_the_command_that_installs_it(self, clip, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ConfigError) as refused:
            build_cache([clip], CacheSettings(TINY_FRONTEND, remove_voice=True), tmp_path / "cache")
        expected = "data.remove_voice: is true, silero-vad is not installed - pip install --no-deps silero-vad"
        assert str(refused.value) == expected
        assert not list((tmp_path / "cache").rglob("*.clips"))

    def test_an_old_package_is_told_what_it_lacks(self, tmp_path, monkeypatch):
        spec = importlib.util.spec_from_loader("silero_vad", None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path)]
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        with pytest.raises(ConfigError, match=r"lacks silero_vad_16k_sequence\.onnx - pip install --no-deps --upgrade"):
            VoiceDetector()
