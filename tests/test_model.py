"""A model in Python: the same bits from a path, an array, bytes, a file object, a live source and the command line."""

import io
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import LABELS, linear_member, tone, write_bundle, write_linear_graph, write_sound
from msgspec.structs import replace

import birdinfer
from birdinfer import Bundle, PredictionCallback, PredictionSettings, predict_to_csv
from birdinfer.audio.speech import VOICE_CHUNK, SpeechFinder, SpeechMuter
from birdinfer.config import AudioConfig, FrontEndConfig, MelConfig
from birdinfer.detections.recordings import OriginSettings
from birdinfer.errors import AudioError, BundleError, ConfigError, InputNotFoundError
from birdinfer.inference.bundle import save_manifest
from birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine
from birdinfer.inference.manifest import Calibration, Curve, Manifest, scores_sha256
from birdinfer.inference.predictor import make_plan
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.file_level import FileMax

RATE = 24_000
LOW = FrontEndConfig(AudioConfig(16_000), mel=MelConfig(n_fft=512, n_mels=32, f_max_hz=7_000, normalisation="none"))
SOUND = np.stack([tone(17.3, RATE), tone(17.3, RATE, 900.0, seed=1)], axis=1)


@pytest.fixture(scope="module")
def two_rates(tmp_path_factory):
    """A bundle of two members, one at 32 and one at 16 kHz, whose windows overlap by half."""
    folder = write_bundle(tmp_path_factory.mktemp("bundles") / "two_rates", members=1)
    write_linear_graph(folder / "low.onnx", 3)
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    save_manifest(folder, replace(manifest, members=(*manifest.members, linear_member(folder / "low.onnx", LOW, 1))))
    return Bundle.load(folder).with_overlap(2.5)


@pytest.fixture(scope="module")
def model(two_rates):
    return birdinfer.load(two_rates, engine="onnxruntime", workers=3, batch_size=2)


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "S05_20260501_053000.wav"
    write_sound(path, SOUND, RATE, "FLOAT")
    return path


@pytest.fixture(scope="module")
def wanted(model, sound_file):
    return model.predict(sound_file).probabilities


def test_every_kind_of_sound_gives_the_same_bits(model, sound_file, wanted):
    data = sound_file.read_bytes()
    with sound_file.open("rb") as file:
        kinds = [str(sound_file), data, bytearray(data), memoryview(data), io.BytesIO(data), file]
        results = [model.predict(kind) for kind in kinds]
    results += [model.predict(SOUND, RATE), model.predict(SOUND.astype(np.float64), sample_rate=float(RATE))]
    assert wanted.shape == (4, len(LABELS))
    for result in results:
        assert np.array_equal(result.probabilities, wanted)
        assert (result.status, result.problem) == ("ok", "")
        assert result.recording.seconds == pytest.approx(17.3)
    assert results[5].recording.path == sound_file
    assert results[5].recording.name == "S05_20260501_053000"


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 1), (2, 7)])
def test_workers_and_batches_change_no_bit(two_rates, sound_file, wanted, workers, batch_size):
    other = birdinfer.load(two_rates, engine=make_plan("onnxruntime"), workers=workers, batch_size=batch_size)
    assert np.array_equal(other.predict(SOUND, RATE).probabilities, wanted)
    assert np.array_equal(other.predict(sound_file).probabilities, wanted)


@pytest.mark.slow
@given(cuts=st.lists(st.integers(0, len(SOUND)), max_size=8))
def test_a_live_source_gives_the_bits_of_the_whole(model, wanted, cuts):
    windows = list(model.stream(np.split(SOUND, sorted(cuts)), RATE))
    assert np.array_equal(np.stack([window.probabilities for window in windows]), wanted)
    assert [(window.start_seconds, window.end_seconds) for window in windows] == [
        (0, 5), (5, 10), (10, 15), (15, pytest.approx(17.3)),
    ]  # fmt: skip


