"""Graphs that are broken, lie about themselves, or would harm whoever runs them, by name: functions of a path."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

N, N_LABELS = 4_000, 3
HOSTILE: dict[str, Callable[[Path], None]] = {}


def hostile(function):
    HOSTILE[function.__name__.replace("_", " ")] = function
    return function


def graph_of(nodes, initializers=(), inputs=None, outputs=None, **more):
    sound = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", N])
    scores = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", N_LABELS])
    opset = more.pop("opset", 18)
    graph = helper.make_graph(
        list(nodes), "g", [sound] if inputs is None else inputs, [scores] if outputs is None else outputs,
        list(initializers),
    )  # fmt: skip
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=more.pop("ir_version", 9), **more)


def weights(shape=(N, N_LABELS)):
    return numpy_helper.from_array(np.random.default_rng(0).normal(0, 0.01, shape).astype(np.float32), "w")


PRODUCT = helper.make_node("MatMul", ["x", "w"], ["y"])


def save(model, path):
    path.write_bytes(model.SerializeToString())


def external(path, location):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[N, N_LABELS], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    save(graph_of([PRODUCT], [tensor]), path)


@hostile
def operators_of_a_domain_of_its_own(path):
    save(graph_of([helper.make_node("RunCommand", ["x"], ["y"], domain="com.example", command="touch harm")]), path)


@hostile
def weights_in_a_file_that_is_not_there(path):
    external(path, "gone.bin")


@hostile
def weights_in_a_file_beside_it(path):
    path.with_name("w.bin").write_bytes(bytes(4 * N * N_LABELS))
    external(path, "w.bin")


@hostile
def weights_in_a_file_of_the_system(path):
    external(path, "/etc/passwd")


@hostile
def weights_in_a_folder_above(path):
    external(path, "../../etc/passwd")


@hostile
def weights_outside_within_a_branch(path):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["b"], value=tensor)], "b", [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 3])],
    )  # fmt: skip
    yes = numpy_helper.from_array(np.array(True), "yes")
    save(graph_of([helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)], [yes]), path)


@hostile
def weights_larger_than_the_file(path):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[N, N_LABELS], raw_data=b"\0" * 64)
    save(graph_of([PRODUCT], [tensor]), path)


@hostile
def weights_of_a_negative_size(path):
    save(graph_of([PRODUCT], [TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-4, N_LABELS])]), path)


@hostile
def a_tensor_of_a_petabyte(path):
    size = numpy_helper.from_array(np.array([2**50, N_LABELS]), "size")
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["most"], keepdims=0),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Add", ["z", "most"], ["y"]),
    ]
    save(graph_of(nodes, [size, weights()]), path)


@hostile
def a_loop_without_end(path):
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c_out"]), helper.make_node("Add", ["v", "v"], ["v_out"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v_out", TensorProto.FLOAT, None)],
    )  # fmt: skip
    yes = numpy_helper.from_array(np.array(True), "yes")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Loop", ["", "yes", "z"], ["y"], body=body),
    ]
    save(graph_of(nodes, [weights(), yes]), path)


@hostile
def a_function_that_calls_itself(path):
    call = helper.make_node("again", ["a"], ["b"], domain="com.example")
    function = helper.make_function(
        "com.example", "again", ["a"], ["b"], [call], [helper.make_opsetid("com.example", 1)]
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("again", ["z"], ["y"], domain="com.example"),
    ]
    save(graph_of(nodes, [weights()], functions=[function]), path)


@hostile
def a_circle_of_nodes(path):
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Identity", ["a"], ["b"])]
    save(graph_of([*nodes, helper.make_node("MatMul", ["a", "w"], ["y"])], [weights()]), path)


@hostile
def a_graph_within_graphs(path):
    scores = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, N_LABELS])
    values = numpy_helper.from_array(np.full((1, N_LABELS), np.nan, np.float32))
    simple = inner = helper.make_graph([helper.make_node("Constant", [], ["y"], value=values)], "g", [], [scores])
    for _ in range(25):
        node = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=simple)
        inner = helper.make_graph([node], "g", [], [scores])
    save(graph_of(inner.node, [numpy_helper.from_array(np.array(True), "yes")]), path)


@hostile
def an_opset_of_the_future(path):
    save(graph_of([PRODUCT], [weights()], opset=99), path)


@hostile
def a_format_of_the_future(path):
    save(graph_of([PRODUCT], [weights()], ir_version=99), path)


@hostile
def a_node_without_its_input(path):
    save(graph_of([helper.make_node("MatMul", ["x", "gone"], ["y"])]), path)


@hostile
def no_input(path):
    constant = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(np.zeros((1, 3), np.float32)))
    save(graph_of([constant], inputs=[]), path)


@hostile
def no_output(path):
    save(graph_of([PRODUCT], [weights()], outputs=[]), path)


@hostile
def an_input_of_texts(path):
    text = helper.make_tensor_value_info("x", TensorProto.STRING, ["batch", N])
    save(graph_of([helper.make_node("Identity", ["x"], ["y"])], inputs=[text]), path)


@hostile
def an_output_of_texts(path):
    texts = numpy_helper.from_array(np.array([b"a", b"b", b"c"], object), "t")
    out = helper.make_tensor_value_info("y", TensorProto.STRING, [3])
    save(graph_of([helper.make_node("Identity", ["t"], ["y"])], [texts], outputs=[out]), path)


@hostile
def an_empty_batch(path):
    nothing = helper.make_tensor_value_info("x", TensorProto.FLOAT, [0, N])
    save(graph_of([PRODUCT], [weights()], inputs=[nothing]), path)


@hostile
def scores_that_are_not_numbers(path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Log", ["z"], ["y"])]
    save(graph_of(nodes, [weights()]), path)


@hostile
def names_that_move_the_cursor(path):
    name = "\x1b[2Jx\nbirdinfer: all is fine"
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])
    save(graph_of([helper.make_node("MatMul", ["x", "w"], [name])], [weights((N, 4))], outputs=[out]), path)


@hostile
def half_a_graph(path):
    save(graph_of([PRODUCT], [weights()]), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@hostile
def a_zip_bomb(path):
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(10_000_000))


@hostile
def a_pickle(path):
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch harm'\ntR.")


@hostile
def a_web_page(path):
    path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>")


@hostile
def a_git_lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 409148616\n")


@hostile
def nothing(path):
    path.write_bytes(b"")


@hostile
def noise(path):
    path.write_bytes(np.random.default_rng(0).bytes(5_000))
