"""Members in one graph answer as they do alone, and what cannot be put together is refused by name."""

import itertools

import numpy as np
import onnx
import pytest
from awkward_network import SHAPE
from make_bundles import LABELS, write_framewise_graph, write_linear_graph
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from birdinfer.errors import BundleError, ConfigError
from birdinfer.export import fuse as fuse_module
from birdinfer.export.fuse import faster_fused, fuse
from birdinfer.inference.engines import EnginePlan, EngineSpec, load_engine, parse_spec

INPUTS = np.random.default_rng(0).normal(-40, 15, (5, 1, 32, 20)).astype(np.float32)


@pytest.fixture
def graphs(tmp_path):
    """Two linear graphs with equal names inside, and a detector."""
    write_linear_graph(tmp_path / "a.onnx", 0)
    write_linear_graph(tmp_path / "b.onnx", 1)
    write_framewise_graph(tmp_path / "c.onnx", 2, n_frames=5)
    stamp(tmp_path / "c.onnx", dict_of(onnx.load(tmp_path / "a.onnx")))
    return {"fold0": tmp_path / "a.onnx", "fold1": tmp_path / "b.onnx", "sed": tmp_path / "c.onnx"}


def dict_of(proto):
    return {each.key: each.value for each in proto.metadata_props}


def stamp(path, properties):
    proto = onnx.load(path)
    helper.set_model_props(proto, properties)
    onnx.save(proto, path)


def answers(engine, path, inputs, batch_size=2):
    names = [output.name for output in onnx.load(path).graph.output]
    return load_engine(EnginePlan(parse_spec(engine), 1, batch_size), path, names, inputs.shape[1:]).run(inputs)


def assert_same_answers(graphs, out, renamed, inputs, engine):
    fused = answers(engine, out, inputs)
    assert set(fused) == {name for outputs in renamed.values() for name in outputs.values()}
    for member, path in graphs.items():
        for name, answer in answers(engine, path, inputs).items():
            found = fused[renamed[member][name]]
            if engine == "onnxruntime":
                assert np.array_equal(found, answer)
            else:
                np.testing.assert_allclose(found, answer, atol=1e-6 * np.abs(answer).max())


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_members_in_one_graph_answer_as_alone(graphs, tmp_path, engine):
    pytest.importorskip(engine)
    renamed = fuse(graphs, tmp_path / "fused.onnx")
    assert renamed == {
        "fold0": {"logits": "fold0/logits"},
        "fold1": {"logits": "fold1/logits"},
        "sed": {"clip": "sed/clip", "frames": "sed/frames"},
    }
    assert_same_answers(graphs, tmp_path / "fused.onnx", renamed, INPUTS, engine)


class Reader(CalibrationDataReader):
    """Windows, one a call."""

    def __init__(self, windows):
        self.left = [{"log_mel": window[None]} for window in windows]

    def get_next(self):
        return self.left.pop() if self.left else None


@pytest.fixture(scope="module")
def int8_graph(awkward_graph, awkward_windows, tmp_path_factory):
    """U8 activations and S8 weights per channel in QDQ form; how well it is calibrated does not matter here."""
    path = tmp_path_factory.mktemp("graph") / "int8.onnx"
    signed, unsigned = QuantType.QInt8, QuantType.QUInt8
    quantize_static(
        awkward_graph, path, Reader(awkward_windows), per_channel=True, activation_type=unsigned, weight_type=signed
    )
    stamp(path, dict_of(onnx.load(awkward_graph)))
    return path


@pytest.fixture
def mixed_graphs(awkward_graph, int8_graph):
    """One of three members may have failed the gate: the fused INT8 graph then holds its fp32 form."""
    return {"a": int8_graph, "b": awkward_graph, "c": int8_graph}


