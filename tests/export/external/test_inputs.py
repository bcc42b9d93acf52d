import numpy as np
import onnx
import onnxruntime
import pytest
from external_graphs import loudness_logits, write_external_graph, write_list
from make_bundles import write_sound
from onnx import TensorProto, helper, numpy_helper

from birdinfer import Bundle, Predictor
from birdinfer.errors import BirdinferError, BundleError, ConfigError
from birdinfer.export.adopt import GraphChanges, adopt_model
from birdinfer.export.external.change import change_graph
from birdinfer.inference.activation import activate
from birdinfer.inference.external.add_model import AddOptions

N, RATE, N_LABELS = 8_000, 8_000, 4
OPTIONS = AddOptions(sample_rate=RATE, window_seconds=1.0)


OLD = 12
"""An opset in which the axes of Squeeze and ReduceMean are attributes."""


def write_graph(
    path,
    shape=("batch", N),
    element=TensorProto.FLOAT,
    more=(),
    output=("batch", N_LABELS),
    batch_inside=None,
    opset=18,
):
    """Scores: mean square of the sound x slopes + the sum of further inputs, in the shape that is asked for."""
    slopes = np.linspace(-4, 4, N_LABELS).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["sound"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "flat"], ["rows"]),
        helper.make_node("Mul", ["rows", "rows"], ["power"]),
        helper.make_node("ReduceMean", ["power", "axis"], ["mean"], keepdims=1)
        if opset > OLD
        else helper.make_node("ReduceMean", ["power"], ["mean"], keepdims=1, axes=[1]),
        helper.make_node("Mul", ["mean", "slopes"], ["sum0"]),
    ]
    for number, (name, *_) in enumerate(more):
        nodes += [
            helper.make_node("Cast", [name], [f"{name}/float"], to=TensorProto.FLOAT),
            helper.make_node("Add", [f"sum{number}", f"{name}/float"], [f"sum{number + 1}"]),
        ]
    nodes += [
        helper.make_node("Reshape", [f"sum{len(more)}", "out"], ["shaped"]),
        helper.make_node("Cast", ["shaped"], ["scores"], to=element),
    ]
    out = [-1 if isinstance(size, str) else size for size in output]
    constants = {
        "flat": np.array([batch_inside or -1, N]), "axis": np.array([1]), "slopes": slopes, "out": np.array(out),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("sound", element, list(shape)),
         *(helper.make_tensor_value_info(name, kind, list(sizes)) for name, kind, sizes in more)],
        [helper.make_tensor_value_info("scores", element, list(output))],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if opset > OLD or name != "axis"],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7), path)
    return path


def expected(windows, added=0.0):
    level = np.square(windows, dtype=np.float64).mean(axis=1, keepdims=True)
    return activate((level * np.linspace(-4, 4, N_LABELS) + added).astype(np.float32), "sigmoid")


@pytest.fixture
def sound(tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.3, (3, N)).astype(np.float32) * np.float32([[0.3], [1], [2]])
    write_sound(tmp_path / "sound.wav", samples.ravel(), rate=RATE, subtype="FLOAT")
    return tmp_path / "sound.wav", samples


def adopted(tmp_path, graph, **inputs):
    labels = write_list(tmp_path / "labels.txt", *"abcd")
    return adopt_model(graph, labels, tmp_path / "bundle", OPTIONS, GraphChanges(inputs=inputs))


@pytest.mark.parametrize(
    "options",
    [
        {"shape": ("batch", 1, N)},
        {"shape": ("batch", N, 1)},
        {"shape": ("batch", 1, 1, N)},
        {"shape": (N,), "output": (N_LABELS,)},
        {"shape": (N,), "output": (N_LABELS,), "opset": OLD},
        {"shape": ("batch", N, 1), "output": ("batch", 1, N_LABELS), "opset": OLD},
        {"shape": (1, N), "output": (N_LABELS,)},
        {"shape": (1, N, 1)},
        {"element": TensorProto.FLOAT16},
        {"element": TensorProto.DOUBLE, "shape": ("batch", 1, N)},
        {"output": ("batch", 1, N_LABELS)},
        {"output": (1, "batch", N_LABELS)},
        {"shape": (3, N), "output": (3, N_LABELS)},
        {"batch_inside": 2, "output": (2, N_LABELS)},
        {"batch_inside": 1},
    ],
    ids=str,
)
def test_every_shape_and_type_of_sound_scores_alike(tmp_path, sound, options):
    path, samples = sound
    adopted(tmp_path, write_graph(tmp_path / "g.onnx", **options))
    tolerance = 2e-3 if options.get("element") == TensorProto.FLOAT16 else 2e-5
    bundle = Bundle.load(tmp_path / "bundle")
    np.testing.assert_allclose(Predictor(bundle).predict(path), expected(samples), atol=tolerance)
    one = path.with_name("one.wav")  # alone, and beside silence that fills a batch
    write_sound(one, samples[1], rate=RATE, subtype="FLOAT")
    np.testing.assert_allclose(Predictor(bundle).predict(one), expected(samples)[1:2], atol=tolerance)


