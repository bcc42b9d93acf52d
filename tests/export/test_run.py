"""A run -> a bundle, whole or not at all. The runs here are written, not trained: only their form matters."""

import importlib.util
import re
import shutil

import msgspec
import numpy as np
import pandas as pd
import pytest
import torch
from make_bundles import LABELS, SAMPLE_RATE, tone, write_sound
from onnxruntime import InferenceSession
from tiny_clips import write_clips
from untrained_runs import N_HELD_OUT, RecordingCallback, export_bundle, hasten, loud, seeded, write_run

from birdinfer import Bundle, Predictor
from birdinfer.config import AggregationConfig, FrontEndConfig, MelConfig, WaveformConfig, WindowConfig
from birdinfer.errors import (
    AudioError,
    BirdinferError,
    CheckpointError,
    InputNotFoundError,
    LabelError,
    MissingExtraError,
    OutputError,
)
from birdinfer.export import member as members
from birdinfer.export.acceptance.decision import Limits
from birdinfer.inference.manifest import Outputs
from birdinfer.inference.precision_limits import acceptance_figures
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species
from birdinfer.training.checkpoint import MODEL, EpochRow, Header, Progress, load_checkpoint, save_checkpoint
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import DataConfig, LossConfig, ModelConfig, Recipe

FRONTEND = FrontEndConfig(window=WindowConfig(1.0, 0.1), mel=MelConfig(n_fft=1024, n_mels=32))
RECIPE = Recipe(
    name="tiny", frontend=FRONTEND, model=ModelConfig(backbone="test_efficientnet"), post=PostConfig((0.25, 0.5, 0.25))
)

DETECTOR = ModelConfig("sed", "test_efficientnet", hidden=16)


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for index in range(6):
        path = folder / "train_audio" / LABELS[index % 4] / f"{index}.ogg"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sound(path, tone(2.0, hz=500.0 * (index + 1), seed=index), SAMPLE_RATE)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """With train.csv, for acceptance tests."""
    return write_clips(tmp_path_factory.mktemp("clips"))


def write_fold(run, fold, data, recipe=RECIPE, labels=LABELS, auc=0.75, seed=0):
    """A fold as training leaves it; ``auc`` None for one that was never validated."""
    torch.manual_seed(seed)
    folder = run / f"fold{fold}"
    folder.mkdir(parents=True)
    model = build_model(recipe.model, len(labels), recipe.input_config, start=False)
    row = EpochRow(
        epoch=1,
        train_loss=0.5,
        val_loss=0.6,
        val_macro_auc=None if auc is None else auc + fold / 100,
        val_padded_cmap=0.5,
        val_top1=0.5,
        lr=1e-3,
        seconds=1.0,
        wait_share=0.0,
        peak_gpu_mb=None,
    )
    header = Header(
        recipe,
        tuple(Species(label) for label in labels),
        fold,
        Progress(epoch=1, best_epoch=1, best_auc=row.val_macro_auc, history=[row]),
        str(data),
        {"torch": "2"},
    )
    save_checkpoint(folder / "best.safetensors", header, {MODEL + k: v for k, v in model.state_dict().items()})
    clips = sorted(path.relative_to(data / "train_audio") for path in data.glob("train_audio/*/*.ogg"))
    if recipe.data.all_data:
        rows = [f"{clip},{clip.parts[0]},,-1" for clip in clips]
        (run / "folds.csv").write_text("\n".join(["filename,primary_label,group,fold", *rows, ""]))
        return
    oof = pd.DataFrame(np.full((len(clips), len(labels)), 0.1 * (fold + 1)), columns=list(labels))
    oof.insert(0, "filename", [str(clip) for clip in clips])
    oof.insert(1, "primary_label", [clip.parts[0] for clip in clips])
    oof.to_csv(folder / "oof.csv", index=False)


@pytest.fixture
def run(tmp_path, data):
    """A run of one fold; add more with write_fold."""
    write_fold(tmp_path / "runs" / "tiny", 0, data)
    return tmp_path / "runs" / "tiny"