@pytest.mark.parametrize(("kernel", "n_neighbours"), [((1.0,), 0), ((0.2, 0.6, 0.2), 1)])
def test_a_window_comes_as_soon_as_nothing_can_change_it(bundle, kernel, n_neighbours):
    """A window needs its own sound, that of its neighbours, and the margin of the last frame."""
    one_rate = birdinfer.load(bundle, engine="onnxruntime", post=PostConfig(kernel))
    seconds_read = 0.0

    def blocks():
        nonlocal seconds_read
        for block in np.array_split(tone(40.0), 80):
            seconds_read += len(block) / 32_000
            yield block

    for index, _ in enumerate(one_rate.stream(blocks(), 32_000)):
        assert seconds_read <= min(40.0, (index + n_neighbours + 1) * 5 + 0.5)
    assert index == 7


def test_the_command_line_has_the_same_bits(bundle, soundscapes, tmp_path):
    class Kept(PredictionCallback):
        def on_end(self, outcome, scores):
            self.scores = {outcome.names[path]: scores.scores(path) for path in outcome.names}

    kept = Kept()
    predict_to_csv(Bundle.load(bundle), [soundscapes], PredictionSettings(output=tmp_path / "a.csv"), kept)
    results = {result.recording.name: result for result in birdinfer.load(bundle).predict_many(soundscapes)}
    assert results.keys() == kept.scores.keys() == {"site_0", "site_1", "site_2"}
    for name, result in results.items():
        assert np.array_equal(result.probabilities, kept.scores[name])
        assert np.array_equal(birdinfer.load(bundle).predict(result.path).probabilities, kept.scores[name])


def test_the_name_is_what_post_processing_sees(bundle, monkeypatch):
    seen = []
    monkeypatch.setattr(FileMax, "bind", lambda *_: lambda rows, file_id: seen.append(file_id) or rows)
    loud = birdinfer.load(bundle, engine="onnxruntime", post=PostConfig((1.0,), (FileMax(0.5),)))
    loud.predict(tone(6.0), 32_000, name="S05_20260501_053000")
    assert set(seen) == {"S05_20260501_053000"}


def test_time_and_site_are_those_of_the_name_in_the_zone_of_the_recorder(two_rates, sound_file):
    origin = OriginSettings(timezone="Europe/Berlin", site_from="folder")
    here = birdinfer.load(two_rates, engine="onnxruntime", origin=origin)
    recording = here.predict(sound_file).recording
    assert recording.clock(60).isoformat() == "2026-05-01T05:31:00+02:00"
    assert (recording.sample_rate, recording.channel) == (RATE, None)
    for sound in ((sound_file.read_bytes(),), (SOUND, RATE)):
        in_memory = here.predict(*sound, name=sound_file.stem).recording
        assert in_memory.start == recording.start
        assert in_memory.site == "S05"  # memory has no folder


def test_a_channel_is_that_of_files_and_of_arrays(two_rates, sound_file, wanted):
    second = birdinfer.load(two_rates, engine="onnxruntime", channel="2")
    scores = second.predict(sound_file).probabilities
    assert second.predict(sound_file).recording.channel == 2
    assert np.array_equal(second.predict(SOUND, RATE).probabilities, scores)
    assert not np.array_equal(scores, wanted)


class LoudIsSpeech:
    """Takes loud sound for speech, as Silero's network takes voices."""

    def __init__(self):
        self._held = np.zeros(0, np.float32)

    def push(self, samples):
        self._held = np.concatenate([self._held, samples])
        n_chunks = len(self._held) // VOICE_CHUNK
        chunks, self._held = np.split(self._held, [n_chunks * VOICE_CHUNK])
        return (np.abs(chunks.reshape(n_chunks, VOICE_CHUNK)).max(axis=1) > 0.6).astype(np.float32)

    def finish(self):
        return np.zeros(0, np.float32)


@pytest.fixture
def speaking(two_rates, monkeypatch):
    """Loads a model that takes loud sound for speech."""
    kinds = {"skip": SpeechFinder, "mute": SpeechMuter}
    monkeypatch.setattr("birdinfer.model.speech_finders", lambda mode: lambda: kinds[mode](LoudIsSpeech()))
    return lambda voice: birdinfer.load(two_rates, engine="onnxruntime", voice=voice)


