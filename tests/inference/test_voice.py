"""Silero VAD on real voices and birds, and predictions without voices."""

import importlib.util

import numpy as np
import pytest
import soundfile
from make_bundles import SAMPLE_RATE
from voices import load, needs_silero

from birdinfer import Bundle, Predictor, predict_soundscapes
from birdinfer.audio.speech import VOICE_RATE
from birdinfer.errors import ConfigError
from birdinfer.inference import voice
from birdinfer.inference.voice import VoiceDetector, speech_finders


@pytest.fixture(scope="module")
def detector():
    return VoiceDetector("--voice")


@needs_silero
class TestDetector:
    def test_a_call_for_many_chunks_gives_what_chunk_by_chunk_gives(self, detector, shared_data, monkeypatch):
        """Against the package's streaming network: 64 samples of the chunk before, and a state that is handed on."""
        import onnxruntime

        folder = importlib.util.find_spec("silero_vad").submodule_search_locations[0]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        path = f"{folder}/data/silero_vad_16k_op15.onnx"
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        samples = load(next(shared_data.rglob("speech/**/librispeech/*.ogg")))[: 20 * VOICE_RATE + 100]
        monkeypatch.setattr(voice, "_CHUNKS_PER_CALL", 1_000)  # one level for all
        padded = voice.prepare_voice(np.pad(samples, (100 + 64, -len(samples) % 512 + 100)))
        state, expected = np.zeros((2, 1, 128), np.float32), []
        for begin in range(0, len(padded) - 64, 512):
            inputs = {"input": padded[None, begin : begin + 576], "state": state, "sr": np.array(VOICE_RATE)}
            value, state = session.run(None, inputs)
            expected.append(value.item())
        np.testing.assert_allclose(detector.probabilities(samples), expected, atol=1e-3)

    def test_its_calls_join_without_a_seam(self, detector, shared_data, monkeypatch):
        samples = load(next(shared_data.rglob("speech/**/librispeech/*.ogg")))
        monkeypatch.setattr(voice, "_MAX_GAIN", 1.0)  # calls of their own have a level of their own
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

    def test_a_quiet_voice_in_wind_is_found(self, detector, shared_data):
        reader = load(next(shared_data.rglob("speech/**/librispeech/*.ogg")))[: 10 * VOICE_RATE]
        clock = np.arange(len(reader)) / VOICE_RATE
        wind = 0.05 * np.sin(2 * np.pi * 12 * clock) + 0.03 * np.sin(2 * np.pi * 27 * clock)
        ((begin, *_), *_, (*_, end)) = detector.speech_spans((0.02 * reader + wind + 0.1).astype(np.float32))
        assert (begin, end) == pytest.approx((0, 10), abs=1)

    def test_blocks_change_no_bit(self, detector, shared_data):
        samples = np.tile(load(next(shared_data.rglob("speech/**/librispeech/*.ogg"))), 3)
        stream = detector.stream()
        parts = [stream.push(part) for part in np.split(samples, [7, 100_000, 100_001, 400_000])]
        np.testing.assert_array_equal(np.concatenate([*parts, stream.finish()]), detector.probabilities(samples))


@pytest.fixture(scope="module")
def spoken(shared_data, tmp_path_factory):
    """Forty seconds in which a reader speaks from second 12.5 to 20."""
    reader, bird = (
        load(next(iter(sorted(shared_data.rglob(pattern)))), SAMPLE_RATE)
        for pattern in ("speech/**/librispeech/*.ogg", "background/**/*.ogg")
    )
    sound = np.tile(bird, 8)[: 40 * SAMPLE_RATE].copy()
    silent = sound.copy()
    begin, end = round(12.5 * SAMPLE_RATE), 20 * SAMPLE_RATE
    sound[begin:end] += reader[: end - begin]
    silent[begin:end] = 0
    folder = tmp_path_factory.mktemp("spoken")
    for name, samples in {"spoken": sound, "silent": silent, "bird": np.tile(bird, 8)[: 40 * SAMPLE_RATE]}.items():
        soundfile.write(folder / f"{name}.flac", samples, SAMPLE_RATE)
    return folder


