"""What a family's builder is given, and what it may count on."""

from typing import Literal, NamedTuple

from birdinfer.config import FrontEndConfig, Hearing, WaveformConfig
from birdinfer.errors import ConfigError
from birdinfer.training.recipe.learning import ModelConfig

Activation = Literal["sigmoid", "softmax"]


class Blueprint(NamedTuple):
    """A network to build."""

    config: ModelConfig
    n_labels: int
    hearing: Hearing
    activation: Activation
    pretrained: bool
    """Whether to fetch timm's weights."""

    def input_shape(self) -> tuple[int, int]:
        """Rows and columns of the spectrogram that it takes.

        Raises:
            ConfigError: what is to be heard is the waveform.
        """
        if not isinstance(self.hearing, FrontEndConfig):
            raise self._refusal("hears a log-mel, it was given waveforms")
        return self.hearing.input_shape

    def window_samples(self) -> int:
        """Samples of the waveform that it takes.

        Raises:
            ConfigError: what is to be heard is a log-mel.
        """
        if not isinstance(self.hearing, WaveformConfig):
            raise self._refusal("hears waveforms, it was given a log-mel")
        return self.hearing.window_samples

    def _refusal(self, what: str) -> ConfigError:
        return ConfigError("model.family", f"{self.config.family} {what}", "build it with the recipe's own hearing")