def test_real_networks_in_fp32_and_int8_fuse_alike(mixed_graphs, awkward_windows, tmp_path):
    renamed = fuse(mixed_graphs, tmp_path / "fused.onnx")
    assert awkward_windows.shape[2:] == SHAPE
    assert_same_answers(mixed_graphs, tmp_path / "fused.onnx", renamed, awkward_windows[:5], "onnxruntime")


def test_openvino_rounds_a_fused_int8_graph_as_well_as_its_parts(mixed_graphs, awkward_windows, tmp_path):
    """It decides by the whole graph where INT8 values are rounded; that moves them no farther than engines differ."""
    pytest.importorskip("openvino")
    renamed = fuse(mixed_graphs, tmp_path / "fused.onnx")
    inputs = awkward_windows[:5]
    fused = answers("openvino:int8", tmp_path / "fused.onnx", inputs)
    for member, path in mixed_graphs.items():
        alone, elsewhere = (answers(engine, path, inputs)["logits"] for engine in ("openvino:int8", "onnxruntime"))
        between_engines = np.abs(alone - elsewhere).max()
        assert np.abs(fused[renamed[member]["logits"]] - alone).max() <= max(between_engines, 1e-5)


def test_a_half_precision_graph_fuses_as_well(tmp_path):
    for name in ("a", "b"):
        write_half_graph(tmp_path / f"{name}.onnx", seed=ord(name))
    graphs = {name: tmp_path / f"{name}.onnx" for name in ("a", "b")}
    renamed = fuse(graphs, tmp_path / "fused.onnx")
    assert_same_answers(graphs, tmp_path / "fused.onnx", renamed, INPUTS / 40, "onnxruntime")


def write_half_graph(path, seed):
    """fp32 in and out, fp16 between: the convolution's weights are stored in 16 bits."""
    weights = np.random.default_rng(seed).normal(0, 1, (3, 1, 3, 3)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["log_mel"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "weights"], ["found"]),
        helper.make_node("Cast", ["found"], ["logits"], to=TensorProto.FLOAT),
    ]
    save(path, nodes, [numpy_helper.from_array(weights, "weights")], ["batch", 3, 30, 18])


FREE = ["batch", 1, 32, 20]


def save(path, nodes, constants, shape, opset=18, domains=()):
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("log_mel", TensorProto.FLOAT, FREE)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        constants,
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*each) for each in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def test_batches_stay_free_and_what_is_said_in_all_is_kept(graphs, tmp_path):
    common = dict_of(onnx.load(graphs["fold0"]))
    stamp(graphs["fold0"], {**common, "birdinfer": "1", "fold": "0"})
    stamp(graphs["fold1"], {**common, "birdinfer": "1", "fold": "1"})
    two = {name: graphs[name] for name in ("fold0", "fold1")}
    fuse(two, tmp_path / "fused.onnx")
    fused = onnx.load(tmp_path / "fused.onnx")
    assert dict_of(fused) == {**common, "birdinfer": "1"}
    (shared,) = fused.graph.input
    assert shared.name == "log_mel"
    answers_of_each = [answers("onnxruntime", tmp_path / "fused.onnx", INPUTS, size) for size in (1, 3, 5)]
    for one in answers_of_each[1:]:
        for name, answer in one.items():
            np.testing.assert_allclose(answer, answers_of_each[0][name], atol=1e-5)


def test_a_size_of_the_same_name_may_be_another_number_in_another_member(tmp_path):
    """ONNX Runtime plans memory by the names of sizes: two that differ under one name would share a buffer."""
    for name, stride in (("a", 2), ("b", 5)):
        nodes = [
            helper.make_node("MaxPool", ["log_mel"], ["pooled"], kernel_shape=[2, 2], strides=[stride, stride]),
            helper.make_node("Relu", ["pooled"], ["kept"]),
            helper.make_node("Neg", ["kept"], ["other"]),
            helper.make_node("Exp", ["other"], ["logits"]),
        ]
        save(tmp_path / f"{name}.onnx", nodes, [], ["batch", 1, "high", "wide"])
    graphs = {name: tmp_path / f"{name}.onnx" for name in ("a", "b")}
    renamed = fuse(graphs, tmp_path / "fused.onnx")
    assert_same_answers(graphs, tmp_path / "fused.onnx", renamed, INPUTS / 40, "onnxruntime")
    free = [size.dim_param for out in onnx.load(tmp_path / "fused.onnx").graph.output for size in shape_of(out)]
    assert not any(free)


