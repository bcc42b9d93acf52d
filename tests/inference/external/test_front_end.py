import msgspec
import numpy as np
import pytest
from external_graphs import N_BANDS as N_MELS
from external_graphs import N_GROUPS as N_LABELS
from external_graphs import write_list, write_picture_graph
from make_bundles import write_sound

from birdinfer import Bundle, Predictor
from birdinfer.config import AudioConfig, SpectrogramConfig, WindowConfig
from birdinfer.errors import BundleError, ConfigError, InputNotFoundError
from birdinfer.features.spectrogram import windows_to_input
from birdinfer.inference.activation import activate
from birdinfer.inference.bundle import save_manifest
from birdinfer.inference.external.add_model import AddOptions, add_model
from birdinfer.inference.external.front_end import read_front_end, with_axes_of
from birdinfer.inference.member_group import members_by_input

RATE = 8_000
CONFIG = SpectrogramConfig(
    audio=AudioConfig(RATE), window=WindowConfig(1.0), n_fft=256, hop_length=200, n_mels=N_MELS, scale="htk",
    filter_norm="none", padding="reflect", top_db=80.0, normalisation="zscore",
)  # fmt: skip
SHAPE = (N_MELS, 41)


@pytest.mark.parametrize(
    "shape", [(None, 1, *SHAPE), (None, 3, *SHAPE), (None, *SHAPE), (None, 1, *SHAPE[::-1]), (None, 1, N_MELS, None)]
)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_graph_of_spectrograms_predicts_as_its_front_end_says(tmp_path, shape, engine):
    pytest.importorskip(engine)
    graph = write_picture_graph(tmp_path / "sed.onnx", shape)
    labels = write_list(tmp_path / "labels.txt", *"abcd")
    member = add_model(graph, labels, tmp_path / "bundle", AddOptions(spectrogram=CONFIG)).member
    rng = np.random.default_rng(0)
    samples = (rng.normal(0, 0.1, (3, RATE)) + np.sin(np.arange(RATE) * [[0.1], [0.5], [1.2]])).astype(np.float32) / 2
    write_sound(tmp_path / "a.wav", samples.ravel(), rate=RATE, subtype="FLOAT")
    found = Predictor(Bundle.load(tmp_path / "bundle"), engine).predict(tmp_path / "a.wav")
    picture = windows_to_input(samples, CONFIG)[:, 0]
    means = 3 * picture.reshape(3, N_LABELS, -1).mean(axis=2)
    np.testing.assert_allclose(found, activate(means, "sigmoid"), atol=1e-5)
    assert member.spectrogram.input_shape == tuple(41 if size is None else size for size in shape[1:])


def test_members_of_one_front_end_share_it(tmp_path):
    """Five folds of a notebook: one spectrogram."""
    labels = write_list(tmp_path / "labels.txt", *"abcd")
    for fold in range(2):
        graph = write_picture_graph(tmp_path / f"sed_fold{fold}.onnx", (None, 1, *SHAPE))
        add_model(graph, labels, tmp_path / "bundle", AddOptions(spectrogram=CONFIG))
    (indices,) = members_by_input(Bundle.load(tmp_path / "bundle")).values()
    assert indices == [0, 1]


def test_a_bundle_of_another_front_end_is_refused(tmp_path):
    graph = write_picture_graph(tmp_path / "sed.onnx", (None, 1, *SHAPE))
    add_model(graph, write_list(tmp_path / "l.txt", *"abcd"), tmp_path / "bundle", AddOptions(spectrogram=CONFIG))
    manifest = Bundle.load(tmp_path / "bundle").manifest
    changed = msgspec.structs.replace(CONFIG, power=1)
    member = msgspec.structs.replace(manifest.members[0], spectrogram=changed)
    save_manifest(tmp_path / "bundle", msgspec.structs.replace(manifest, members=(member,)))
    with pytest.raises(BundleError, match="was made with another front end"):
        Bundle.load(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("shape", "options", "problem"),
    [
        ((None, 1, *SHAPE), {}, r"takes \[\?, 1, 16, 41\], which is no waveform but a spectrogram - .* --frontend"),
        ((None, *SHAPE), {}, "which is no waveform but a spectrogram"),
        (
            (None, 1, 16, 40),
            {"spectrogram": CONFIG},
            r"takes \[\?, 1, 16, 40\], the declared .* 16 bands x 41 frames - ",
        ),
        ((None, 8_000), {"spectrogram": CONFIG}, r"takes \[\?, 8000\], the declared front end"),
        ((None, 1, *SHAPE), {"spectrogram": CONFIG, "sample_rate": 8_000}, "--sample-rate: is that of the front end"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, shape, options, problem):
    graph = write_picture_graph(tmp_path / "sed.onnx", shape)
    with pytest.raises((BundleError, ConfigError), match=problem) as caught:
        add_model(graph, write_list(tmp_path / "l.txt", *"abcd"), tmp_path / "bundle", AddOptions(**options))
    assert "\n" not in str(caught.value)


def test_with_axes_of_keeps_means_of_three_channels():
    three = SpectrogramConfig(audio=AudioConfig(RATE), window=WindowConfig(1.0), channels=3, mean=(0.1, 0.2, 0.3))
    assert with_axes_of(three, (None, 3, 128, None), "g").channels == 3
    with pytest.raises(BundleError, match="declared front end"):
        with_axes_of(three, (None, 1, 128, None), "g")


TOML = (
    'sample_rate = 28000\nwindow_seconds = 3.0\nlibrary = "torchaudio"\nn_fft = 3248\nwin_length = 1624\nframes = 384\n'
)


def test_read_front_end(tmp_path):
    (tmp_path / "hawkears.toml").write_text(TOML)
    found = read_front_end(tmp_path / "hawkears.toml")
    assert (found.audio.sample_rate, found.window.window_seconds, found.n_frames) == (28_000, 3.0, 384)
    assert (found.scale, found.filter_norm, found.padding) == ("htk", "none", "reflect")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TOML + "n_mel = 3\n", "'n_mel' is not known of a front end - did you mean n_mels?"),
        (TOML + "power = 3\n", r"Invalid enum value 3"),
        (TOML + "n_mels = 3\n", "n_mels is 3, allowed are 8 to 512"),
        ("n_mels = 128\n", "lacks sample_rate and window_seconds"),
        (TOML.replace("torchaudio", "kaldi"), "library is 'kaldi' - known are librosa, torchaudio"),
        (TOML.replace("28000", '"much"'), "Expected `int`, got `str`"),
        (TOML.replace("3.0", '"long"'), "Expected"),
        ("= 1", "is no TOML"),
    ],
)
def test_read_front_end_refuses_in_one_line(tmp_path, text, problem):
    (tmp_path / "f.toml").write_text(text)
    with pytest.raises(ConfigError, match=problem) as caught:
        read_front_end(tmp_path / "f.toml")
    assert "\n" not in str(caught.value)


def test_read_front_end_of_no_file(tmp_path):
    with pytest.raises(InputNotFoundError, match="cannot be read"):
        read_front_end(tmp_path / "gone.toml")