@needs_silero
class TestPrediction:
    def predicted(self, bundle, path, mode=None):
        predictor = Predictor(Bundle.load(bundle), speech=speech_finders(mode) if mode else None)
        (result,) = predict_soundscapes(predictor, [path])
        return result

    def test_speech_is_noted_and_no_score_changes(self, make_bundle, spoken):
        bundle = make_bundle(kernel=(1.0,))
        plain, found = (self.predicted(bundle, spoken / "spoken.flac", mode) for mode in (None, "skip"))
        assert plain.speech is None
        assert found.speech[0][0] == pytest.approx(12.5, abs=0.7)
        assert found.speech[-1][1] == pytest.approx(20, abs=0.7)
        np.testing.assert_array_equal(found.probabilities, plain.probabilities)

    def test_scores_are_those_of_the_sound_without_speech(self, make_bundle, spoken):
        bundle = make_bundle(kernel=(1.0,))
        plain, muted = (self.predicted(bundle, spoken / "spoken.flac", mode) for mode in (None, "mute"))
        np.testing.assert_array_equal(muted.probabilities[:2], plain.probabilities[:2])
        np.testing.assert_array_equal(muted.probabilities[5:], plain.probabilities[5:])
        within = slice(2, 4)
        silent = self.predicted(bundle, spoken / "silent.flac")
        assert np.abs(muted.probabilities[within] - plain.probabilities[within]).max() > 0.02
        assert (
            np.abs(muted.probabilities[within] - silent.probabilities[within]).max()
            < np.abs(plain.probabilities[within] - silent.probabilities[within]).max()
        )

    def test_sound_without_speech_is_not_changed(self, make_bundle, spoken):
        bundle = make_bundle()
        plain, muted = (self.predicted(bundle, spoken / "bird.flac", mode) for mode in (None, "mute"))
        assert muted.speech == ()
        np.testing.assert_array_equal(muted.probabilities, plain.probabilities)

    def test_a_file_that_breaks_off_keeps_all_that_was_decoded(self, bundle, spoken, tmp_path):
        whole = (spoken / "bird.flac").read_bytes()
        (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
        plain, muted = (self.predicted(bundle, tmp_path / "cut.flac", mode) for mode in (None, "mute"))
        assert (muted.status, muted.n_rows) == (plain.status, plain.n_rows)
        np.testing.assert_array_equal(muted.probabilities, plain.probabilities)


def test_an_old_package_is_reported_with_what_it_lacks(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_loader("silero_vad", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ConfigError, match=r"lacks silero_vad_16k_sequence\.onnx - pip install --no-deps --upgrade"):
        VoiceDetector("--voice")


class TestPreparation:
    def test_slow_changes_are_taken_away_and_voices_are_left(self):
        clock = np.arange(-100, 16_100) / VOICE_RATE

        def share(hz):
            sound = 0.3 * np.sin(2 * np.pi * hz * clock).astype(np.float32)
            return voice.prepare_voice(sound).std() / sound.std()

        assert share(5) < 0.15  # far quieter, and raised again
        assert share(20) < 0.2
        assert [share(hz) for hz in (300, 1_000, 3_000)] == pytest.approx([1, 1, 1], abs=0.25)
        assert not voice.prepare_voice(np.full(1_000, 0.5, np.float32)).any()

    @pytest.mark.parametrize(("level", "expected"), [(0.3, 0.3), (0.01, 0.03), (0.0001, 0.003), (0, 0)])
    def test_quiet_sound_is_raised(self, level, expected):
        noise = level * np.random.default_rng(0).normal(0, 1, 20_000).astype(np.float32)
        assert voice.prepare_voice(noise).std() == pytest.approx(expected, rel=0.02)
