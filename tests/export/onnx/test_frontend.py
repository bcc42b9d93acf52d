import json

import numpy as np
import onnx
import pytest
from awkward_network import INPUT_CONFIG as AWKWARD_CONFIG
from make_bundles import FRONTEND, LABELS, tone, write_bundle, write_framewise_graph, write_linear_graph, write_sound
from onnx import TensorProto, helper, numpy_helper

import birdinfer
from birdinfer import Bundle, Predictor
from birdinfer.audio.windows import window_of
from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig, WaveformConfig, WindowConfig
from birdinfer.errors import BundleError, ConfigError, LabelError, OutputError, ParityError
from birdinfer.export.onnx.frontend import PROBABILITIES_NAME, export_with_frontend
from birdinfer.features.log_mel import windows_to_input
from birdinfer.inference.activation import activate
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec
from birdinfer.inference.external.add_model import AddOptions, add_model
from birdinfer.inference.external.onnx_probe import input_config_of, open_external_graph
from birdinfer.postprocess.config import PostConfig

N_SAMPLES = FRONTEND.window_samples


@pytest.fixture(scope="module")
def waveforms():
    """Two tones, noise, a click in faint noise, a square wave at full scale: [5, samples]."""
    random = np.random.default_rng(0)
    click = random.normal(0, 1e-3, N_SAMPLES)
    click[N_SAMPLES // 3] = 0.9
    square = np.where(np.arange(N_SAMPLES) // 9 % 2, 1.0, -1.0)
    return np.stack([tone(5), tone(5, hz=6_000, seed=1), random.normal(0, 0.1, N_SAMPLES), click, square]).astype(
        np.float32
    )


@pytest.fixture
def linear(tmp_path):
    write_linear_graph(tmp_path / "fold0.onnx", 0)
    return tmp_path / "fold0.onnx"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "waveform.onnx"


def answers(path, waveforms, outputs=(PROBABILITIES_NAME,), batch_size=5, engine="onnxruntime"):
    plan = EnginePlan(parse_spec(engine), batch_size=batch_size)
    found = load_engine(plan, path, outputs, waveforms.shape[1:]).run(waveforms)
    return found if len(outputs) > 1 else found[outputs[0]]


def wanted(graph, waveforms, config=FRONTEND, activation="sigmoid", output="logits"):
    """A graph's outputs for the network input of files of one window."""
    inputs = np.concatenate([windows_to_input(window_of(one, 0, config), 1, config) for one in waveforms])
    engine = load_engine(EnginePlan(batch_size=len(inputs)), graph, [output], inputs.shape[1:])
    return activate(engine.run(inputs)[output], activation)


def edited(path, edit):
    """A graph with something changed."""
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)
    return path


def through_int8(model):
    """log_mel -> U8 -> log_mel, as a quantised graph has it: steps of half a dB."""
    (mean,) = [node for node in model.graph.node if "log_mel" in node.input]
    mean.input[0] = "dequantised"
    for node in (
        helper.make_node("DequantizeLinear", ["quantised", "step", "zero"], ["dequantised"]),
        helper.make_node("QuantizeLinear", ["log_mel", "step", "zero"], ["quantised"]),
    ):
        model.graph.node.insert(0, node)
    constants = {"step": np.float32(0.5), "zero": np.uint8(220)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items())


def with_output(name, source):
    """Adds an output of that name, made of another."""

    def edit(model):
        model.graph.node.append(helper.make_node("Identity", [source], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", len(LABELS)]))

    return edit


def after_logits(op_type, *constants, **attributes):
    """Puts a node behind what was the graph's answer."""

    def edit(model):
        model.graph.node[-1].output[0] = "before"
        names = [f"constant{index}" for index in range(len(constants))]
        model.graph.initializer.extend(
            numpy_helper.from_array(one, name) for name, one in zip(names, constants, strict=True)
        )
        model.graph.node.append(helper.make_node(op_type, ["before", *names], ["logits"], **attributes))

    return edit


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "made",
    [
        {"normalisation": "zscore"},
        {"normalisation": "minmax", "compression": "pcen"},
        {"normalisation": "frequency", "resize": (48, 64)},
        {"normalisation": "none", "hop_length": 512},
    ],
    ids=["log zscore", "pcen minmax", "resized frequency", "uneven hop none"],
)
def test_answers_as_member_and_front_end_do_apart(linear, out, waveforms, engine, made):
    pytest.importorskip(engine)
    config = FrontEndConfig(mel=MelConfig(n_fft=1024, n_mels=32, **made))
    write_linear_graph(linear, 0, n_mels=config.input_shape[0])
    # Louder logits, or the probabilities of normalised pictures would all lie near a half.
    edited(linear, after_logits("Mul", np.float32(20)))
    difference = export_with_frontend(linear, out, config, activation="sigmoid", labels=LABELS, check_on=waveforms)
    apart = wanted(linear, waveforms, config)
    for size in (1, 2, 5):
        found = answers(out, waveforms, batch_size=size, engine=engine)
        np.testing.assert_allclose(found, apart, atol=1e-4)
    order = np.array([4, 1, 3, 0, 2])
    np.testing.assert_allclose(answers(out, waveforms[order], engine=engine), apart[order], atol=1e-4)
    assert difference < 1e-4


def test_a_trained_like_network_answers_as_it_does_behind_prediction(awkward_graph, out, waveforms):
    labels = tuple(f"label{index}" for index in range(12))
    graph = out.with_name("awkward.onnx")
    graph.write_bytes(awkward_graph.read_bytes())
    edited(graph, lambda model: model.ClearField("metadata_props"))  # the stamp is not of these labels
    difference = export_with_frontend(
        graph, out, AWKWARD_CONFIG, activation="softmax", labels=labels, check_on=waveforms
    )
    apart = wanted(awkward_graph, waveforms, AWKWARD_CONFIG, "softmax")
    found = answers(out, waveforms)
    np.testing.assert_allclose(found, apart, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert difference < 1e-4


def test_a_file_of_one_window_gets_the_scores_of_prediction(tmp_path, out, waveforms):
    bundle = Bundle.load(write_bundle(tmp_path / "bundle", members=1, kernel=(1.0,)))
    export_with_frontend(
        bundle.folder / "fold0.onnx", out, FRONTEND, activation="sigmoid", labels=bundle.labels, check_on=waveforms[:1]
    )
    predictor, found = Predictor(bundle), answers(out, waveforms)
    for waveform, probabilities in zip(waveforms, found, strict=True):
        write_sound(tmp_path / "one.wav", waveform, subtype="FLOAT")
        np.testing.assert_allclose(predictor.predict(tmp_path / "one.wav"), probabilities[None], atol=1e-5)


def test_a_host_finds_all_it_needs_in_the_file(linear, out, waveforms):
    labels = ("Kohlmeise, Männchen", "0012", 'a "b"\nc', "47158son16")
    edited(linear, lambda model: helper.set_model_props(model, {"made": "before"}))
    export_with_frontend(linear, out, FRONTEND, activation="sigmoid", labels=labels, check_on=waveforms[:1])
    facts = load_engine(EnginePlan(), out, [PROBABILITIES_NAME], (N_SAMPLES,)).facts
    assert (facts.input_name, facts.input_shape) == ("waveform", (None, N_SAMPLES))
    assert facts.outputs == {"logits": (None, 4), "probabilities": (None, 4)}
    difference = facts.metadata
    assert (difference["sample_rate_hz"], difference["window_seconds"], difference["activation"]) == (
        "32000",
        "5",
        "sigmoid",
    )
    assert json.loads(difference["labels"]) == list(labels)
    assert (difference["birdinfer"], difference["made"]) == (birdinfer.__version__, "before")
    assert "[batch, 160000]: mono float32 in -1 .. 1 at 32000 Hz" in difference["input"]
    (given,) = onnx.load(out).graph.input
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_birdinfer_itself_knows_the_input_of_such_an_external_graph(linear, out, waveforms):
    export_with_frontend(linear, out, FRONTEND, activation="sigmoid", labels=LABELS, check_on=waveforms[:1])
    assert input_config_of(open_external_graph(out), None, None) == WaveformConfig(FRONTEND.audio, FRONTEND.window)


def test_it_may_be_adopted_and_then_says_what_the_member_said(tmp_path, out):
    """Its metadata have the rate, which a window of 120,000 samples does not show."""
    config = FrontEndConfig(AudioConfig(24_000), FRONTEND.window, MelConfig(n_fft=1024, n_mels=32, f_max_hz=12_000))
    folder = write_bundle(tmp_path / "bundle", members=1, kernel=(1.0,), frontend=config)
    sound = tone(5.0, 24_000)
    export_with_frontend(folder / "fold0.onnx", out, config, activation="sigmoid", labels=LABELS, check_on=sound[None])
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS))
    with pytest.raises(BundleError, match=r"has 2 outputs of 4 labels .*give --output"):
        add_model(out, labels, tmp_path / "adopted")
    adopted = add_model(out, labels, tmp_path / "adopted", AddOptions(output=PROBABILITIES_NAME)).member
    assert adopted.waveform == WaveformConfig(config.audio, config.window)
    assert (adopted.outputs.clip, adopted.outputs.activation) == (PROBABILITIES_NAME, "none")
    write_sound(tmp_path / "a.wav", sound, 24_000, "FLOAT")
    whole = Predictor(Bundle.load(folder)).predict(tmp_path / "a.wav")
    found = Predictor(Bundle.load(tmp_path / "adopted"), post=PostConfig((1.0,))).predict(tmp_path / "a.wav")
    np.testing.assert_allclose(found, whole, atol=1e-5)


def test_a_detector_keeps_its_frames(tmp_path, out, waveforms):
    write_framewise_graph(tmp_path / "a.onnx", 0, 5)
    export_with_frontend(
        tmp_path / "a.onnx", out, FRONTEND, activation="sigmoid", labels=LABELS, check_on=waveforms[:2]
    )
    found = answers(out, waveforms, ("clip", "frames", PROBABILITIES_NAME))
    assert found["frames"].shape == (5, 5, 4)
    frames = wanted(tmp_path / "a.onnx", waveforms, output="frames")
    np.testing.assert_allclose(activate(found["frames"], "sigmoid"), frames, atol=1e-4)
    np.testing.assert_allclose(found[PROBABILITIES_NAME], activate(found["clip"], "sigmoid"), atol=1e-6)


def test_an_int8_graph_keeps_its_steps(linear, out, waveforms):
    edited(linear, through_int8)
    assert export_with_frontend(linear, out, FRONTEND, activation="sigmoid", labels=LABELS, check_on=waveforms) < 1e-3
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(out).graph.node}
    np.testing.assert_allclose(answers(out, waveforms), wanted(linear, waveforms), atol=1e-3)


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_a_graph_keeps_its_opset(linear, out, waveforms, opset):
    def at_opset(model):
        model.opset_import[0].version = opset
        if opset < 18:  # before, axes were an attribute
            (mean,) = [node for node in model.graph.node if node.op_type == "ReduceMean"]
            del mean.input[1]
            mean.attribute.append(helper.make_attribute("axes", [1, 3]))

    edited(linear, at_opset)
    export_with_frontend(linear, out, FRONTEND, activation="sigmoid", labels=LABELS, check_on=waveforms[:1])
    assert onnx.load(out).opset_import[0].version == opset
    np.testing.assert_allclose(answers(out, waveforms), wanted(linear, waveforms), atol=1e-4)


