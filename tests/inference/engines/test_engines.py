"""Every engine answers alike, whatever the batch; what a machine cannot run is refused in one line."""

import sys

import numpy as np
import pytest
from make_bundles import LABELS, write_framewise_graph, write_linear_graph
from saturating_graphs import EXACT, KINDS, saturating_graph

from birdinfer.errors import BirdinferError, BundleError, ConfigError, MissingExtraError
from birdinfer.inference.engines import EnginePlan, EngineSpec, GraphRequest, load_engine, load_engines, parse_spec
from birdinfer.inference.engines import openvino as openvino_module
from birdinfer.inference.engines.base import run_in_batches
from birdinfer.inference.engines.cuda import CudaEngine, find_gpu, has_cuda

SHAPE = (1, 32, 20)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("graphs") / "linear.onnx"
    write_linear_graph(path, seed=3)
    return path


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(0).normal(-40, 15, (11, *SHAPE)).astype(np.float32)


def load(name, graph, batch_size=3, workers=2, outputs=("logits",)):
    spec = parse_spec(name)
    if spec.engine == "openvino":
        pytest.importorskip("openvino")
        if spec.precision == "bf16" and not openvino_module.has_bf16():
            pytest.skip("this processor has no bf16")
    return load_engine(EnginePlan(spec, workers, batch_size), graph, outputs, SHAPE)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "openvino:bf16"])
def test_engines_answer_as_the_graph_says_whatever_the_batch(name, graph, windows):
    expected = load("onnxruntime", graph).run(windows)["logits"]
    answers = [load(name, graph, batch_size).run(windows)["logits"] for batch_size in (1, 3, 4, 11, 16)]
    assert answers[0].dtype == np.float32
    assert answers[0].shape == (11, len(LABELS))
    np.testing.assert_allclose(answers[0], expected, atol=0.02 if name.endswith("bf16") else 1e-5)
    for answer in answers[1:]:
        assert np.array_equal(answer, answers[0])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_facts_are_those_of_the_graph(name, graph):
    facts = load(name, graph).facts
    assert facts.input_name == "log_mel"
    assert facts.input_shape == (None, 1, 32, None)
    assert facts.outputs == {"logits": (None, len(LABELS))}
    assert len(facts.metadata["labels_sha256"]) == 64


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("shape", [None, ()])
def test_a_graph_that_takes_no_batch_is_refused(name, shape, tmp_path):
    onnx = pytest.importorskip("onnx")
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = make.make_tensor("weights", kind, [1, 3], [1.0, 2.0, 3.0])
    inputs = [] if shape is None else [make.make_tensor_value_info("x", kind, shape)]
    nodes = [make.make_node("Mul", ["weights", "weights" if shape is None else "x"], ["logits"])]
    graph = make.make_graph(nodes, "g", inputs, [make.make_tensor_value_info("logits", kind, [1, 3])], [weights])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), tmp_path / "g.onnx")
    with pytest.raises(BundleError, match=r"g\.onnx: takes no batch of windows"):
        load(name, tmp_path / "g.onnx")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_output_that_is_not_there_is_named(name, graph):
    with pytest.raises(BundleError, match="has no output 'frames', it has logits"):
        load(name, graph, outputs=("logits", "frames"))


def test_specs_are_read_strictly():
    assert parse_spec("onnxruntime") == EngineSpec("onnxruntime", "fp32")
    assert str(parse_spec("openvino:bf16")) == "openvino:bf16"
    with pytest.raises(ConfigError, match="'tensorrt' is not an engine - choose one of onnxruntime, openvino, cuda"):
        parse_spec("tensorrt")
    with pytest.raises(ConfigError, match="onnxruntime does not compute in 'bf16' - choose one of fp32, int8"):
        parse_spec("onnxruntime:bf16")
    with pytest.raises(ConfigError, match="does not compute in 'int4'"):
        parse_spec("openvino:int4")


def test_a_plan_reads_well():
    assert str(EnginePlan(EngineSpec("openvino", "bf16"), 2, 4)) == "openvino:bf16, 2 workers, batch 4"
    assert str(EnginePlan()) == "onnxruntime:fp32, 1 worker, batch 1"


