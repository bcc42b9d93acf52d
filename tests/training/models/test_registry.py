"""The registry: what all families have in common, and what is refused."""

import pytest
import torch
from tiny_clips import TINY_FRONTEND
from tiny_models import LOG_PCEN, TINY, WAVEFORM, windows

from birdinfer.errors import ConfigError
from birdinfer.training.models.registry import FAMILIES, build_model
from birdinfer.training.recipe.schema import ModelConfig


@pytest.mark.parametrize("config", TINY.values(), ids=TINY)
class TestEveryFamily:
    def test_every_parameter_learns_in_the_first_steps(self, config):
        torch.manual_seed(0)
        input_config, output = windows(config)
        model = build_model(config, 5, input_config, start=True)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimiser = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.0)
        for _ in range(2):
            logits = model(output)
            loss = logits.clip.square().sum() + (0 if logits.frames is None else logits.frames.square().sum())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        dead = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
        assert dead == []

    def test_pitfall_1_a_window_scores_the_same_in_any_company(self, config):
        input_config, output = windows(config, 5)
        model = build_model(config, 5, input_config, start=False).eval()
        with torch.no_grad():
            together = model(output)
            alone = [model(window[None]) for window in output]
            backwards = model(output.flip(0))
        for output in range(2):
            if together[output] is None:
                continue
            torch.testing.assert_close(together[output], torch.cat([one[output] for one in alone]), atol=1e-5, rtol=0)
            torch.testing.assert_close(together[output], backwards[output].flip(0), atol=1e-5, rtol=0)

    def test_answers_differ_from_window_to_window(self, config):
        input_config, output = windows(config, 4)
        model = build_model(config, 5, input_config, start=False).eval()
        with torch.no_grad():
            clip = model(output).clip
        assert clip.shape == (4, 5)
        assert (clip[1:] - clip[:1]).abs().amax(dim=1).min() > 1e-6

    def test_a_second_build_has_the_same_names_and_shapes(self, config):
        input_config, _ = windows(config)
        first, second = (build_model(config, 5, input_config, start=False).state_dict() for _ in range(2))
        assert {name: x.shape for name, x in first.items()} == {name: x.shape for name, x in second.items()}

    def test_half_precision_gives_finite_losses_and_gradients(self, config):
        input_config, output = windows(config)
        model = build_model(config, 5, input_config, start=False)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(output).clip
        logits.float().square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", ["sed-stages", "gru", "vit"])
def test_a_second_channel_reaches_every_family_of_log_mels(name):
    model = build_model(TINY[name], 5, LOG_PCEN, start=False).eval()
    given = torch.randn(2, 2, *LOG_PCEN.input_shape)
    louder = given + torch.tensor([0.0, 1.0])[:, None, None] * torch.randn(2, 1, *LOG_PCEN.input_shape)
    assert not torch.allclose(model(given).clip, model(louder).clip)


class TestRefusals:
    def test_unknown_family(self):
        with pytest.raises(ConfigError, match=r"model\.family: 'cnm' is unknown - known are cnn, sed, rnn, vit, raw"):
            build_model(ModelConfig(family="cnm"), 5, TINY_FRONTEND, start=False)

    @pytest.mark.parametrize("family", ["cnn", "sed", "rnn", "vit"])
    def test_a_family_of_log_mels_takes_no_waveforms(self, family):
        config = next(config for config in TINY.values() if config.family == family)
        with pytest.raises(ConfigError, match="takes a log-mel, it was given waveforms"):
            build_model(config, 5, WAVEFORM, start=False)

    def test_a_family_of_waveforms_takes_no_log_mel(self):
        with pytest.raises(ConfigError, match="takes waveforms, it was given a log-mel"):
            build_model(TINY["raw"], 5, TINY_FRONTEND, start=False)

    @pytest.mark.parametrize(
        ("config", "key"),
        [
            (ModelConfig("rnn", "gru", in_channels=3), "in_channels"),
            (ModelConfig("rnn", "gru", pretrained=True), "pretrained"),
            (ModelConfig("rnn", "gru", drop_path_rate=0.1), "drop_path_rate"),
            (ModelConfig("raw", "small", in_channels=3, channels="delta"), "in_channels"),
            (ModelConfig("vit", "test_vit", pooling="gem"), "pooling"),
            (ModelConfig("rnn", "gru", feature_stages=2), "feature_stages"),
            (ModelConfig("raw", "small", pretrained=True), "pretrained"),
        ],
    )
    def test_a_key_that_a_family_has_no_use_for_is_not_passed_over(self, config, key):
        with pytest.raises(ConfigError, match=rf"model\.{key}: is .*, {config.family} has no use for it - set it to"):
            build_model(config, 5, windows(config)[0], start=False)

    def test_every_family_is_tested_here(self):
        assert {config.family for config in TINY.values()} == set(FAMILIES)