LOUD = SOUND[:, 0].copy()
LOUD[6 * RATE : 8 * RATE] *= 2.5


def test_windows_with_speech_hold_no_detections(speaking, tmp_path):
    soundfile.write(tmp_path / "a.wav", LOUD, RATE, subtype="FLOAT")
    skipping = speaking("skip")
    for result in (skipping.predict(LOUD, RATE), skipping.predict(tmp_path / "a.wav")):
        ((begin, end),) = result.speech
        assert 5 < begin < end < 10
        assert {each.start_seconds for each in result.detections(0.0)} == {0.0, 10.0}
    with pytest.raises(ConfigError, match="stream: speech is found too late to skip the windows of a live source"):
        skipping.stream([LOUD], RATE)


def test_speech_is_muted_in_files_in_arrays_and_live(speaking, tmp_path, model):
    soundfile.write(tmp_path / "a.wav", LOUD, RATE, subtype="FLOAT")
    muting = speaking("mute")
    scores = muting.predict(tmp_path / "a.wav").probabilities
    assert not np.array_equal(scores, model.predict(LOUD, RATE).probabilities)
    assert np.array_equal(muting.predict(LOUD, RATE).probabilities, scores)
    live = [window.probabilities for window in muting.stream(np.array_split(LOUD, 50), RATE)]
    assert np.array_equal(live, scores)


def test_a_dead_microphone_is_named(model):
    result = model.predict(np.stack([SOUND[:, 0], 0 * SOUND[:, 0]], axis=1), RATE)
    assert result.status == "ok"
    assert result.microphone.startswith("channel 2: dead")


def test_thresholds_are_those_of_the_bundles_calibration(two_rates):
    curve = Curve(
        slope=1.0, intercept=0.0, threshold=0.75, threshold_interval=(0.7, 0.8), reviewed=(0.1, 0.9),
        n_right=9, n_wrong=9, n_files=9,
    )  # fmt: skip
    calibration = Calibration(
        precision=0.9, scores_sha256=scores_sha256(two_rates.manifest), created_utc="", species={"0012": curve},
        classes={},
    )  # fmt: skip
    calibrated = Bundle(two_rates.folder, replace(two_rates.manifest, calibration=calibration))
    result = birdinfer.load(calibrated, engine="onnxruntime").predict(SOUND, RATE)
    assert result.thresholds.tolist() == [0.25, 0.75, 0.25, 0.25]
    assert {each.species.label for each in result.detections()} <= set(LABELS)
    other = birdinfer.load(calibrated, engine="onnxruntime", post=PostConfig((1.0,))).predict(SOUND, RATE)
    with pytest.raises(ConfigError, match="threshold: is needed: the bundle's calibration is of other scores"):
        other.detections()
    assert len(other.detections(0.0)) == len(LABELS)


def test_many_recordings_yield_a_result_each_and_a_failure_is_one(model, sound_file, tmp_path, wanted):
    for folder in ("siteA", "siteB"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dawn.wav").write_bytes(sound_file.read_bytes())
    (tmp_path / "siteB" / "empty.wav").touch()
    (tmp_path / "siteB" / "gone.wav").symlink_to("nowhere")
    results = {result.recording.file: result for result in model.predict_many(tmp_path)}
    assert {file: result.status for file, result in results.items()} == {
        "siteA/dawn.wav": "ok", "siteB/dawn.wav": "ok", "siteB/empty.wav": "unreadable", "gone.wav": "not opened",
    }  # fmt: skip
    assert np.array_equal(results["siteB/dawn.wav"].probabilities, wanted)
    empty = results["siteB/empty.wav"]
    assert (len(empty), empty.detections(0.0), empty.problem) == (0, [], "is empty (0 bytes) - record or copy it again")


def test_results_that_are_not_wanted_stop_the_workers(model, soundscapes):
    n_threads = threading.active_count()
    results = model.predict_many(soundscapes)
    next(results)
    results.close()
    assert threading.active_count() == n_threads


def test_threads_may_share_a_model(model, sound_file, wanted):
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(model.predict, *kind) for kind in [(sound_file,), (SOUND, RATE)] * 4]
    assert all(np.array_equal(each.result().probabilities, wanted) for each in found)