def test_a_run_becomes_a_bundle_that_predicts(run, data, tmp_path, soundscapes):
    write_fold(run, 1, data)
    callback = RecordingCallback()
    bundle = export_bundle(run, tmp_path / "exports" / "tiny", callback=callback)
    manifest = Bundle.load(tmp_path / "exports" / "tiny").manifest
    assert bundle.labels == LABELS
    assert [(member.graphs["fp32"].file, member.fold, member.backbone) for member in manifest.members] == [
        ("fold0.onnx", 0, "test_efficientnet"),
        ("fold1.onnx", 1, "test_efficientnet"),
    ]
    assert [member.out_of_fold_macro_auc for member in manifest.members] == [0.75, 0.76]
    assert all(member.graphs["fp32"].max_probability_difference < 1e-4 for member in manifest.members)
    assert [member.frontend for member in manifest.members] == [FRONTEND, FRONTEND]
    assert manifest.rows == FRONTEND.window
    assert manifest.post.smoothing_kernel == (0.25, 0.5, 0.25)
    np.testing.assert_allclose(manifest.fallback_probabilities, 0.15, rtol=1e-5)
    assert msgspec.convert(manifest.provenance.recipe, Recipe) == RECIPE
    assert {"torch", "onnx", "onnxruntime", "birdinfer"} <= set(manifest.provenance.versions)
    assert "fold1: test_efficientnet, out-of-fold macro AUC 0.7600, largest |p_onnx - p_torch|" in callback.lines[2]
    assert Predictor(bundle).predict(soundscapes / "site_2.ogg").shape == (8, 4)
    assert str(tmp_path) not in (bundle.folder / "manifest.json").read_text()
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["tiny"]


def test_a_run_without_validation_is_checked_on_its_training_clips(data, tmp_path, soundscapes):
    run, callback = tmp_path / "runs" / "all", RecordingCallback()
    write_fold(run, 0, data, msgspec.structs.replace(RECIPE, data=DataConfig(all_data=True)), auc=None)
    bundle = export_bundle(run, tmp_path / "out", callback=callback)
    (member,) = bundle.manifest.members
    assert member.out_of_fold_macro_auc is None
    assert "NaN" not in (bundle.folder / "manifest.json").read_text()
    assert "fold0: test_efficientnet, not validated, largest" in callback.lines[1]
    np.testing.assert_allclose(bundle.manifest.fallback_probabilities, [2 / 6, 2 / 6, 1 / 6, 1 / 6], atol=1e-6)
    assert Predictor(bundle).predict(soundscapes / "site_2.ogg").shape == (8, 4)


def test_a_fold_that_could_not_be_scored_has_no_auc(run, data, tmp_path):
    write_fold(run, 1, data, auc=None)
    manifest = export_bundle(run, tmp_path / "out").manifest
    assert [member.out_of_fold_macro_auc for member in manifest.members] == [0.75, None]


def test_a_softmax_is_stored_in_the_manifest(data, tmp_path, soundscapes):
    run = tmp_path / "runs" / "ce"
    write_fold(run, 0, data, msgspec.structs.replace(RECIPE, loss=LossConfig("ce"), post=PostConfig((1.0,))))
    bundle = export_bundle(run, tmp_path / "out")
    assert bundle.manifest.members[0].outputs == Outputs("logits", None, "softmax")
    np.testing.assert_allclose(Predictor(bundle).predict(soundscapes / "site_2.ogg").sum(axis=1), 1, atol=1e-5)


def test_a_detectors_rows_mix_clip_and_loudest_frame_as_its_loss_did(data, tmp_path, soundscapes):
    torch.manual_seed(0)
    eight_frames = msgspec.structs.replace(FRONTEND, mel=MelConfig(n_fft=1024, n_mels=32, hop_length=125))
    recipe = msgspec.structs.replace(
        RECIPE, frontend=eight_frames, model=DETECTOR, loss=LossConfig(frame_share=0.3), post=PostConfig((1.0,))
    )
    write_fold(tmp_path / "runs", 0, data, recipe)
    bundle = export_bundle(tmp_path / "runs", tmp_path / "out")
    (member,) = bundle.manifest.members
    assert member.outputs == Outputs("logits", "frame_logits", "sigmoid")
    assert member.aggregation == AggregationConfig(frame_share=0.3)

    def scores(share):
        inputs = msgspec.structs.replace(member, aggregation=AggregationConfig(frame_share=share))
        manifest = msgspec.structs.replace(bundle.manifest, members=(inputs,))
        return Predictor(Bundle(bundle.folder, manifest)).predict(soundscapes / "site_2.ogg")

    clips, loudest = scores(0.0), scores(1.0)
    assert np.abs(loudest - clips).max() > 1e-5
    np.testing.assert_allclose(scores(0.3), 0.7 * clips + 0.3 * loudest, atol=1e-6)