def shape_of(value):
    return value.type.tensor_type.shape.dim


def test_names_within_branches_are_kept_apart_too(tmp_path):
    for name, factor in (("a", 2.0), ("b", -3.0)):
        weights = numpy_helper.from_array(np.float32(factor), "weights")
        there = [helper.make_tensor_value_info("there", TensorProto.FLOAT, None)]
        branches = {
            branch: helper.make_graph([helper.make_node(op, ["log_mel", "weights"], ["there"])], branch, [], there)
            for branch, op in (("then_branch", "Mul"), ("else_branch", "Add"))
        }
        nodes = [
            helper.make_node("ReduceMax", ["log_mel"], ["loudest"], keepdims=0),
            helper.make_node("Greater", ["loudest", "weights"], ["is_loud"]),
            helper.make_node("If", ["is_loud"], ["logits"], **branches),
        ]
        save(tmp_path / f"{name}.onnx", nodes, [weights], FREE)
    graphs = {name: tmp_path / f"{name}.onnx" for name in ("a", "b")}
    renamed = fuse(graphs, tmp_path / "fused.onnx")
    assert_same_answers(graphs, tmp_path / "fused.onnx", renamed, INPUTS, "onnxruntime")


def test_graphs_of_several_opsets_are_raised_to_the_newest(tmp_path):
    for name, opset in (("old", 18), ("new", 21)):
        save(tmp_path / f"{name}.onnx", [helper.make_node("Relu", ["log_mel"], ["logits"])], [], FREE, opset)
        stamp(tmp_path / f"{name}.onnx", {"labels_sha256": "abc"})
    graphs = {name: tmp_path / f"{name}.onnx" for name in ("old", "new")}
    renamed = fuse(graphs, tmp_path / "fused.onnx")
    fused = onnx.load(tmp_path / "fused.onnx")
    assert [each.version for each in fused.opset_import] == [21]
    assert dict_of(fused) == {"labels_sha256": "abc"}
    assert_same_answers(graphs, tmp_path / "fused.onnx", renamed, INPUTS, "onnxruntime")


def test_a_graph_that_cannot_be_raised_is_refused(tmp_path, monkeypatch):
    for name, opset in (("old", 18), ("new", 21)):
        save(tmp_path / f"{name}.onnx", [helper.make_node("Relu", ["log_mel"], ["logits"])], [], FREE, opset)

    def cannot(proto, opset):
        raise RuntimeError("no adapter for Relu\nfrom 18")

    monkeypatch.setattr(onnx.version_converter, "convert_version", cannot)
    with pytest.raises(BundleError, match=r"old.onnx: cannot be raised from opset 18 to 21 \(no adapter for Relu from"):
        fuse({name: tmp_path / f"{name}.onnx" for name in ("old", "new")}, tmp_path / "fused.onnx")


def other_labels(path):
    write_linear_graph(path, 5, labels=(*LABELS[:3], "unknown"))


def no_labels(path):
    write_linear_graph(path, 5)
    stamp(path, {})


def other_input(path):
    write_linear_graph(path, 5, n_mels=40)


def no_graph(path):
    path.write_text("no graph")


