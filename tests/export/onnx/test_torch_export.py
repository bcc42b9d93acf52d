import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tiny_clips import TINY_FRONTEND
from tiny_models import TINY
from tiny_models import windows as tiny_windows

from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WaveformConfig, WindowConfig
from birdinfer.errors import ParityError
from birdinfer.export.onnx.torch_export import (
    FRAMES_NAME,
    INPUT_NAME,
    OPSET,
    OUTPUT_NAME,
    TOLERANCE,
    WAVEFORM_NAME,
    check_parity,
    export_graph,
    named_outputs,
    refuse_training_mode,
    sample_shape,
)
from birdinfer.inference.engines import EnginePlan, load_engine
from birdinfer.training.models.base import Logits
from birdinfer.training.models.registry import build_model
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.recipe.schema import ModelConfig

INPUT_CONFIG = FrontEndConfig(mel=MelConfig(n_fft=1024, n_mels=32))
WAVEFORM = WaveformConfig(AudioConfig(8_000), WindowConfig(0.5, 0.1))


class Tiny(torch.nn.Module):
    """Convolution, BatchNorm, Dropout, a head: what can go wrong in an export."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 8, 3, stride=2)
        self.norm = torch.nn.BatchNorm2d(8)
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, log_mel):
        hidden = torch.relu(self.norm(self.convolution(log_mel))).mean(dim=(2, 3))
        return Logits(self.head(self.dropout(hidden)))


class TinyDetector(Tiny):
    """Scores for each column as well."""

    def forward(self, log_mel):
        hidden = torch.relu(self.norm(self.convolution(log_mel))).mean(dim=2).transpose(1, 2)
        frames = self.head(self.dropout(hidden))
        return Logits(frames.mean(dim=1), frames)


class TinyRaw(torch.nn.Module):
    """Takes the waveform."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv1d(1, 4, 64, 32)

    def forward(self, waveforms):
        return Logits(torch.relu(self.convolution(waveforms[:, None])).amax(dim=2))


def trained(model):
    torch.manual_seed(0)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(8, 1, 32, 320) * 2 + 1)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return trained(Tiny())


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    export_graph(model, INPUT_CONFIG, path, {"labels_sha256": "abc"})
    return path


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(0).normal(1, 2, (7, 1, 32, 320)).astype(np.float32)


def axes(value):
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_axes_have_names_and_the_batch_is_free(graph):
    loaded = onnx.load(graph)
    (given,), (answer,) = loaded.graph.input, loaded.graph.output
    assert (given.name, answer.name) == (INPUT_NAME, OUTPUT_NAME)
    assert axes(given) == ["batch", 1, 32, 320]
    assert axes(answer) == ["batch", 4]
    assert loaded.opset_import[0].version == OPSET
    assert {entry.key: entry.value for entry in loaded.metadata_props}["labels_sha256"] == "abc"


def test_a_detector_has_frames_beside_its_clips(tmp_path):
    assert export_graph(trained(TinyDetector()), INPUT_CONFIG, tmp_path / "a.onnx", {}) == (OUTPUT_NAME, FRAMES_NAME)
    clip, frames = onnx.load(tmp_path / "a.onnx").graph.output
    assert (clip.name, axes(clip)) == (OUTPUT_NAME, ["batch", 4])
    assert (frames.name, axes(frames)) == (FRAMES_NAME, ["batch", 159, 4])


def test_a_waveform_goes_in_by_another_name(tmp_path):
    assert export_graph(TinyRaw(), WAVEFORM, tmp_path / "a.onnx", {}) == (OUTPUT_NAME,)
    (given,) = onnx.load(tmp_path / "a.onnx").graph.input
    assert (given.name, axes(given)) == (WAVEFORM_NAME, ["batch", 4_000])


def test_a_resized_picture_is_what_goes_in():
    assert sample_shape(FrontEndConfig(mel=MelConfig(resize=(96, 64)))) == (1, 96, 64)
    assert sample_shape(WAVEFORM) == (4_000,)


def test_outputs_are_named_by_what_they_are():
    clip, frames = torch.zeros(1, 2), torch.zeros(1, 3, 2)
    assert list(named_outputs(Logits(clip))) == [OUTPUT_NAME]
    named = named_outputs(Logits(clip, frames))
    assert named[OUTPUT_NAME] is clip
    assert named[FRAMES_NAME] is frames


def test_pitfall_3_no_spectrogram_in_the_graph(graph):
    operators = {node.op_type for node in onnx.load(graph).graph.node}
    assert not operators & {"STFT", "DFT", "RFFT"}
    types = {tensor.type.tensor_type.elem_type for tensor in onnx.load(graph).graph.value_info}
    assert not types & {TensorProto.COMPLEX64, TensorProto.COMPLEX128}