def test_members_with_other_inputs_meet_in_one_bundle(run, data, tmp_path, soundscapes):
    """A raw network beside one of log-mels."""
    write_fold(run, 1, data, msgspec.structs.replace(RECIPE, model=ModelConfig("raw", "small")))
    bundle = export_bundle(run, tmp_path / "out")
    inputs = bundle.manifest.members[1]
    assert inputs.frontend is inputs.frontend_fingerprint is None
    assert inputs.waveform == WaveformConfig(FRONTEND.audio, FRONTEND.window)
    scores = Predictor(bundle).predict(soundscapes / "site_2.ogg")
    assert scores.shape == (8, 4)
    assert np.isfinite(scores).all()


def test_weights_of_an_epoch_that_was_kept(run, data, tmp_path):
    with pytest.raises(
        InputNotFoundError, match=r"fold0: has no weights of epoch 1 - train with --set loop\.keep_epochs"
    ):
        export_bundle(run, tmp_path / "out", epoch=1)
    (run / "fold0" / "epochs").mkdir()
    best = run / "fold0" / "best.safetensors"
    shutil.copy(best, run / "fold0" / "epochs" / "epoch0003.safetensors")
    with pytest.raises(InputNotFoundError, match="fold0: has no weights of epoch 1 - kept are 3"):
        export_bundle(run, tmp_path / "out", epoch=1)
    write_fold(tmp_path / "other", 0, data, seed=1)  # other random weights
    shutil.copy(tmp_path / "other" / "fold0" / "best.safetensors", best)
    torch.manual_seed(1)
    windows = torch.randn(2, 1, *RECIPE.input_config.input_shape)
    bundle = export_bundle(run, tmp_path / "out", epoch=3)
    assert bundle.manifest.provenance.epoch == 3
    (answer,) = InferenceSession(bundle.folder / "fold0.onnx").run(["logits"], {"log_mel": windows.numpy()})
    kept, other = (load_checkpoint(path).build_model() for path in (run / "fold0/epochs/epoch0003.safetensors", best))
    with torch.no_grad():
        np.testing.assert_allclose(answer, kept(windows).clip, atol=1e-4)
        assert not np.allclose(answer, other(windows).clip, atol=1e-4)


def test_an_older_bundle_is_replaced(run, data, tmp_path):
    out = tmp_path / "exports" / "tiny"
    write_fold(run, 1, data)
    export_bundle(run, out)
    shutil.rmtree(run / "fold1")
    export_bundle(run, out)
    assert sorted(path.name for path in out.iterdir()) == ["fold0.onnx", "manifest.json"]


def test_a_failed_parity_leaves_the_older_bundle(run, tmp_path, monkeypatch):
    out = tmp_path / "exports" / "tiny"
    export_bundle(run, out)
    before = (out / "manifest.json").read_bytes()
    monkeypatch.setattr("birdinfer.export.onnx.torch_export.TOLERANCE", -1.0)
    with pytest.raises(BirdinferError, match=r"no exporter makes a graph .*differs from its torch model"):
        export_bundle(run, out)
    assert (out / "manifest.json").read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_a_folder_with_other_things_is_never_touched(run, tmp_path):
    precious = tmp_path / "thesis" / "chapter1.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(OutputError, match="holds other things than a bundle"):
        export_bundle(run, precious.parent)
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(parents=True)])
def test_no_run_and_no_fold(tmp_path, make):
    make(tmp_path / "runs" / "x")
    with pytest.raises(InputNotFoundError, match="birdinfer train makes one"):
        export_bundle(tmp_path / "runs" / "x", tmp_path / "out")


def test_folds_of_other_labels_are_refused(run, data, tmp_path):
    write_fold(run, 1, data, labels=("a", "b", "c", "d"))
    with pytest.raises(LabelError, match="fold1: was trained on other labels than"):
        export_bundle(run, tmp_path / "out")


def test_folds_of_other_front_ends_are_refused(run, data, tmp_path):
    other = msgspec.structs.replace(RECIPE, frontend=FrontEndConfig())
    write_fold(run, 1, data, other)
    with pytest.raises(CheckpointError, match="fold1: has another front end than"):
        export_bundle(run, tmp_path / "out")