def test_sound_with_something_wrong_is_predicted_and_named(model, sound_file):
    cut = model.predict(sound_file.read_bytes()[:-200_000])
    assert (cut.status, len(cut)) == ("truncated", 4)
    assert cut.problem.startswith("truncated: ")
    short = model.predict(SOUND[:2_400], RATE)
    assert (short.status, len(short)) == ("too short", 1)
    assert short.problem == "too short: 0.100 s, a row takes 0.5 s at least"


def text_file():
    return io.StringIO("RIFF")


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        (("nowhere.wav",), InputNotFoundError, "nowhere.wav: no such file"),
        ((".",), AudioError, ".: is a folder - model.predict_many takes folders"),
        ((b"",), AudioError, "sound: is empty (0 bytes) - record or copy it again"),
        ((b"abc",), AudioError, "sound: cannot be decoded "),
        ((text_file(),), ConfigError, 'sound: is a file that was opened as text - open it with "rb"'),
        (("a.wav", 32_000), ConfigError, "sample_rate: is that of an array, and a sound file states its own - leave"),
        ((b"RIFF", 32_000), ConfigError, "sample_rate: is that of an array, and a sound file states its own - leave"),
        ((SOUND,), ConfigError, "sample_rate: is missing, and an array does not state its own - pass sample_rate=48_"),
        ((SOUND, 32), ConfigError, "sample_rate: is 32, allowed are whole numbers of Hz from 100 to 1,000,000"),
        ((SOUND.T, RATE), AudioError, "array: has the shape (2, 415200) - needed is [samples] or [samples, channels]"),
        ((SOUND[:0], RATE), AudioError, "array: holds no samples"),
        ((["a.wav", "b.wav"],), ConfigError, "sound: is a list - needed is a path, a file that was read or opened, or"),
        ((None,), ConfigError, "sound: is None - needed is a path, "),
        (([[0.0], [0.0, 1.0]], RATE), AudioError, "array: is no array: its parts differ in length"),
        ((object(), RATE), AudioError, "array: holds object - needed are floats in -1 to 1"),
        (("n" * 5_000,), AudioError, "nnnnnn"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_in_one_line(model, arguments, error, problem):
    with pytest.raises(error) as refused:
        model.predict(*arguments)
    assert str(refused.value).startswith(problem)
    assert "\n" not in str(refused.value)


def test_a_live_source_that_cannot_be_is_refused_before_it_begins(model, bundle):
    for blocks, kind in ((SOUND, "an array"), ("a.wav", "a str"), (b"RIFF", "a bytes"), (3, "an int")):
        with pytest.raises(ConfigError, match=f"blocks: is {kind}, needed are several arrays - model.predict takes"):
            model.stream(blocks, RATE)
    with pytest.raises(ConfigError, match="sample_rate: is 0, "):
        model.stream([SOUND], 0)
    whole = birdinfer.load(bundle, engine="onnxruntime", post=PostConfig(steps=(FileMax(0.5),)))
    with pytest.raises(ConfigError, match=r"stream: post-processing \(file_max\) needs all windows of a recording"):
        whole.stream([SOUND], RATE)
    with pytest.raises(AudioError, match="stream: holds no samples"):
        next(model.stream([], RATE))
    with pytest.raises(AudioError, match="mic: has 3 axes"):
        list(model.stream([SOUND, SOUND[None]], RATE, name="mic"))


def test_many_recordings_that_cannot_be_are_refused_before_they_begin(model, tmp_path):
    with pytest.raises(InputNotFoundError, match="nowhere: no such file or folder"):
        model.predict_many(["nowhere"])
    with pytest.raises(InputNotFoundError, match="holds no sound file"):
        model.predict_many(tmp_path)
    with pytest.raises(ConfigError, match="paths: holds an array - needed are paths of sound files and folders"):
        model.predict_many([SOUND])


def test_a_model_that_fails_is_an_error_and_not_a_result(bundle, sound_file, monkeypatch):
    broken = birdinfer.load(bundle, engine="onnxruntime")
    monkeypatch.setattr(OnnxRuntimeEngine, "run", lambda self, batch: {"logits": np.full((len(batch), 4), np.nan)})
    for sound in ((sound_file,), (sound_file.read_bytes(),), (SOUND, RATE)):
        with pytest.raises(BundleError, match="returns NaN"):
            broken.predict(*sound)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"engine": "auto"}, "engine: auto measures with recordings, and there are none yet - pass engine=autotune("),
        ({"engine": "torch"}, "--engine: 'torch' is not an engine - choose one of onnxruntime, openvino, cuda"),
        ({"workers": 0}, "workers: is 0, needed is at least 1"),
        ({"batch_size": -1}, "batch_size: is -1, needed is at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(bundle, options, problem):
    with pytest.raises(ConfigError) as refused:
        birdinfer.load(bundle, **options)
    assert str(refused.value).startswith(problem)


def test_what_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"is not a bundle \(no manifest.json\)"):
        birdinfer.load(tmp_path)


