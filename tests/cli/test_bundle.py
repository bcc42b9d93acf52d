import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from external_graphs import write_external_graph, write_list, write_picture_graph
from fused_bundles import share_one_graph
from make_bundles import LABELS, write_bundle
from tiny_tflite import TinyModel

from birdinfer import Bundle
from birdinfer.inference.bundle import save_manifest
from birdinfer.inference.manifest import Figures, Graph, Variant
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.file_level import FileMax
from birdinfer.postprocess.taxonomy import MirrorGroups

EXTERNAL = ("stranger", "1161364", "Homo sapiens", "comcuc", "0012", "another stranger")


@pytest.fixture
def external(tmp_path):
    """A graph, its labels, and a bundle to go to: the arguments of ``bundle adopt``."""
    graph = write_external_graph(tmp_path / "perch.onnx", len(EXTERNAL))
    labels = write_list(tmp_path / "labels.txt", *EXTERNAL)
    return [graph, "--labels", labels, "--bundle", write_bundle(tmp_path / "bundle")]


class TestAdopt:
    def test_says_what_it_found_and_what_comes_next(self, birdinfer, external):
        code, out, err = birdinfer("bundle", "adopt", *external, "--weight", "0.5", "--overlap", "2.5")
        assert (code, out) == (0, "")
        for piece in (
            "perch, adopted, weight 0.5",
            "waveform of 5 s at 32 kHz",
            "scores",
            "logits (values from",
            "3 of the bundle's 4 known (3 by label)",
            "1 unknown to it: 47158son16",
            "3 of its own are not used",
            "next: birdinfer predict SOUNDSCAPES --bundle",
        ):
            assert piece in err
        member = Bundle.load(external[-1]).manifest.members[-1]
        assert (member.weight, member.aggregation.stride_seconds) == (0.5, 2.5)

    def test_every_option_arrives(self, birdinfer, external):
        code, _, err = birdinfer(
            "bundle", "adopt", *external, "--name", "fold1", "--replace", "--sample-rate", "16000", "--window", "10",
            "--output", "scores", "--activation", "softmax",
        )  # fmt: skip
        assert code == 0, err
        member = Bundle.load(external[-1]).manifest.members[-1]
        assert (member.name, member.outputs.clip, member.outputs.activation) == ("fold1", "scores", "softmax")
        assert (member.waveform.audio.sample_rate, member.waveform.window.window_seconds) == (16_000, 10.0)

    def test_a_new_bundle(self, birdinfer, external, tmp_path):
        code, _, err = birdinfer("bundle", "adopt", *external[:-1], tmp_path / "exports" / "new")
        assert code == 0
        assert "a new bundle of it alone" in err
        assert "6 of the bundle's 6 known" in err
        assert Bundle.load(tmp_path / "exports" / "new").labels == EXTERNAL

    def test_a_refusal_is_one_line_and_exit_2(self, birdinfer, external):
        code, out, err = birdinfer("bundle", "adopt", *external, "--frames", "gone")
        assert (code, out) == (2, "")
        assert err.startswith("birdinfer: --frames: 'gone' is no output")
        assert err.count("\n") == 1

    @pytest.mark.parametrize("options", [["--activation", "relu"], ["--weight", "-1"]])
    def test_options_that_are_none(self, birdinfer, external, options):
        code, _, err = birdinfer("bundle", "adopt", *external, *options)
        assert code == 2
        assert err.startswith(f"birdinfer: bundle adopt: {options[0]}: ")

    def test_a_declared_front_end_is_read(self, birdinfer, external, tmp_path):
        graph = write_picture_graph(tmp_path / "sed.onnx", (None, 1, 16, 41))
        front_end = tmp_path / "front_end.toml"
        text = "sample_rate = 8000\nwindow_seconds = 1.0\nn_fft = 256\nhop_length = 200\nn_mels = 16\n"
        front_end.write_text(text + 'normalisation = "zscore"\n')
        labels = write_list(tmp_path / "four.txt", *"abcd")
        arguments = [graph, "--labels", labels, "--bundle", tmp_path / "new", "--frontend", front_end]
        code, _, err = birdinfer("bundle", "adopt", *arguments)
        assert (code, "takes   spectrogram 1 x 16 x 41 of 1 s at 8 kHz" in err) == (0, True), err
        front_end.write_text(text + "n_fff = 1\n")
        code, out, err = birdinfer("bundle", "adopt", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "'n_fff' is not known of a front end - did you mean n_fft?" in err

    def test_inputs_and_head_arrive(self, birdinfer, external):
        code, _, err = birdinfer("bundle", "adopt", *external, "--input", "week")
        assert (code, "--input: 'week' gives an input no value - write it as training=false" in err) == (2, True)
        code, _, err = birdinfer("bundle", "adopt", *external, "--input", "week=3")
        assert (code, "--input: 'week' is no input of perch.onnx" in err) == (2, True)
        code, _, err = birdinfer("bundle", "adopt", *external, "--head", external[2])
        assert (code, "labels.txt: cannot be read as an ONNX graph" in err) == (2, True)

    def test_converts_a_tensorflow_lite_model(self, birdinfer, external, tmp_path):
        model = TinyModel()
        source = model.tensor(1, 3_000)
        weights = model.constant(np.random.default_rng(0).normal(0, 0.01, (len(EXTERNAL), 3_000)))
        scores = model.add("FULLY_CONNECTED", source, weights, options="FullyConnectedOptions")
        path = model.write(tmp_path / "custom.tflite", source, scores)
        code, _, err = birdinfer("bundle", "adopt", path, *external[1:], "--sample-rate", "3000", "--window", "1")
        assert (code, "custom, adopted" in err) == (0, True)
        assert Bundle.load(tmp_path / "bundle").manifest.members[-1].graphs["fp32"].file == "custom.onnx"


class TestShow:
    @pytest.fixture
    def mixed(self, birdinfer, external):
        assert birdinfer("bundle", "adopt", *external, "--weight", "0.5")[0] == 0
        return external[-1]

    def test_a_line_a_member(self, birdinfer, mixed):
        code, out, err = birdinfer("bundle", "show", mixed)
        assert (code, err) == (0, "")
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert lines[0].endswith("bundle: bundle, 3 members, 4 species")
        assert lines[1] == "member backbone input graphs labels weight OOF AUC stride"
        assert lines[2] == "fold0 linear mel 32 x 320 of 5 s at 32 kHz fp32 0.0 MB 4 of 4 1 - 5 s"
        assert lines[4] == "perch perch waveform of 5 s at 32 kHz fp32 0.0 MB 3 of 4 0.5 - 5 s"
        assert "rows 5 s, a rest of 0.5 s makes one" in lines
        assert "smoothing 0.2, 0.6, 0.2" in lines
        assert "made 2026-01-01T00:00:00Z of run tests" in lines
        assert any(line.startswith("tolerance 0.05 ") for line in lines)

    def test_steps_of_post_processing_are_shown_as_they_are_written(self, birdinfer, mixed):
        steps = (FileMax(0.5), MirrorGroups(groups=(("comcuc", "0012"),)))
        save_manifest(mixed, msgspec.structs.replace(Bundle.load(mixed).manifest, post=PostConfig((1.0,), steps)))
        lines = [" ".join(line.split()) for line in birdinfer("bundle", "show", mixed)[1].splitlines()]
        begin = lines.index("smoothing 1")
        assert lines[begin + 1 : begin + 3] == ["then file_max:power=0.5", "then mirror_groups:groups=comcuc+0012"]

    def test_json(self, birdinfer, mixed):
        code, out, _ = birdinfer("bundle", "show", mixed, "--json")
        assert code == 0
        facts = json.loads(out)
        assert facts["labels"] == list(LABELS)
        assert [member["labels_known"] for member in facts["members"]] == [4, 4, 3]
        assert facts["members"][2]["waveform"]["audio"]["sample_rate"] == 32_000
        assert facts["members"][0]["graphs"]["fp32"]["bytes"] == (mixed / "fold0.onnx").stat().st_size
        assert facts["rows"]["window_seconds"] == 5.0

    def test_a_file_that_members_share_has_its_size_once(self, birdinfer, make_bundle):
        folder = share_one_graph(make_bundle(members=3))
        code, out, _ = birdinfer("bundle", "show", folder)
        assert code == 0
        graphs = [" ".join(line.split()) for line in out.splitlines()[2:5]]
        assert [line.partition("32 kHz ")[2] for line in graphs] == [
            "fp32 0.0 MB 4 of 4 1 - 5 s",
            "fp32 in the file of fold0 4 of 4 1 - 5 s",
            "fp32 in the file of fold0 4 of 4 1 - 5 s",
        ]

    def test_what_was_tried_for_a_member_and_what_became_of_it(self, birdinfer, mixed):
        figures = Figures(4.4, 34.0, 1.71, 0.031, 0.001, 300, 60, 0.9, 0.0213, (0.011, 0.033), 0.97, 0.99)
        refused = Variant("int8 static", "MinMax", figures, "macro AUC falls by 0.0213, allowed is 0.002")
        manifest = Bundle.load(mixed).manifest
        first, *others = manifest.members
        first = msgspec.structs.replace(first, variants=(refused,))
        save_manifest(mixed, msgspec.structs.replace(manifest, members=(first, *others)))
        code, out, _ = birdinfer("bundle", "show", mixed)
        assert code == 0
        line = " ".join(out.splitlines()[-1].split())
        assert line.startswith(
            "fold0 int8 static 4.4 34.0 1.71 0.9000 +0.0213 (+0.0110 .. +0.0330) 0.9700 3.1e-02 MinMax"
        )
        assert line.endswith(refused.refused)
        shown = json.loads(birdinfer("bundle", "show", mixed, "--json")[1])["members"]
        assert [len(member["variants"]) for member in shown] == [1, 0, 0]
        assert shown[0]["variants"][0]["figures"]["auc_fall_interval"] == [0.011, 0.033]

    def test_graphs_that_other_hosts_run_are_listed_beside_the_members(self, birdinfer, mixed):
        manifest = Bundle.load(mixed).manifest
        (mixed / "fold0.waveform.onnx").write_bytes((mixed / "fold0.onnx").read_bytes())
        graph = Graph("fold0.waveform.onnx", manifest.members[0].graphs["fp32"].sha256)
        save_manifest(mixed, msgspec.structs.replace(manifest, for_other_hosts=(graph,)))
        lines = birdinfer("bundle", "show", mixed)[1].splitlines()
        assert lines[-1] == "to hand on  fold0.waveform.onnx 0.0 MB, takes the waveform"
        shown = json.loads(birdinfer("bundle", "show", mixed, "--json")[1])
        assert shown["for_other_hosts"] == [
            {"file": "fold0.waveform.onnx", "bytes": (mixed / "fold0.onnx").stat().st_size}
        ]

    def test_no_empty_table_where_nothing_was_tried(self, birdinfer, mixed):
        assert "verdict" not in birdinfer("bundle", "show", mixed)[1]

    def test_the_newest_of_exports_if_none_is_named(self, birdinfer, mixed, tmp_path, monkeypatch):
        (tmp_path / "here" / "exports").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "here")
        (tmp_path / "here" / "exports" / "mine").symlink_to(mixed)
        assert birdinfer("bundle", "show", "--json") == (
            *birdinfer("bundle", "show", Path("exports/mine"), "--json")[:2],
            "bundle: exports/mine\n",
        )

    def test_without_one_the_hint_shows_the_demo(self, birdinfer, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code, out, err = birdinfer("bundle", "show")
        assert (code, out) == (2, "")
        assert "birdinfer bundle show demo takes one" in err
        assert birdinfer("bundle", "show", "demo")[0] == 0

    def test_a_changed_graph_is_found(self, birdinfer, mixed):
        (mixed / "fold0.onnx").write_bytes(b"changed")
        code, out, err = birdinfer("bundle", "show", mixed)
        assert (code, out) == (2, "")
        assert "fold0.onnx: has changed" in err


@pytest.mark.parametrize("command", [(), ("adopt",), ("show",)])
def test_explains_itself(birdinfer, command):
    code, out, _ = birdinfer("bundle", *command, "-h")
    assert code == 0
    assert "Usage:" in out


class TestMembers:
    def test_set_changes_weights(self, birdinfer, external, tmp_path):
        birdinfer("bundle", "adopt", *external)
        code, _, err = birdinfer("bundle", "set", tmp_path / "bundle", "--weight", "perch=0.5")
        assert (code, err) == (0, "")
        assert Bundle.load(tmp_path / "bundle").manifest.members[-1].weight == 0.5

    @pytest.mark.parametrize("text", ["perch", "perch=", "perch=much", "gone=1"])
    def test_set_refuses_what_is_no_weight(self, birdinfer, external, tmp_path, text):
        birdinfer("bundle", "adopt", *external)
        before = (tmp_path / "bundle" / "manifest.json").read_bytes()
        code, out, err = birdinfer("bundle", "set", tmp_path / "bundle", "--weight", text)
        assert (code, out, len(err.strip().splitlines())) == (2, "", 1)
        assert (tmp_path / "bundle" / "manifest.json").read_bytes() == before

    def test_remove_undoes_adopt(self, birdinfer, external, tmp_path):
        before = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
        birdinfer("bundle", "adopt", *external)
        code, out, _ = birdinfer("bundle", "remove", tmp_path / "bundle", "perch")
        assert code == 0
        assert "perch" not in out
        assert {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()} == before