def test_clips_that_have_moved_are_found_by_data(run, data, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    checkpoint = load_checkpoint(run / "fold0" / "best.safetensors")
    header = msgspec.structs.replace(checkpoint.header, data_dir="/nowhere")
    save_checkpoint(checkpoint.path, header, checkpoint.tensors)
    with pytest.raises(AudioError, match="name the data folder: --data"):
        export_bundle(run, tmp_path / "out")
    export_bundle(run, tmp_path / "out", data_dir=moved)


def test_a_fold_without_out_of_fold_scores_is_refused(run, tmp_path):
    (run / "fold0" / "oof.csv").unlink()
    with pytest.raises(InputNotFoundError, match=r"oof.csv: no such file - train the fold to its end"):
        export_bundle(run, tmp_path / "out")


def test_a_place_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another place: --out"):
        export_bundle(run, tmp_path / "file" / "bundle")


class TestInt8:
    """Of a run over tiny clips: what becomes of it in the bundle."""

    @pytest.fixture
    def export(self, clips, tmp_path):
        """(bundle, what was reported) of a run whose networks are made by ``network_of``."""

        def exported(network_of=seeded, **wishes):
            callback = RecordingCallback()
            run = write_run(tmp_path / "run", clips, 1, network_of=network_of)
            return export_bundle(run, tmp_path / "bundle", callback=callback, **wishes), callback

        return exported

    def test_that_passes_lies_in_the_bundle_with_its_figures(self, export, clips):
        bundle, callback = export(quantize=("static",))
        member, path = Bundle.load(bundle.folder).manifest.members[0], bundle.folder / "fold0.int8.onnx"
        fp32, int8 = member.variants
        assert (fp32.name, fp32.refused, int8.name, int8.refused) == ("fp32", "", "int8 static", "")
        assert set(member.graphs) == {"fp32", "int8"}
        assert int8.figures.size_mb == path.stat().st_size / 1e6 < fp32.figures.size_mb
        assert (int8.figures.times_fp32, int8.figures.n_windows) == (2.0, N_HELD_OUT)
        assert int8.figures.least_spearman > 0.9
        assert acceptance_figures(member, "int8") == int8.figures
        assert callback.lines[-1].startswith("fold0: int8 static taken: 2.00 times as fast as fp32")
        clip = clips / "train_audio" / LABELS[0] / "XC0.wav"
        scores = {spec: Predictor(bundle, spec).predict(clip) for spec in ("onnxruntime:int8", "onnxruntime")}
        difference = np.abs(scores["onnxruntime:int8"] - scores["onnxruntime"]).max()
        assert 0 < difference < 0.05

    def test_that_loses_what_decides_is_refused_and_fp32_alone_is_written(self, export):
        """In each layer one channel is a thousand times as loud as those that decide."""
        bundle, callback = export(loud, quantize=("static",))
        (member,) = bundle.manifest.members
        reason = member.variants[1].refused
        fall, spearman, methods, kept = reason.split("; ")
        assert re.fullmatch(r"macro AUC falls by 0\.\d+ \(95 % interval .* to .*\), allowed is 0\.1", fall)
        assert re.fullmatch(rf"Spearman -?[0-9.]+ of '({'|'.join(LABELS)})', needed is 0\.9", spearman)
        assert methods == "tried: ranges by percentile, minmax"
        assert re.fullmatch(r"sets of activations left in fp32: \d, the largest of \d+", kept)
        assert callback.lines[-1] == f"fold0: int8 static refused: {reason}"
        assert set(member.graphs) == {"fp32"}
        assert sorted(path.name for path in bundle.folder.iterdir()) == ["fold0.onnx", "folds.csv", "manifest.json"]

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [
            (Limits(max_auc_drop=1.0, min_spearman=1.0), r"Spearman 0\.9\d+ of '.+', needed is 1"),
            pytest.param(
                Limits(max_auc_drop=0.1, min_spearman=0.9, min_times_fp32=3.0),
                r"2 times as fast as fp32, needed is 3",
                marks=pytest.mark.slow,
            ),
            pytest.param(
                Limits(max_auc_drop=0.1, min_spearman=0.9, max_auc_drop_upper=-1.0),
                r"macro AUC may fall by .* \(upper end of 95 %\), allowed is -1",
                marks=pytest.mark.slow,
            ),
        ],
    )
    def test_that_misses_one_limit_is_refused_by_its_name(self, export, limits, reason):
        bundle, _ = export(quantize=("static",), limits=limits)
        assert re.match(f"{reason}; tried: ", bundle.manifest.members[0].variants[1].refused)
        assert sorted(path.name for path in bundle.folder.iterdir()) == ["fold0.onnx", "folds.csv", "manifest.json"]

    @pytest.mark.skipif(importlib.util.find_spec("nncf") is not None, reason="nncf is installed")
    def test_by_what_is_not_installed_is_refused_before_anything_is_exported(self, export, monkeypatch, tmp_path):
        monkeypatch.setattr(members, "load_checkpoint", None)
        with pytest.raises(MissingExtraError, match=r'pip install "birdinfer\[nncf\]"'):
            export(quantize=("static", "nncf"))
        assert not (tmp_path / "bundle").exists()