@pytest.mark.parametrize(
    ("more", "inputs", "added"),
    [
        ([("training", TensorProto.BOOL, ())], {}, 0),
        (
            [("training", TensorProto.BOOL, ("batch", 1)), ("b", TensorProto.FLOAT, ())],
            {"training": "true", "b": "-1"},
            0,
        ),
        ([("week", TensorProto.INT64, ("batch", 1))], {"week": "-1"}, -1),
        ([("week", TensorProto.INT64, (1,))], {"week": "-2"}, -2),
        (
            [("lat", TensorProto.FLOAT, ("batch", 1)), ("lon", TensorProto.DOUBLE, ())],
            {"lat": "0.5", "lon": "-2"},
            -1.5,
        ),
        ([("bias", TensorProto.FLOAT, (N_LABELS,))], {"bias": "1,0,0,-1"}, [1, 0, 0, -1]),
        ([("bias", TensorProto.FLOAT, ("batch", N_LABELS))], {"bias": "1,0,0,-1"}, [1, 0, 0, -1]),
    ],
    ids=str,
)
def test_further_inputs_are_fixed(tmp_path, sound, more, inputs, added):
    path, samples = sound
    found = adopted(tmp_path, write_graph(tmp_path / "g.onnx", more=more), **inputs)
    assert [note for note in found.notes if "is fixed to" in note]
    np.testing.assert_allclose(
        Predictor(Bundle.load(tmp_path / "bundle")).predict(path), expected(samples, np.array(added)), atol=2e-5
    )


@pytest.mark.parametrize(
    ("more", "inputs", "problem"),
    [
        ([("week", TensorProto.INT64, ("batch", 1))], {}, r"a further input, week \[\?, 1\] int64 - .* --input week=V"),
        ([("week", TensorProto.INT64, ("batch", 1))], {"week": "1.5"}, "--input: week=1.5 is no value for int64"),
        ([("week", TensorProto.INT64, ("batch", 1))], {"week": "soon"}, "week=soon is no value for int64 - write"),
        ([("bias", TensorProto.FLOAT, (N_LABELS,))], {"bias": "1,2"}, r"bias=1,2 does not fit bias \[4\] float"),
        ([], {"weak": "1"}, r"--input: 'weak' is no input of g.onnx - it takes sound \[\?, 8000\] float"),
        ([("other", TensorProto.FLOAT, ("batch", N))], {}, r"takes 2 inputs \(sound .*, other .*\), one is the sound"),
    ],
)  # fmt: skip
def test_inputs_that_remain_open_are_named(tmp_path, more, inputs, problem):
    with pytest.raises((ConfigError, BundleError), match=problem) as caught:
        adopted(tmp_path, write_graph(tmp_path / "g.onnx", more=more), **inputs)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_a_plain_graph_is_left_as_it_is(tmp_path):
    assert change_graph(write_graph(tmp_path / "g.onnx"), tmp_path / "new.onnx", {}, None) == []
    assert not (tmp_path / "new.onnx").exists()


def head_graph(path, n_numbers, n_labels=3, opset=18, shape=None):
    weights = np.random.default_rng(1).normal(size=(n_numbers, n_labels)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])], "head",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape or ("n", n_numbers)))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", n_labels])],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return weights


class TestHead:
    def encoder(self, tmp_path, frames=False):
        """Levels x numbers as the embedding [batch, (frames,) 6], and scores of its own."""
        return write_external_graph(
            tmp_path / "encoder.onnx", 6, ("batch", N), clip=not frames, frames=frames, metadata={"sr": "8000"}
        )

    @pytest.mark.parametrize("opset", [17, 18])
    @pytest.mark.parametrize("frames", [False, True])
    def test_a_head_scores_the_embedding(self, tmp_path, sound, frames, opset):
        path, samples = sound
        weights = head_graph(tmp_path / "head.onnx", 6, opset=opset)
        encoder = self.encoder(tmp_path, frames)
        added = adopt_model(
            encoder, write_list(tmp_path / "l.txt", *"abc"), tmp_path / "bundle", OPTIONS,
            GraphChanges(head=tmp_path / "head.onnx"),
        )  # fmt: skip
        assert added.notes[0] == "scores of head.onnx on its embeddings"
        if frames:
            (embedding,) = onnxruntime.InferenceSession(encoder).run(["frame_scores"], {"waveform": samples})
            embedding = embedding.mean(axis=1)
        else:
            embedding = loudness_logits(samples, 6)
        wanted = activate((embedding @ weights).astype(np.float32), "sigmoid")
        np.testing.assert_allclose(Predictor(Bundle.load(tmp_path / "bundle")).predict(path), wanted, atol=2e-5)
        assert (added.member.outputs.embedding is not None) == (added.member.outputs.clip is not None)

    @pytest.mark.parametrize(
        ("n_numbers", "shape", "problem"),
        [
            (
                7,
                None,
                r"gives scores \[\?, 6\], embedding \[\?, 1\], of which 0 have the 7 numbers that the head takes",
            ),
            (6, ("n", 2, 6), r"head.onnx: takes x \[\?, 2, 6\], a head takes one embedding"),
        ],
    )
    def test_sizes_are_checked(self, tmp_path, n_numbers, shape, problem):
        head_graph(tmp_path / "head.onnx", n_numbers, shape=shape)
        with pytest.raises(BundleError, match=problem):
            change_graph(self.encoder(tmp_path), tmp_path / "new.onnx", {}, tmp_path / "head.onnx")

    def test_a_head_that_is_none(self, tmp_path):
        (tmp_path / "head.onnx").write_text("text")
        with pytest.raises(BirdinferError, match="cannot be read as an ONNX graph"):
            change_graph(self.encoder(tmp_path), tmp_path / "new.onnx", {}, tmp_path / "head.onnx")
        with pytest.raises(BirdinferError, match=r"gone.onnx"):
            change_graph(self.encoder(tmp_path), tmp_path / "new.onnx", {}, tmp_path / "gone.onnx")