def test_probabilities_that_a_graph_gives_stay_what_they_are(linear, out, waveforms):
    edited(linear, after_logits("Sigmoid"))
    export_with_frontend(linear, out, FRONTEND, activation="none", labels=LABELS, check_on=waveforms[:1])
    found = answers(out, waveforms, ("logits", PROBABILITIES_NAME))
    np.testing.assert_array_equal(found["logits"], found[PROBABILITIES_NAME])


def test_weights_beside_a_graph_come_into_the_file(linear, out, waveforms):
    apart = wanted(linear, waveforms)
    onnx.save(onnx.load(linear), linear, save_as_external_data=True, location="weights", size_threshold=500)
    assert linear.with_name("weights").stat().st_size >= 512
    export_with_frontend(linear, out, FRONTEND, activation="sigmoid", labels=LABELS, check_on=waveforms[:1])
    linear.with_name("weights").unlink()
    np.testing.assert_allclose(answers(out, waveforms), apart, atol=1e-4)


def test_a_graph_of_one_window_a_call_stays_one(linear, out, waveforms):
    def alone(model):
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1

    edited(linear, alone)
    export_with_frontend(
        linear, out, FRONTEND, activation="sigmoid", labels=LABELS, check_on=waveforms[:2].astype(np.float64)
    )
    assert load_engine(EnginePlan(), out, [PROBABILITIES_NAME], (N_SAMPLES,)).facts.input_shape == (1, N_SAMPLES)
    np.testing.assert_allclose(answers(out, waveforms), wanted(linear, waveforms), atol=1e-4)