def two_inputs(path):
    write_linear_graph(path, 5)
    proto = onnx.load(path)
    proto.graph.input.append(helper.make_tensor_value_info("context", TensorProto.FLOAT, [1]))
    onnx.save(proto, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (other_labels, r"b.onnx: was exported with other labels than fold0 - export the members without --fuse"),
        (no_labels, "b.onnx: was exported with other labels than fold0"),
        (other_input, r"b.onnx: takes log_mel FLOAT \[\?, 1, 40, \?\], fold0 takes log_mel FLOAT \[\?, 1, 32, \?\]"),
        (no_graph, "b.onnx: cannot be read as an ONNX graph"),
        (two_inputs, "b.onnx: takes 2 inputs, needed is one"),
    ],
)
def test_graphs_that_do_not_belong_together_are_refused(graphs, tmp_path, write, message):
    write(tmp_path / "b.onnx")
    with pytest.raises(BundleError, match=message) as caught:
        fuse(graphs, tmp_path / "fused.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "fused.onnx").exists()


def test_kernels_of_another_domain_must_be_of_one_version(tmp_path):
    nodes = [helper.make_node("Relu", ["log_mel"], ["logits"])]
    for version in (1, 2):
        save(tmp_path / f"{version}.onnx", nodes, [], FREE, domains=[("com.microsoft", version)])
    with pytest.raises(BundleError, match=r"2.onnx: needs com.microsoft in version 2, a version 1"):
        fuse({"a": tmp_path / "1.onnx", "b": tmp_path / "2.onnx"}, tmp_path / "fused.onnx")


@pytest.mark.parametrize("names", [("fold0",), ("a/b", "a"), ("", "a")])
def test_members_that_have_no_distinct_names_are_refused(graphs, tmp_path, names):
    with pytest.raises(ConfigError, match=r"^--fuse: "):
        fuse({name: graphs["fold0"] for name in names}, tmp_path / "fused.onnx")


def test_more_than_one_file_holds_is_refused_before_it_is_written(graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 1_000)
    with pytest.raises(ConfigError, match="more than one ONNX file holds"):
        fuse(graphs, tmp_path / "fused.onnx")
    assert not (tmp_path / "fused.onnx").exists()


def test_the_fused_graph_is_held_against_all_its_parts_in_turns(graphs, tmp_path, monkeypatch):
    fuse(graphs, tmp_path / "fused.onnx")

    def speeds(runs, inputs, rounds, seconds):
        separate, whole = (run(inputs) for run, _ in runs)
        assert [list(answer) for answer in separate] == [["logits"], ["logits"], ["clip", "frames"]]
        assert list(whole) == ["fold0/logits", "fold1/logits", "sed/clip", "sed/frames"]
        assert {(plan.workers, plan.batch_size) for _, plan in runs} == {(2, 3)}
        return [[10.0, 20.0], [1.0, 1.5], [10.0, 11.0]]

    monkeypatch.setattr(fuse_module, "speeds_in_turns", speeds)
    assert faster_fused(list(graphs.values()), tmp_path / "fused.onnx", INPUTS, EnginePlan(EngineSpec(), 2, 3)) == 1.5


def test_the_ratio_is_measured(tmp_path, monkeypatch):
    """A graph of eight members takes longer than one of them; they begin differently, or what is equal ran once."""
    monkeypatch.setattr(fuse_module, "_SECONDS", 0.02)
    graphs = {str(factor): tmp_path / f"{factor}.onnx" for factor in range(1, 9)}
    for factor, path in enumerate(graphs.values(), 1):
        nodes = [helper.make_node("Mul", ["log_mel", "factor"], ["scaled"]), *waves("scaled", "logits")]
        save(path, nodes, [numpy_helper.from_array(np.float32(factor), "factor")], FREE)
    fuse(graphs, tmp_path / "fused.onnx")
    inputs = np.zeros((64, 1, 32, 20), np.float32)
    assert faster_fused([graphs["1"]], tmp_path / "fused.onnx", inputs, EnginePlan(EngineSpec(), 1, 64)) < 0.5


def waves(begin, end):
    names = [begin, *(f"wave{index}" for index in range(9)), end]
    return [helper.make_node("Sin", [read], [made]) for read, made in itertools.pairwise(names)]
