"""Every hostile or broken graph is refused with one line that names what it is, and nothing is run or written."""

import pytest
from external_graphs import write_list
from hostile_graphs import HOSTILE, N_LABELS

from birdinfer.errors import BundleError
from birdinfer.export.adopt import adopt_model
from birdinfer.inference.external import onnx_probe
from birdinfer.inference.external.add_model import AddOptions

WHAT = {
    "operators of a domain of its own": r"does not know \(com\.example:RunCommand\) - export it with ONNX's own",
    "weights in a file that is not there": r"in a file beside it \(gone\.bin\) - copy gone\.bin, too, then save",
    "weights in a file beside it": r"keeps its weights in a file beside it \(w\.bin\) - save it as one file",
    "weights in a file of the system": r"names a file outside its folder for its weights \(/etc/passwd\) - do not use",
    "weights in a folder above": r"names a file outside its folder for its weights \(\.\./\.\./etc/passwd\)",
    "weights outside within a branch": r"names a file outside its folder for its weights \(\.\./secret\)",
    "weights larger than the file": "cannot be loaded by ONNX Runtime .*does not match expected size",
    "weights of a negative size": "cannot be loaded by ONNX Runtime .*Out of bounds dimensions",
    "a tensor of a petabyte": "cannot be run on a waveform .*ConstantOfShape",
    "a loop without end": r"does not return within 0\.5 s - it may never end",
    "a function that calls itself": "cannot be loaded by ONNX Runtime",
    "a circle of nodes": "cannot be loaded by ONNX Runtime .*not acyclic",
    "a graph within graphs": "has no output of 3 labels|returns NaN or Inf",
    "an opset of the future": r"is newer than this ONNX Runtime .* - pip install -U onnxruntime, or export",
    "a format of the future": "is newer than this ONNX Runtime",
    "a node without its input": "cannot be loaded by ONNX Runtime .*'gone' is not a graph input",
    "no input": "takes no input",
    "no output": "returns nothing",
    "an input of texts": r"takes tensor\(string\)|cannot be loaded by ONNX Runtime",
    "an output of texts": r"has no output of 3 labels, .* it has y \[3\]",
    "an empty batch": r"takes \[0, 4000\], which is empty",
    "scores that are not numbers": "returns NaN or Inf for silence, noise or a tone",
    "names that move the cursor": r"it has  \[2Jx birdinfer: all is fine \[\?, 4\]|it has \[2Jx",
    "half a graph": "it is damaged, or no ONNX graph - copy or download it again",
    "a zip bomb": "is a zip archive or a PyTorch file, not an ONNX graph",
    "a pickle": "is a Python pickle, not a graph - do not open it",
    "a web page": "is a web page, not a graph - download the file itself",
    "a git lfs pointer": "is a Git LFS pointer, not the graph itself - git lfs pull",
    "nothing": "is empty - copy or download it again",
    "noise": "it is damaged, or no ONNX graph",
}


def test_every_hostile_graph_is_tried():
    assert WHAT.keys() == HOSTILE.keys()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused_in_one_line(tmp_path, monkeypatch, capfd, name):
    monkeypatch.setattr(onnx_probe, "MAX_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)
    HOSTILE[name](tmp_path / "g.onnx")
    labels = write_list(tmp_path / "labels.txt", *(f"bird{number}" for number in range(N_LABELS)))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BundleError, match=WHAT[name]) as caught:
        adopt_model(tmp_path / "g.onnx", labels, tmp_path / "bundle", AddOptions(sample_rate=4_000, window_seconds=1.0))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert caught.value.where == str(tmp_path / "g.onnx")
    assert sorted(tmp_path.iterdir()) == before
    assert capfd.readouterr() == ("", "")


def test_a_graph_that_is_slow_is_not_taken_for_one_without_end(tmp_path, monkeypatch):
    """What is raised before the time is over is reported as it is."""
    monkeypatch.setattr(onnx_probe, "MAX_SECONDS", 60.0)
    HOSTILE["a tensor of a petabyte"](tmp_path / "g.onnx")
    labels = write_list(tmp_path / "labels.txt", *(f"bird{number}" for number in range(N_LABELS)))
    with pytest.raises(BundleError, match="cannot be run on a waveform"):
        adopt_model(tmp_path / "g.onnx", labels, tmp_path / "bundle", AddOptions(sample_rate=4_000, window_seconds=1.0))
