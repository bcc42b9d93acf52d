import pytest
from look_alikes import write_labels, write_look_alike

from birdinfer import Bundle
from birdinfer.inference.external.known_models import known_models


def test_models_lists_what_is_known_with_its_licence(birdinfer):
    code, out, err = birdinfer("models")
    assert (code, err) == (0, "")
    for model in known_models().values():
        (line,) = [line for line in out.splitlines() if line.startswith(model.name) and "kHz" in line]
        assert model.licence in line
    assert "nighthawk is published for TensorFlow alone" in out
    assert "birdinfer models get NAME -o exports/NAME" in out


def test_get_makes_a_bundle_and_shows_the_licence(birdinfer, tmp_path):
    graph, labels = write_look_alike("nighthawk", tmp_path / "bird.onnx"), write_labels("nighthawk", tmp_path)
    code, out, err = birdinfer("models", "get", "nighthawk", "--from", graph, "--labels", labels, "-o", tmp_path / "b")
    assert (code, out) == (0, "")
    assert "nighthawk, a new bundle of it alone" in err
    assert "Nighthawk, CC BY-NC: not for commercial use" in err
    assert [member.name for member in Bundle.load(tmp_path / "b").manifest.members] == ["nighthawk"]
    how = ("--rows", "5", "--merge", "mean", "--smooth", "0.2,0.6,0.2")
    program = ("models", "get", "nighthawk", "--from", graph, "--labels", labels, "-o", tmp_path / "c")
    assert birdinfer(*program, *how)[0] == 0
    manifest = Bundle.load(tmp_path / "c").manifest
    assert (manifest.rows.window_seconds, manifest.members[0].aggregation.overlap) == (5, "mean")
    assert manifest.post.smoothing_kernel == (0.2, 0.6, 0.2)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("birdnet",), "'birdnet' is not known - known are birdnet-2.4"),
        (("hawkears",), "takes a spectrogram"),
        (("perch-v2", "--from", "there.onnx"), "there.onnx: no such file"),
        (("perch-v2", "--from", "http://example.org/perch.onnx"), "is not of https"),
    ],
)
def test_get_refuses_in_one_line(birdinfer, tmp_path, arguments, problem):
    code, out, err = birdinfer("models", "get", *arguments, "-o", tmp_path / "b")
    assert (code, out) == (2, "")
    assert problem in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "b").exists()
