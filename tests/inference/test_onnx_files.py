"""What a file that should be a graph is, read without onnx and held against onnx."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import write_linear_graph
from onnx import TensorProto, helper, numpy_helper

from birdinfer.inference.onnx_files import external_files, other_kind


def external(name, file, **more):
    """A tensor whose values lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": file, "offset": "0", **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model_of(nodes=(), initializers=(), functions=(), **more):
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph(list(nodes), "g", [], [y], list(initializers), **more)
    return helper.make_model(graph, functions=list(functions))


def constant(tensor):
    return helper.make_node("Constant", [], ["y"], value=tensor)


def branch(tensor):
    return helper.make_graph(
        [constant(tensor)], "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])]
    )


def sparse(values):
    indices = numpy_helper.from_array(np.array([0, 1]), "indices")
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[2])


W = external("w", "w.bin")
WHOLE = numpy_helper.from_array(np.zeros(2, np.float32))
HIDING_PLACES = {
    "an initializer": model_of(initializers=[W]),
    "behind a large one": model_of(initializers=[numpy_helper.from_array(np.zeros(10_000, np.float32), "z"), W]),
    "a sparse initializer": model_of(sparse_initializer=[sparse(W)]),
    "a constant": model_of([constant(W)]),
    "a branch of an If": model_of([
        helper.make_node("If", ["c"], ["y"], then_branch=branch(WHOLE), else_branch=branch(W))
    ]),
    "a function": model_of(functions=[
        helper.make_function("own", "f", [], ["y"], [constant(W)], [helper.make_opsetid("", 18)])
    ]),
    "a key before": model_of(initializers=[external("w", "w.bin", checksum="x" * 300)]),
}  # fmt: skip


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_external_files_finds_weights_wherever_they_stand(tmp_path, place):
    (tmp_path / "g.onnx").write_bytes(HIDING_PLACES[place].SerializeToString())
    assert external_files(tmp_path / "g.onnx") == ("w.bin",)


def test_external_files_names_each_file_once(tmp_path):
    model = model_of(initializers=[external("a", "w.bin"), external("b", "../../etc/x"), external("c", "w.bin")])
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    assert set(external_files(tmp_path / "g.onnx")) == {"w.bin", "../../etc/x"}


def test_external_files_is_not_misled_by_the_word(tmp_path):
    """As a value's name, as metadata, and in the weights themselves."""
    node = helper.make_node("Identity", ["location"], ["y"])
    weights = numpy_helper.from_array(np.frombuffer(b"\x6a\x10\x0a\x08location\x12\x04w.bi", np.uint8), "location")
    model = model_of([node], [weights], value_info=[helper.make_tensor_value_info("location", TensorProto.UINT8, [2])])
    helper.set_model_props(model, {"location": "w.bin"})
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    assert external_files(tmp_path / "g.onnx") == ()


@given(cut=st.integers(0, 10_000), place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_external_files_bears_every_damage(tmp_path_factory, cut, place, value):
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    raw = bytearray(HIDING_PLACES["a branch of an If"].SerializeToString())
    raw[place % len(raw)] = value
    path.write_bytes(raw[: cut % (len(raw) + 1)])
    assert set(external_files(path)) <= {"w.bin"} or len(external_files(path)) == 1


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer"),
        (b"\xef\xbb\xbf\n <!DOCTYPE html><html>404</html>", "is a web page"),
        (b'{"error": "not found"}', "is JSON text"),
        (b"PK\x03\x04archive/data.pkl", "is a zip archive or a PyTorch file"),
        (b"\x1f\x8b\x08", "is compressed"),
        (b"\x89HDF\r\n\x1a\n", "is a Keras model"),
        (b"\x1c\x00\x00\x00TFL3", "is a TensorFlow Lite model"),
    ],
)
def test_other_kind_names_what_is_no_graph(tmp_path, content, what):
    (tmp_path / "g.onnx").write_bytes(content)
    found, hint = other_kind(tmp_path / "g.onnx")
    assert found.startswith(what)
    assert hint


def test_other_kind_has_nothing_against_a_graph_or_a_missing_file(tmp_path):
    write_linear_graph(tmp_path / "g.onnx", seed=0)
    assert other_kind(tmp_path / "g.onnx") is None
    assert other_kind(tmp_path / "gone.onnx") is None
