import numpy as np
import onnx
import onnx_ir as ir
import pytest
from make_bundles import tone

from birdinfer.audio.windows import window_of
from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WindowConfig
from birdinfer.export.onnx.fourier import NodeWriter
from birdinfer.export.onnx.frontend import front_end
from birdinfer.features import log_mel as mel
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec

RATE = 8_000
TINY = MelConfig(n_fft=256, hop_length=125, n_mels=16, f_min_hz=50.0, f_max_hz=4_000.0)


def input_config(seconds=1.0, **made):
    return FrontEndConfig(AudioConfig(RATE), WindowConfig(seconds, 0.05), _mel(**made))


def _mel(**made):
    known = {field: getattr(TINY, field) for field in TINY.__struct_fields__}
    return MelConfig(**(known | made))


def sounds(n_samples):
    """Two tones in noise, noise alone, a click in noise, silence: [5, samples]."""
    random = np.random.default_rng(0)
    seconds = n_samples / RATE
    click = random.normal(0, 1e-3, n_samples)
    click[n_samples // 3] = 0.9
    made = [tone(seconds, RATE, 440.0), tone(seconds, RATE, 1_500.0, 1), random.normal(0, 0.1, n_samples), click]
    return np.stack([*made, np.zeros(n_samples)]).astype(np.float32)


def square_waves(n_samples):
    """As loud as a file can be: [2, samples]."""
    clock = np.arange(n_samples)
    return np.stack([np.where(clock // half % 2, 1.0, -1.0) for half in (4, 11)]).astype(np.float32)


def write_front_end(path, config):
    """A graph of the front end alone: ``waveform`` -> ``inputs``."""
    shape = ir.Shape(["batch", config.window_samples])
    waveform = ir.Value(name="waveform", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    write = NodeWriter()
    inputs = front_end(write, waveform, config)
    inputs.name, inputs.shape = "inputs", ir.Shape(["batch", *config.sample_shape])
    # Opset 17 is the oldest that a member may have.
    made = {"nodes": write.nodes, "initializers": write.constants, "opset_imports": {"": 17}, "name": "front_end"}
    graph = ir.Graph([waveform], [inputs], **made)
    model = ir.to_proto(ir.Model(graph, ir_version=9))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def run(path, waveforms, batch_size=5, engine="onnxruntime"):
    plan = EnginePlan(parse_spec(engine), batch_size=batch_size)
    return load_engine(plan, path, ["inputs"], waveforms.shape[1:]).run(waveforms)["inputs"]


def as_predicted(waveforms, config):
    """The network input of files of one window."""
    return np.concatenate([mel.windows_to_input(window_of(one, 0, config), 1, config) for one in waveforms])


KINDS = [
    {"compression": compression, "normalisation": normalisation, "resize": resize}
    for compression in ("log", "pcen", "log_pcen")
    for normalisation in ("zscore", "minmax", "frequency", "none")
    for resize in ((0, 0), (24, 40))
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(str(part) for part in kind.values()))
class TestEveryKind:
    def test_computes_the_input_of_prediction(self, tmp_path, kind):
        config = input_config(**kind)
        waveforms = sounds(config.window_samples)
        found, wanted = run(write_front_end(tmp_path / "a.onnx", config), waveforms), as_predicted(waveforms, config)
        assert found.shape == wanted.shape == (5, *config.sample_shape)
        np.testing.assert_allclose(found, wanted, atol=2e-4)
        assert np.ptp(found[0]) > 1_000 * 2e-4  # the sounds make pictures in which a fault would show

    def test_computes_the_same_in_openvino(self, tmp_path, kind):
        pytest.importorskip("openvino")
        config = input_config(**kind)
        waveforms = sounds(config.window_samples)
        found = run(write_front_end(tmp_path / "a.onnx", config), waveforms, engine="openvino")
        np.testing.assert_allclose(found, as_predicted(waveforms, config), atol=2e-4)

    def test_the_loudest_and_the_quietest_sound_give_numbers(self, tmp_path, kind):
        config = input_config(**kind, floor_db=-77.7)  # whose mean over a window is not exact
        loud, silence = square_waves(config.window_samples), np.zeros((1, config.window_samples), np.float32)
        found = run(write_front_end(tmp_path / "a.onnx", config), np.concatenate([loud, silence, 1e-20 + silence]), 4)
        assert np.isfinite(found).all()
        if config.mel.normalisation != "none":
            np.testing.assert_allclose(found[2], 0, atol=1e-4)
            np.testing.assert_allclose(found[2], as_predicted(silence, config)[0], atol=1e-4)


@pytest.mark.parametrize(
    "made",
    [
        {"n_fft": 250, "hop_length": 77},
        {"n_fft": 254, "hop_length": 300},
        {"n_fft": 256, "hop_length": 16},
        {"n_fft": 512, "hop_length": 512, "n_mels": 40},
        {"scale": "htk", "filter_norm": "none", "floor_db": -80.0, "f_min_hz": 0.0},
        {"seconds": 0.1, "n_fft": 800, "hop_length": 100},
        {"seconds": 3.0, "compression": "pcen", "pcen_gain": 0.8, "pcen_bias": 10.0, "pcen_time_seconds": 2.0},
    ],
    ids=["no divisor", "hop over frame", "hop of 16", "side by side", "htk", "frame of a window", "long memory"],
)
def test_frames_of_any_length_and_step(tmp_path, made):
    config = input_config(**made)
    waveforms = sounds(config.window_samples)
    found = run(write_front_end(tmp_path / "a.onnx", config), waveforms)
    np.testing.assert_allclose(found, as_predicted(waveforms, config), atol=2e-4)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_pitfall_1_a_windows_input_does_not_depend_on_its_neighbours(tmp_path, engine):
    pytest.importorskip(engine)
    path = write_front_end(tmp_path / "a.onnx", input_config(compression="pcen"))
    waveforms = sounds(RATE) * np.array([1, 1e-3, 1, 0.1, 1], np.float32)[:, None]
    alone = run(path, waveforms, 1, engine)
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_allclose(run(path, waveforms, 5, engine), alone, atol=1e-5)
    np.testing.assert_allclose(run(path, waveforms[order], 2, engine), alone[order], atol=1e-5)


def test_pitfall_3_nothing_complex_and_no_operator_that_runtimes_lack(tmp_path):
    graph = onnx.load(write_front_end(tmp_path / "a.onnx", input_config(compression="pcen", resize=(24, 40)))).graph
    assert not {node.op_type for node in graph.node} & {"STFT", "DFT", "Loop", "Scan", "If", "Gather"}
    kinds = {tensor.data_type for tensor in graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
