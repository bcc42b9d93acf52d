import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from birdinfer.engines import EnginePlan, load_engine
from birdinfer.errors import ParityError
from birdinfer.export.onnx import INPUT_NAME, OPSET, OUTPUT_NAME, export_graph, refuse_training_mode
from birdinfer.export.parity import TOLERANCE, check_parity, real_windows


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
        return self.head(self.dropout(hidden))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Tiny()
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(8, 1, 32, 320) * 2 + 1)
    return model.eval()


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    export_graph(model, (32, 320), path, {"labels_sha256": "abc"})
    return path


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(0).normal(1, 2, (7, 1, 32, 320)).astype(np.float32)


def test_axes_have_names_and_the_batch_is_free(graph):
    loaded = onnx.load(graph)
    (given,), (answer,) = loaded.graph.input, loaded.graph.output
    assert (given.name, answer.name) == (INPUT_NAME, OUTPUT_NAME)
    assert [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim] == ["batch", 1, 32, 320]
    assert [axis.dim_param or axis.dim_value for axis in answer.type.tensor_type.shape.dim] == ["batch", 4]
    assert loaded.opset_import[0].version == OPSET
    assert {entry.key: entry.value for entry in loaded.metadata_props}["labels_sha256"] == "abc"


def test_pitfall_3_no_spectrogram_in_the_graph(graph):
    operators = {node.op_type for node in onnx.load(graph).graph.node}
    assert not operators & {"STFT", "DFT", "RFFT"}
    types = {tensor.type.tensor_type.elem_type for tensor in onnx.load(graph).graph.value_info}
    assert not types & {TensorProto.COMPLEX64, TensorProto.COMPLEX128}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_graph_and_model_agree_in_any_company(model, graph, windows, engine):
    pytest.importorskip(engine)
    assert check_parity(model, graph, windows, [engine]) < TOLERANCE


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
        np.testing.assert_allclose(together, model(torch.from_numpy(windows)).numpy(), atol=1e-4)


@pytest.mark.parametrize(("operator", "complaint"), [("BatchNormalization", "BatchNorm"), ("Dropout", "Dropout")])
def test_pitfall_4_a_graph_in_training_mode_is_refused(tmp_path, operator, complaint):
    if operator == "BatchNormalization":
        node = helper.make_node(operator, ["x", "s", "b", "m", "v"], ["y", "mean", "var"], training_mode=1, name="bn0")
    else:
        node = helper.make_node(operator, ["x", "ratio", "training"], ["y"], name="drop0")
    graph = helper.make_graph([node], "g", [], [])
    with pytest.raises(ParityError, match=rf"{complaint} '.*' is in training mode"):
        refuse_training_mode(helper.make_model(graph), tmp_path / "a.onnx")


def test_a_graph_that_answers_otherwise_is_refused(model, graph, windows):
    other = Tiny().eval()
    with pytest.raises(ParityError, match=r"tiny.onnx: differs from its torch model by .* allowed is 0.0001"):
        check_parity(other, graph, windows, ["onnxruntime"])


def test_an_answer_that_is_not_finite_is_refused(graph, windows):
    broken = Tiny().eval()
    with torch.no_grad():
        broken.head.bias.fill_(float("nan"))
    with pytest.raises(ParityError, match="by nan of probability"):
        check_parity(broken, graph, windows, ["onnxruntime"])


def test_real_windows_skip_what_cannot_be_read(tmp_path, soundscapes):
    from birdinfer.config import FrontEndConfig
    from birdinfer.errors import AudioError

    (tmp_path / "bad.ogg").write_text("no sound")
    clips = [tmp_path / "bad.ogg", *sorted(soundscapes.iterdir())]
    windows = real_windows(clips, FrontEndConfig())
    assert windows.shape == (4, 1, 128, 320)  # three clips and silence
    assert np.isfinite(windows).all()
    with pytest.raises(AudioError, match="none of 1 validation clips can be read - name the data folder: --data"):
        real_windows(clips[:1], FrontEndConfig())