def test_a_gpu_that_is_not_used_is_a_warning(bundle, monkeypatch):
    monkeypatch.setattr("birdinfer.prediction.run.has_cuda", lambda: True)
    monkeypatch.setattr("birdinfer.prediction.run.find_gpu", lambda: "no driver")
    with pytest.warns(UserWarning, match="no GPU is used: no driver; continuing with the CPU") as caught:
        birdinfer.load(bundle)
    assert caught[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        birdinfer.load(bundle, engine="onnxruntime")


def test_models_and_bundles_print_what_they_hold(two_rates, model):
    size = "4 species, 2 members"
    assert repr(two_rates) == f"<Bundle two_rates: {size}, in {two_rates.folder}>"
    assert repr(model) == f"<Model two_rates: {size}, windows of 5 s; onnxruntime:fp32, 3 workers, batch 2>"


def test_dir_lists_the_public_names():
    assert dir(birdinfer) == birdinfer.__all__
    assert {"load", "Result", "Bundle"} <= set(dir(birdinfer))


def test_embed_gives_what_predict_keeps(embedding_bundle, embedded, soundscapes):
    model = birdinfer.load(embedding_bundle, engine="onnxruntime", workers=2, batch_size=2)
    stored, path = birdinfer.read_embeddings(embedded), soundscapes / "site_0.ogg"
    found = model.embed(path)
    rows = [row for row, name in enumerate(stored.recordings) if name == "site_0"]
    assert found.values.dtype == np.float32
    assert np.array_equal(found.values.astype(np.float16), stored.values[rows])
    assert (found.row_ids, found.info) == (stored.row_ids[: len(rows)], stored.info)
    assert np.array_equal(found.start_seconds, stored.start_seconds[rows])
    with path.open("rb") as file:
        assert np.array_equal(model.embed(file).values, found.values)
    samples, rate = soundfile.read(path, dtype="float32")
    of_array = model.embed(samples, rate, name="site_0", member="fold0")
    assert np.array_equal(of_array.values, found.values)
    assert of_array.row_ids == found.row_ids


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sound": "nothing.wav"}, "no such file"),
        ({"sound": b"no sound"}, "sound: "),
        ({"sound": np.zeros(9)}, "sample_rate: is missing"),
        ({"sound": None}, "sound: is None"),
        ({"sound": np.zeros(9), "sample_rate": 9, "member": "fold1"}, "'fold1', which gives no embeddings"),
    ],
)
def test_embed_refuses_in_one_line(embedding_bundle, arguments, message):
    with pytest.raises(birdinfer.BirdinferError, match=message) as refused:
        birdinfer.load(embedding_bundle, engine="onnxruntime").embed(**arguments)
    assert "\n" not in str(refused.value)


def test_embed_refuses_a_bundle_without_embeddings(model):
    with pytest.raises(ConfigError, match="no member of two_rates gives embeddings"):
        model.embed(SOUND, RATE)