def test_bf16_without_the_processor_for_it_is_refused(graph, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr(openvino_module, "has_bf16", lambda: False)
    with pytest.raises(ConfigError, match="openvino:bf16: this processor has no bf16 - choose openvino:fp32, or auto"):
        load_engine(EnginePlan(parse_spec("openvino:bf16")), graph, ["logits"], SHAPE)


def test_the_cuda_engine_binds_its_inputs_and_outputs(graph, windows):
    """The same path on the CPU's device: there is no GPU where the tests run."""
    engine = CudaEngine(graph, ["logits"], SHAPE, 4, device="cpu")
    expected = load("onnxruntime", graph).run(windows)["logits"]
    for _ in range(2):  # the buffer is used again
        np.testing.assert_allclose(engine.run(windows)["logits"], expected, atol=1e-5)
    np.testing.assert_allclose(engine.run(windows[:1])["logits"], expected[:1], atol=1e-5)


def test_an_installation_without_cuda_says_what_brings_it(graph, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert not has_cuda()
    with pytest.raises(MissingExtraError, match=r"birdinfer\[gpu\]"):
        load_engine(EnginePlan(parse_spec("cuda")), graph, ["logits"], SHAPE)


def test_a_gpu_that_cannot_be_used_is_said_and_not_replaced_by_the_cpu(graph, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    opened = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: opened(path, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(ConfigError, match="no usable NVIDIA GPU"):
        load_engine(EnginePlan(parse_spec("cuda")), graph, ["logits"], SHAPE)


def test_a_machine_without_nvidia_driver_or_device_is_reported(monkeypatch):
    import ctypes

    class Driver:
        """Starts, and finds the given number of devices."""

        def __init__(self, name):
            self.name = name

        def cuInit(self, flags):
            return 0

        def cuDeviceGetCount(self, place):
            place._obj.value = n_devices
            return 0

    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert find_gpu() == "the NVIDIA driver is not installed"
    monkeypatch.setattr(ctypes, "CDLL", Driver)
    n_devices = 0
    assert find_gpu() == "the NVIDIA driver finds no device"
    n_devices = 1
    assert find_gpu() == ""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("n_others", [0, 1])
def test_a_file_that_is_wanted_twice_is_one_engine(graph, tmp_path, windows, engine, n_others):
    pytest.importorskip(engine)
    write_framewise_graph(tmp_path / "both.onnx", 4, n_frames=5)
    shared = [GraphRequest(tmp_path / "both.onnx", (name,), SHAPE) for name in ("clip", "frames")]
    others = [GraphRequest(graph, ("logits",), SHAPE)] * n_others
    clip, *rest, frames = load_engines(EnginePlan(parse_spec(engine)), [shared[0], *others, shared[1]])
    assert clip.engine is frames.engine
    wanted = load(engine, tmp_path / "both.onnx", outputs=("clip", "frames")).run(windows)
    for found, name in ((clip, "clip"), (frames, "frames")):
        answer = found.engine.run(windows)[found.output_names[name]]
        np.testing.assert_allclose(answer, wanted[name], atol=1e-6)
        assert set(found.facts.outputs) == {"clip", "frames"}
    for other in rest:
        answer = other.engine.run(windows)[other.output_names["logits"]]
        np.testing.assert_allclose(answer, load(engine, graph).run(windows)["logits"], atol=1e-6)


def test_the_cuda_engine_gives_every_output_of_a_shared_graph(tmp_path, windows):
    """Binding goes by position: each name must get its own output, in whatever order they are asked for."""
    write_framewise_graph(tmp_path / "both.onnx", 4, n_frames=5)
    wanted = load("onnxruntime", tmp_path / "both.onnx", outputs=("clip", "frames")).run(windows)
    found = CudaEngine(tmp_path / "both.onnx", ["frames", "clip"], SHAPE, 4, device="cpu").run(windows)
    for name in ("clip", "frames"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)


def test_no_onnxruntime_at_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not has_cuda()


@pytest.mark.parametrize("n_windows", [1, 2, 5, 6, 7])
def test_batches_of_one_size_are_filled_and_cut(n_windows):
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        return {"sum": batch.sum(axis=1), "same": batch}

    windows = np.arange(n_windows * 2, dtype=np.float32).reshape(n_windows, 2)
    found = run_in_batches(run, windows, 3, fixed=True)
    assert set(sizes) == {3}
    assert np.array_equal(found["same"], windows)
    sizes.clear()
    assert np.array_equal(run_in_batches(run, windows, 3, fixed=False)["sum"], windows.sum(axis=1))
    assert sum(sizes) == n_windows


def test_every_error_is_birdinfers(graph, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    for name in ("onnxruntime", "openvino"):
        with pytest.raises(BirdinferError, match=r"a.onnx: cannot be loaded by"):
            load(name, tmp_path / "a.onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_int8_weights_of_8_bits_do_not_overflow(kind, tmp_path):
    """Fails on AVX2 without VNNI alone, which CI emulates (.ci/check_processor.py)."""
    content, shape = saturating_graph(kind)
    (tmp_path / "graph.onnx").write_bytes(content)
    plan = EnginePlan(EngineSpec("onnxruntime", "int8"), 1, 2)
    found = load_engine(plan, tmp_path / "graph.onnx", ["y"], shape).run(np.ones((2, *shape), np.float32))["y"]
    np.testing.assert_allclose(found, EXACT, atol=1e-3)


def test_openvinos_binding_imports_numpy_before_there_are_workers(monkeypatch):
    """Two workers that both bring the first array each take one of its two locks, and wait for ever."""
    openvino = pytest.importorskip("openvino")
    met = []

    class Tensor(openvino.Tensor):
        def __init__(self, array):
            met.append(array)
            super().__init__(array)

    monkeypatch.setattr(openvino, "Tensor", Tensor)
    openvino_module._core.__wrapped__()
    assert len(met) == 1
