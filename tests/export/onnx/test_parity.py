"""Graph against model: every output, every engine, every company, on real windows."""

import copy

import numpy as np
import pytest
import torch
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WaveformConfig, WindowConfig
from birdinfer.errors import AudioError, ParityError
from birdinfer.export.onnx.torch_export import (
    FRAMES_NAME,
    N_WINDOWS,
    TOLERANCE,
    check_parity,
    export_graph,
    real_waveforms,
    real_windows,
)
from birdinfer.inference.engines import load_engine
from birdinfer.training.models.base import Logits

INPUT_CONFIG = FrontEndConfig(
    AudioConfig(8_000), WindowConfig(1.0, 0.1), MelConfig(n_fft=256, n_mels=16, f_max_hz=4_000.0)
)
WAVEFORM = WaveformConfig(AudioConfig(8_000), WindowConfig(1.0, 0.1))


class Detector(torch.nn.Module):
    """The smallest that has both outputs; takes waveforms as well, cut into columns."""

    def __init__(self):
        super().__init__()
        self.classes = torch.nn.Linear(16, 4)

    def forward(self, inputs):
        columns = inputs.squeeze(1).transpose(1, 2) if inputs.ndim == 4 else inputs.unflatten(1, (-1, 16))
        frames = self.classes(columns)
        return Logits(frames.mean(dim=1), frames)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Detector().eval()


@pytest.fixture(scope="module", params=[INPUT_CONFIG, WAVEFORM], ids=["log-mel", "waveform"])
def input_config(request):
    return request.param


@pytest.fixture(scope="module")
def graph(model, input_config, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    export_graph(model, input_config, path, {}, "torchscript")
    return path


@pytest.fixture(scope="module")
def windows(input_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for index in range(5):
        write_sound(folder / f"{index}.wav", tone(1.5, 8_000, 400.0 * (index + 1), index), 8_000)
    return real_windows(sorted(folder.iterdir()), input_config)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_graph_and_model_agree_in_any_company(model, graph, windows, engine, activation):
    pytest.importorskip(engine)
    assert check_parity(model, graph, windows, [engine], activation=activation) < TOLERANCE


def test_a_graph_that_answers_otherwise_is_refused(graph, windows):
    other = Detector().eval()
    with pytest.raises(ParityError, match=r"tiny.onnx: differs from its torch model by .* allowed is 0.0001"):
        check_parity(other, graph, windows, ["onnxruntime"])


def test_frames_are_compared_too(model, graph, windows):
    class OtherFrames(Detector):
        def forward(self, inputs):
            clip, frames = super().forward(inputs)
            return Logits(clip, frames.flip(1))

    other = OtherFrames().eval()
    other.load_state_dict(model.state_dict())
    with pytest.raises(ParityError, match=rf"\({FRAMES_NAME}, onnxruntime, one by one\)"):
        check_parity(other, graph, windows, ["onnxruntime"])


def test_the_activation_decides_what_is_a_difference(model, graph, windows):
    """A constant added to all logits changes each sigmoid and no softmax."""
    shifted = copy.deepcopy(model)
    with torch.no_grad():
        shifted.classes.bias += 1.0
    assert check_parity(shifted, graph, windows, ["onnxruntime"], activation="softmax") < TOLERANCE
    with pytest.raises(ParityError, match="differs from its torch model"):
        check_parity(shifted, graph, windows, ["onnxruntime"], activation="sigmoid")


def test_an_answer_that_is_not_finite_is_refused(graph, windows):
    broken = Detector().eval()
    with torch.no_grad():
        broken.classes.bias.fill_(float("nan"))
    with pytest.raises(ParityError, match="by nan of probability"):
        check_parity(broken, graph, windows, ["onnxruntime"])


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_pitfall_1_a_graph_that_answers_otherwise_in_company_is_refused(model, input_config, windows, tmp_path, engine):
    """Alone each window gets the model's own answer."""
    pytest.importorskip(engine)

    class Neighbourly(Detector):
        def forward(self, inputs):
            clip, frames = super().forward(inputs)
            return Logits(clip + 0.01 * (clip - clip.mean(dim=0, keepdim=True)), frames)

    other = Neighbourly().eval()
    other.load_state_dict(model.state_dict())
    export_graph(other, input_config, tmp_path / "other.onnx", {}, "torchscript")
    with pytest.raises(ParityError, match=rf"\(logits, {engine}, in reverse, by threes\)"):
        check_parity(model, tmp_path / "other.onnx", windows, [engine])


def test_neither_model_nor_graph_is_handed_more_than_a_dozen_windows(model, graph, windows, monkeypatch):
    """What a network holds of all of them at once would be the most memory of an export."""
    calls, seen = [], []

    class Watched:
        def __init__(self, plan, *_):
            self.batch_size = plan.batch_size
            self.engine = load_engine(plan, *_)

        def run(self, batch):
            calls.append((len(batch), self.batch_size))
            return self.engine.run(batch)

    monkeypatch.setattr("birdinfer.export.onnx.torch_export.load_engine", Watched)
    hook = model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    many = np.concatenate([windows] * 3)[: N_WINDOWS + 1]
    check_parity(model, graph, many, ["onnxruntime"])
    hook.remove()
    assert seen == [4, 4, 4, 4, 1]
    assert calls == [(1, 1)] * 17 + [(3, 3)] * 5 + [(2, 3)] + [(12, 12), (5, 12)]


class TestRealWindows:
    def test_what_cannot_be_read_is_skipped(self, tmp_path, soundscapes):
        (tmp_path / "bad.ogg").write_text("no sound")
        clips = [tmp_path / "bad.ogg", *sorted(soundscapes.iterdir())]
        windows = real_windows(clips, FrontEndConfig())
        assert windows.shape == (4, 1, 128, 320)  # three clips and silence
        assert np.isfinite(windows).all()
        with pytest.raises(AudioError, match="none of 1 clips can be read - name the data folder: --data"):
            real_windows(clips[:1], FrontEndConfig())

    def test_a_waveform_is_the_clips_own_sound_and_silence(self, tmp_path):
        sound = tone(2.0)
        write_sound(tmp_path / "a.wav", sound, SAMPLE_RATE, "FLOAT")
        windows = real_windows([tmp_path / "a.wav"], WaveformConfig(window=WindowConfig(1.0, 0.1)))
        np.testing.assert_array_equal(windows[0], sound[:SAMPLE_RATE])
        assert not windows[1].any()

    def test_the_sound_alone_has_neither_margins_nor_silence(self, tmp_path):
        sound = tone(2.0, 8_000)
        write_sound(tmp_path / "a.wav", sound, 8_000, "FLOAT")
        (tmp_path / "bad.ogg").write_text("no sound")
        assert INPUT_CONFIG.margin_samples > 0
        waveforms = real_waveforms([tmp_path / "bad.ogg", tmp_path / "a.wav"], INPUT_CONFIG)
        assert waveforms.dtype == np.float32
        np.testing.assert_array_equal(waveforms, sound[None, :8_000])
        with pytest.raises(AudioError, match="none of 1 clips can be read"):
            real_waveforms([tmp_path / "bad.ogg"], INPUT_CONFIG)

    def test_a_few_clips_are_enough(self, tmp_path):
        write_sound(tmp_path / "a.wav", tone(1.0, 8_000), 8_000)
        assert len(real_windows([tmp_path / "a.wav"] * 40, INPUT_CONFIG)) == N_WINDOWS + 1
        assert len(real_waveforms([tmp_path / "a.wav"] * 40, INPUT_CONFIG)) == N_WINDOWS
