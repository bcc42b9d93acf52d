import pytest
import torch
from tiny_clips import TINY_FRONTEND

from birdinfer.config import AudioConfig, WaveformConfig, WindowConfig
from birdinfer.errors import ConfigError
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.waveform import Convolutions, normalised
from birdinfer.training.recipe.schema import ModelConfig

INPUT = WaveformConfig(TINY_FRONTEND.audio, TINY_FRONTEND.window)
SMALL = ModelConfig("raw", "small")


class TestNormalisation:
    def test_each_window_by_itself(self):
        loud = torch.randn(3, 500) * torch.tensor([[0.001], [0.1], [10.0]]) + 0.3
        found = normalised(loud)
        torch.testing.assert_close(found.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(found[1:].std(1, correction=0), torch.ones(2), atol=1e-3, rtol=0)

    def test_digital_silence_stays_silent(self):
        assert not normalised(torch.full((2, 100), 0.25)).any()

    def test_loudness_changes_no_score(self):
        model = build_model(SMALL, 4, INPUT, start=False).eval()
        waveforms = torch.randn(2, INPUT.window_samples)
        torch.testing.assert_close(model(waveforms).clip, model(0.1 * waveforms).clip, atol=1e-4, rtol=0)


class TestSmall:
    def test_the_table_of_layers(self):
        with torch.device("meta"):
            steps = Convolutions()(torch.zeros(1, 160_000))
        assert steps.shape == (1, 248, 192)

    def test_between_one_and_three_million_parameters(self):
        model = build_model(SMALL, 200, INPUT, start=False)
        assert 2.0e6 < sum(parameter.numel() for parameter in model.parameters()) < 2.2e6

    def test_the_order_of_sounds_matters(self):
        torch.manual_seed(0)
        model = build_model(SMALL, 4, INPUT, start=False).eval()
        waveforms = torch.cat([torch.randn(1, 4000), torch.randn(1, 4000).cumsum(1)], dim=1)
        assert (model(waveforms).clip - model(waveforms.roll(2000, 1)).clip).abs().max() > 1e-4

    def test_deeper_blocks_are_left_out_more_often(self):
        config = ModelConfig("raw", "small", drop_path_rate=0.4)
        blocks = build_model(config, 4, INPUT, start=False).backbone[1].blocks
        rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
        assert rates == pytest.approx([0.0, 0.2, 0.4])

    def test_too_short_a_window_is_refused(self):
        input_config = WaveformConfig(AudioConfig(1_000), WindowConfig(0.3, 0.1))
        with pytest.raises(ConfigError, match=r"window_seconds: is 0\.3, at 1000 Hz too short for small"):
            build_model(SMALL, 4, input_config, start=False)

    def test_1905_samples_are_the_least(self):
        model = build_model(SMALL, 4, self.input_config(1_905), start=False).eval()
        assert model.backbone[0](torch.zeros(1, 1_905)).shape == (1, 1, 192)
        assert model(torch.randn(2, 1_905)).clip.isfinite().all()
        with pytest.raises(ConfigError, match="too short"):
            build_model(SMALL, 4, self.input_config(1_904), start=False)

    def input_config(self, n_samples):
        return WaveformConfig(AudioConfig(1_000), WindowConfig(n_samples / 1_000, 0.1))

    def test_unknown_networks_are_refused(self):
        with pytest.raises(ConfigError, match=r"'efficientnet_b0' takes no waveforms - choose small or wav2vec2_base"):
            build_model(ModelConfig("raw"), 4, INPUT, start=False)