def test_pitfall_4_batchnorm_uses_its_running_statistics(model, graph, windows):
    """A graph in training mode would normalise a lone window by itself: every answer would lose what sets it apart."""
    engine = load_engine(EnginePlan(batch_size=7), graph, ["logits"], windows.shape[1:])

    def logits(batch):
        return engine.run(batch)["logits"]

    together, alone = logits(windows), np.concatenate([logits(windows[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    shifted = logits(windows + 3)
    assert np.abs(shifted - together).max() > 1e-2
    with torch.no_grad():
        np.testing.assert_allclose(together, model(torch.from_numpy(windows)).clip.numpy(), atol=1e-4)


def test_pitfall_4_a_model_in_training_mode_is_exported_as_it_predicts(windows, tmp_path):
    model = trained(Tiny()).train()
    statistics = model.norm.running_mean.clone()
    export_graph(model, INPUT_CONFIG, tmp_path / "a.onnx", {})
    assert torch.equal(model.norm.running_mean, statistics)
    engine = load_engine(EnginePlan(), tmp_path / "a.onnx", ["logits"], windows.shape[1:])
    with torch.no_grad():
        wanted = model.eval()(torch.from_numpy(windows)).clip.numpy()
    np.testing.assert_allclose(engine.run(windows)["logits"], wanted, atol=1e-4)


@pytest.mark.parametrize(("operator", "message"), [("BatchNormalization", "BatchNorm"), ("Dropout", "Dropout")])
def test_pitfall_4_a_graph_in_training_mode_is_refused(tmp_path, operator, message):
    if operator == "BatchNormalization":
        node = helper.make_node(operator, ["x", "s", "b", "m", "v"], ["y", "mean", "var"], training_mode=1, name="bn0")
    else:
        node = helper.make_node(operator, ["x", "ratio", "training"], ["y"], name="drop0")
    graph = helper.make_graph([node], "g", [], [])
    with pytest.raises(ParityError, match=rf"{message} '.*' is in training mode"):
        refuse_training_mode(helper.make_model(graph), tmp_path / "a.onnx")


@pytest.mark.parametrize("family", TINY)
def test_the_older_exporter_makes_graphs_of_every_family_for_any_batch(family, tmp_path):
    pytest.importorskip("openvino")
    input_config, inputs = tiny_windows(TINY[family], n=5)
    model = build_model(TINY[family], 6, input_config, start=False).eval()
    outputs = export_graph(model, input_config, tmp_path / "a.onnx", {}, "torchscript")
    loaded = onnx.load(tmp_path / "a.onnx")
    assert tuple(output.name for output in loaded.graph.output) == outputs
    assert {axes(value)[0] for value in (*loaded.graph.input, *loaded.graph.output)} == {"batch"}
    assert check_parity(model, tmp_path / "a.onnx", inputs.numpy(), ["onnxruntime", "openvino"]) < TOLERANCE


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_a_graph_says_its_opset_and_who_made_it(exporter, tmp_path):
    export_graph(trained(Tiny()), INPUT_CONFIG, tmp_path / "a.onnx", {"labels_sha256": "abc"}, exporter)
    loaded = onnx.load(tmp_path / "a.onnx")
    stamp = {"labels_sha256": "abc", "opset": str(loaded.opset_import[0].version), "exporter": exporter}
    assert {entry.key: entry.value for entry in loaded.metadata_props} == stamp
    assert loaded.opset_import[0].version == OPSET


def test_the_older_exporter_stores_no_weight_of_an_nfnet_twice(tmp_path):
    model = build_model(ModelConfig(backbone="test_nfnet"), 6, TINY_FRONTEND, start=False).eval()
    export_graph(model, TINY_FRONTEND, tmp_path / "a.onnx", {}, "torchscript")
    n_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert (tmp_path / "a.onnx").stat().st_size < 1.15 * n_bytes


class TinyBranches(torch.nn.Module):
    """RepViT's first layer of a block: three branches, of which a graph needs one convolution."""

    def __init__(self):
        super().__init__()
        repvit = import_timm("timm.models.repvit")
        self.branches = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), repvit.RepVggDw(4, 3))
        self.head = torch.nn.Linear(4, 4)

    def forward(self, log_mel):
        return Logits(self.head(self.branches(log_mel).mean(dim=(2, 3))))


def test_branches_that_serve_training_alone_are_merged(tmp_path):
    torch.manual_seed(0)
    model = TinyBranches()
    windows = np.random.default_rng(0).normal(size=(6, *INPUT_CONFIG.sample_shape)).astype(np.float32)
    model(torch.from_numpy(windows))  # its norms take their statistics
    before = {name: value.clone() for name, value in model.eval().state_dict().items()}
    graph = tmp_path / "a.onnx"
    export_graph(model, INPUT_CONFIG, graph, {}, "torchscript")
    kinds = [node.op_type for node in onnx.load(graph).graph.node]
    assert kinds.count("Conv") == 2
    assert not {"Add", "BatchNormalization"} & set(kinds)
    assert check_parity(model, graph, windows, ["onnxruntime"]) < TOLERANCE
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
