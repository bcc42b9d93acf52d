import numpy as np
import pytest
from make_bundles import write_sound

from birdinfer.errors import AudioError, InputNotFoundError
from birdinfer.training.data import duplicates as fingerprints
from birdinfer.training.data.duplicates import SAMPLE_RATE, band_energies, fingerprint, of_energies


def noise(seconds, seed=0, rate=SAMPLE_RATE):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).astype(np.float32)


def held_tone(seconds, hz, rate=SAMPLE_RATE):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def of_samples(path, samples, rate=SAMPLE_RATE, subtype=None):
    write_sound(path, samples, rate, subtype)
    return fingerprint(path)


def bits_set(words):
    return np.unpackbits(words[:, None].view(np.uint8), axis=1).sum(axis=1)


class TestFingerprint:
    def test_blocks_make_no_difference(self, tmp_path):
        """25 s are decoded in three blocks."""
        samples = noise(25)
        streamed = of_samples(tmp_path / "a.wav", samples, subtype="FLOAT")
        whole = of_energies(band_energies(samples))
        assert len(streamed.words) == len(whole.words) == (25 * SAMPLE_RATE - 4096) // 512 + 1 - 8
        # The last bit of a float may be another where other frames were in the matrix product.
        assert np.mean(streamed.words == whole.words) > 0.99
        assert streamed.seconds == pytest.approx(24.5, abs=0.1)

    def test_loudness_makes_no_difference(self, tmp_path):
        samples = noise(3)
        loud = of_samples(tmp_path / "a.wav", samples, subtype="FLOAT")
        quiet = of_samples(tmp_path / "b.wav", samples / 16, subtype="FLOAT")
        assert np.array_equal(loud.words, quiet.words)
        assert loud.distinctive.all()

    def test_other_sound_shares_half_of_the_bits(self, tmp_path):
        one, other = (of_samples(tmp_path / f"{seed}.wav", noise(5, seed)) for seed in range(2))
        bits = np.unpackbits((one.words ^ other.words).view(np.uint8))
        assert 0.45 < bits.mean() < 0.55

    def test_a_very_short_clip_has_none(self, tmp_path):
        assert len(of_samples(tmp_path / "a.wav", noise(0.2)).words) == 0
        assert len(of_samples(tmp_path / "b.wav", noise(0.5)).words) == 0
        assert len(of_samples(tmp_path / "c.wav", noise(0.52)).words) == 1

    def test_not_more_is_used_than_the_longest(self, tmp_path, monkeypatch):
        whole = of_samples(tmp_path / "a.wav", noise(25))
        monkeypatch.setattr(fingerprints, "LONGEST_SECONDS", 12.0)
        cut = fingerprint(tmp_path / "a.wav")
        assert cut.seconds == pytest.approx(11.5, abs=0.1)
        assert np.mean(cut.words == whole.words[: len(cut.words)]) > 0.99

    def test_another_encoding_turns_doubtful_bits_first(self, tmp_path):
        one = of_samples(tmp_path / "a.wav", noise(8))
        other = of_samples(tmp_path / "a.ogg", noise(8))
        wrong = one.words ^ other.words
        assert (bits_set(one.doubtful) == 2).all()
        among_doubtful = bits_set(wrong & one.doubtful).mean() / 2
        among_others = bits_set(wrong & ~one.doubtful).mean() / 30
        assert among_doubtful > 3 * among_others

    @pytest.mark.parametrize("hz", [600, 2_000, 3_141.59, 7_000])
    def test_held_tones_are_not_distinctive(self, tmp_path, hz):
        assert not of_samples(tmp_path / "a.wav", held_tone(3, hz)).distinctive.any()

    @pytest.mark.parametrize("suffix", ["wav", "ogg"])
    @pytest.mark.parametrize("level", [0.0, 0.3])
    def test_silence_is_not_distinctive_not_even_with_an_offset(self, tmp_path, level, suffix):
        output = of_samples(tmp_path / f"a.{suffix}", np.full(3 * SAMPLE_RATE, level, np.float32))
        # An encoder's first and last frames may ring.
        assert not output.distinctive[8:-8].any()

    def test_silence_between_sounds_is_not_distinctive(self, tmp_path):
        gap = np.concatenate([noise(2), np.zeros(3 * SAMPLE_RATE, np.float32), noise(2, 1)])
        distinctive = of_samples(tmp_path / "a.wav", gap).distinctive
        assert distinctive[:40].all()
        assert not distinctive[65:140].any()
        assert distinctive[-40:].all()


class TestBandEnergies:
    def test_a_tone_is_half_its_amplitude_squared_in_its_own_band(self):
        (energies,) = band_energies(held_tone(0.256, 2_000))
        assert energies.sum() == pytest.approx(0.125, rel=1e-3)
        assert energies.max() == pytest.approx(0.125, rel=0.01)
        assert energies.argmax() == int(33 * np.log(2_000 / 500) / np.log(7_500 / 500))

    def test_white_noise_gives_its_power_within_the_bands(self):
        assert band_energies(noise(20)).sum(axis=1).mean() == pytest.approx(0.01 * 7_000 / 8_000, rel=0.02)


class TestWhatCannotBeDecoded:
    def test_no_file(self, tmp_path):
        with pytest.raises(InputNotFoundError):
            fingerprint(tmp_path / "none.ogg")

    def test_no_sound(self, tmp_path):
        write_sound(tmp_path / "bare.wav", np.zeros(0, np.float32))
        with pytest.raises(AudioError, match="holds no sound"):
            fingerprint(tmp_path / "bare.wav")