class TestRefusals:
    def refused(self, error, match, graph, out, check_on, **changed):
        asked = {"input_config": FRONTEND, "activation": "sigmoid", "labels": LABELS} | changed
        out.write_bytes(b"what was there")
        with pytest.raises(error, match=match) as raised:
            export_with_frontend(graph, out, **asked, check_on=check_on)
        assert "\n" not in str(raised.value)
        assert out.read_bytes() == b"what was there"
        assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []

    def test_a_member_that_takes_the_waveform_needs_none(self, linear, out, waveforms):
        input_config = WaveformConfig(window=WindowConfig(5.0))
        self.refused(ConfigError, "front end is inside already", linear, out, waveforms, input_config=input_config)

    def test_an_activation_must_be_known(self, linear, out, waveforms):
        self.refused(ConfigError, "'relu' is unknown - choose one of", linear, out, waveforms, activation="relu")

    @pytest.mark.parametrize("shape", [(0, N_SAMPLES), (2, N_SAMPLES - 1), (N_SAMPLES,)])
    def test_windows_to_check_on_are_whole_and_at_least_one(self, linear, out, shape):
        self.refused(ConfigError, "are no windows of 160000 samples", linear, out, np.zeros(shape, np.float32))

    def test_labels_must_match_the_graphs_scores(self, linear, out, waveforms):
        edited(linear, lambda model: model.ClearField("metadata_props"))
        match = r"has 0 outputs of one score for each of 3 labels \(it has logits \[4\]\)"
        self.refused(BundleError, match, linear, out, waveforms, labels=LABELS[:3])

    def test_labels_must_be_those_that_the_graph_was_exported_with(self, linear, out, waveforms):
        self.refused(LabelError, "with other labels", linear, out, waveforms, labels=LABELS[::-1])

    def test_two_scores_of_a_window_are_refused(self, linear, out, waveforms):
        def renamed(model):
            model.graph.node[-1].output[0] = model.graph.output[0].name = "0/logits"

        edited(linear, renamed)
        edited(linear, with_output("1/logits", "0/logits"))
        self.refused(BundleError, "has 2 outputs", linear, out, waveforms)

    def test_probabilities_are_not_given_twice(self, linear, out, waveforms):
        edited(linear, with_output(PROBABILITIES_NAME, "logits"))
        self.refused(BundleError, "gives 'probabilities' already", linear, out, waveforms)

    def test_the_graph_must_take_what_the_front_end_gives(self, linear, out, waveforms):
        input_config = FrontEndConfig(mel=MelConfig(n_mels=64))
        match = r"takes \[1, 32, None\], its front end gives \[1, 64, 320\]"
        self.refused(BundleError, match, linear, out, waveforms, input_config=input_config)

    def test_half_precision_is_not_what_the_front_end_gives(self, linear, out, waveforms):
        def half(model):
            model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
            model.graph.node.insert(0, helper.make_node("Cast", ["log_mel"], ["whole"], to=TensorProto.FLOAT))
            model.graph.node[1].input[0] = "whole"

        self.refused(BundleError, "takes FLOAT16", edited(linear, half), out, waveforms)

    def test_a_broken_file_is_named(self, linear, out, waveforms):
        linear.write_bytes(linear.read_bytes()[:100])
        self.refused(BundleError, "fold0.onnx: cannot be loaded by ONNX Runtime", linear, out, waveforms)

    def test_an_answer_that_depends_on_company_is_refused(self, linear, out, waveforms):
        edited(linear, after_logits("LpNormalization", axis=0))
        self.refused(ParityError, "differs by 0.* of probability; allowed is 0.001", linear, out, waveforms)

    def test_an_answer_that_is_no_number_is_refused(self, linear, out, waveforms):
        edited(linear, after_logits("Sqrt"))
        self.refused(ParityError, "differs by nan", linear, out, waveforms)

    def test_no_answer_to_silence_is_refused_whatever_it_was_checked_on(self, linear, out, waveforms):
        input_config = FrontEndConfig(mel=MelConfig(n_fft=1024, n_mels=32))

        def relative(model):
            model.graph.node[-1].output[0] = "before"
            model.graph.node.append(helper.make_node("Div", ["before", "before"], ["logits"]))

        self.refused(
            ParityError, "differs by nan", edited(linear, relative), out, waveforms[:2], input_config=input_config
        )

    def test_a_place_that_cannot_be_written_is_named(self, linear, tmp_path, waveforms):
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot be written"):
            export_with_frontend(
                linear,
                tmp_path / "file" / "a.onnx",
                FRONTEND,
                activation="sigmoid",
                labels=LABELS,
                check_on=waveforms[:1],
            )
