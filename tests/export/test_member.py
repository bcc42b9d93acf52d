"""One fold -> one member: its graphs, its acceptance test, and what later folds take from the first."""

import csv
import weakref

import msgspec
import numpy as np
import pytest
import torch
from make_bundles import write_sound
from tiny_clips import LABELS, RATE, call, write_clips, write_table
from tiny_models import TINY
from untrained_runs import N_HELD_OUT, RECIPE, RecordingCallback, export_bundle, hasten, seeded, write_run

from birdinfer import Bundle, Predictor
from birdinfer.errors import (
    AudioError,
    BirdinferError,
    BundleError,
    CheckpointError,
    ConfigError,
    InputNotFoundError,
    MetadataError,
)
from birdinfer.export import member as members
from birdinfer.export import variants
from birdinfer.export.acceptance.decision import Limits
from birdinfer.export.onnx import choose_exporter as faster_export
from birdinfer.training.recipe.schema import DataConfig


@pytest.fixture(autouse=True)
def _in_a_moment(monkeypatch):
    hasten(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def exported(data, tmp_path):
    """A run of so many folds, exported: (its bundle, what was reported)."""

    def export(n_folds=1, recipe=RECIPE, network_of=seeded, **wishes):
        callback = RecordingCallback()
        run = write_run(tmp_path / "run", data, n_folds, recipe, network_of)
        return export_bundle(run, tmp_path / "bundle", callback=callback, **wishes), callback

    return export


@pytest.fixture(scope="module")
def soundscapes(tmp_path_factory):
    """(folder, table): two files of four seconds, a species a second."""
    folder = tmp_path_factory.mktemp("soundscapes")
    rows = []
    for index in range(2):
        write_sound(folder / f"site_{index}.wav", np.concatenate([call(label, 1.0, index) for label in LABELS]), RATE)
        rows += [
            [f"site_{index}_{end}", *(int(label == there) for label in LABELS)] for end, there in enumerate(LABELS, 1)
        ]
    return folder, write_table(folder / "truth.csv", ["row_id", *LABELS], rows)


def alike(recipe, fold):
    """Folds that began from common weights and went little apart."""
    network = seeded(recipe, 0)
    generator = torch.Generator().manual_seed(fold)
    with torch.no_grad():
        for weights in network.parameters():
            weights.mul_(1 + 0.01 * torch.randn(weights.shape, generator=generator))
    return network


class TestAcceptance:
    def test_on_what_the_fold_held_out(self, exported):
        bundle, _ = exported(measure=True)
        (member,) = bundle.manifest.members
        (fp32,) = member.variants
        assert (fp32.figures.n_windows, fp32.figures.n_recordings) == (N_HELD_OUT, 8)
        assert fp32.figures.macro_auc is not None

    def test_on_labelled_soundscapes_besides(self, exported, soundscapes):
        folder, truth = soundscapes
        bundle, _ = exported(measure=True, soundscapes=folder, truth=truth)
        figures = bundle.manifest.members[0].variants[0].figures
        assert (figures.n_windows, figures.n_recordings) == (N_HELD_OUT + 8, 8 + 2)

    def test_on_these_alone_where_nothing_was_held_out(self, exported, soundscapes):
        folder, truth = soundscapes
        recipe = msgspec.structs.replace(RECIPE, data=DataConfig(all_data=True))
        bundle, _ = exported(recipe=recipe, quantize=("static",), soundscapes=folder, truth=truth)
        (member,) = bundle.manifest.members
        assert [variant.name for variant in member.variants] == ["fp32", "int8 static"]
        assert (member.variants[1].figures.n_windows, member.variants[1].figures.n_recordings) == (8, 2)

    def test_where_nothing_was_held_out_and_nothing_is_given_it_says_what_to_give(self, exported, tmp_path):
        recipe = msgspec.structs.replace(RECIPE, data=DataConfig(all_data=True))
        with pytest.raises(ConfigError, match=r"held out none .* give labelled soundscapes: --judge-on FOLDER --truth"):
            exported(recipe=recipe, quantize=("static",))
        assert not (tmp_path / "bundle").exists()

    def test_clips_that_cannot_be_decoded_are_named(self, tmp_path):
        """XC0 of a label is held out, the others are trained on."""
        data, callback = write_clips(tmp_path / "clips"), RecordingCallback()
        for index in (0, 1):
            (data / "train_audio" / LABELS[0] / f"XC{index}.wav").write_bytes(b"no sound")
        run = write_run(tmp_path / "run", data)
        bundle = export_bundle(run, tmp_path / "bundle", callback=callback, quantize=("static",))
        names = [line.partition(" (")[0] for line in callback.lines if line.startswith("left out of ")]
        assert sorted(names) == [
            f"left out of calibration: {LABELS[0]}/XC1.wav",
            f"left out of the acceptance test: {LABELS[0]}/XC0.wav",
        ]
        assert bundle.manifest.members[0].variants[0].figures.n_windows == N_HELD_OUT - 2


class TestLaterFolds:
    def test_try_first_what_the_first_was_taken_with(self, exported, monkeypatch):
        searched, Search = [], variants.Int8Search
        monkeypatch.setattr(
            variants, "Int8Search", lambda *given, **named: searched.append(None) or Search(*given, **named)
        )
        bundle, _ = exported(2, network_of=alike, quantize=("static",))
        made_by = [member.variants[1].made_by for member in bundle.manifest.members]
        assert [set(member.graphs) for member in bundle.manifest.members] == [{"fp32", "int8"}] * 2
        assert len(searched) == len(set(made_by)) == 1

    @pytest.mark.slow
    def test_search_for_themselves_where_that_was_refused(self, exported, monkeypatch):
        searched, Search = [], variants.Int8Search
        monkeypatch.setattr(
            variants, "Int8Search", lambda *given, **named: searched.append(None) or Search(*given, **named)
        )
        hasten(monkeypatch, times_fp32=0.5)
        exported(2, network_of=alike, quantize=("static",))
        assert len(searched) == 2

    def test_are_exported_by_the_exporter_that_was_faster(self, exported, monkeypatch):
        calls, export_faster = [], members.export_faster
        monkeypatch.setattr(
            members, "export_faster", lambda *given, **named: calls.append(None) or export_faster(*given, **named)
        )
        bundle, callback = exported(2)
        assert (len(calls), len(bundle.manifest.members)) == (1, 2)
        assert sum("exported by" in line for line in callback.lines) == 1

    def test_of_another_network_are_exported_again(self, data, tmp_path, monkeypatch):
        """What is faster for one may not even trace another."""
        run = write_run(tmp_path / "run", data, 1)
        recipe = msgspec.structs.replace(RECIPE, model=TINY["gru"])
        other = write_run(tmp_path / "other", data, 2, recipe)
        (other / "fold1").rename(run / "fold1")
        callback = RecordingCallback()
        export_bundle(run, tmp_path / "bundle", callback=callback)
        assert sum("exported by" in line for line in callback.lines) == 2

    def test_find_no_weights_of_earlier_ones_in_memory(self, exported, monkeypatch):
        loaded, alive, load = [], [], members.load_checkpoint

        def watched(path):
            alive.append(sum(tensor() is not None for tensor in loaded))
            checkpoint = load(path)
            loaded.extend(weakref.ref(tensor) for tensor in checkpoint.tensors.values())
            return checkpoint

        monkeypatch.setattr(members, "load_checkpoint", watched)
        exported(2)
        assert alive == [0, 0]
        assert len(loaded) > 60


class TestWrongData:
    @pytest.fixture(autouse=True)
    def _no_export(self, monkeypatch):
        def fail(*_):
            raise AssertionError("exported before the clips were looked for")

        monkeypatch.setattr(faster_export, "export_graph", fail)
        monkeypatch.setattr(members, "export_graph", fail)

    @pytest.mark.parametrize("wish", [{}, {"quantize": ("static",)}])
    def test_is_reported_before_anything_is_exported(self, data, tmp_path, wish):
        run = write_run(tmp_path / "run", data)
        (tmp_path / "elsewhere").mkdir()
        with pytest.raises(AudioError, match="name the data folder: --data"):
            export_bundle(run, tmp_path / "bundle", data_dir=tmp_path / "elsewhere", **wish)

    def test_so_are_labelled_soundscapes_that_are_not_there(self, data, tmp_path, soundscapes):
        run = write_run(tmp_path / "run", data)
        folder, truth = soundscapes
        for wish in (
            {"soundscapes": tmp_path / "no", "truth": truth},
            {"soundscapes": folder, "truth": tmp_path / "no"},
        ):
            with pytest.raises(InputNotFoundError, match="/no"):
                export_bundle(run, tmp_path / "bundle", measure=True, **wish)

    def test_so_is_a_missing_train_csv(self, data, tmp_path):
        """Clips without labels cannot test anything."""
        run = write_run(tmp_path / "run", data)
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "train_audio").symlink_to(data / "train_audio")
        with pytest.raises(BirdinferError, match=r"train\.csv"):
            export_bundle(run, tmp_path / "bundle", data_dir=tmp_path / "elsewhere", quantize=("static",))


class TestWithFrontEnd:
    def test_a_file_more_that_birdinfer_does_not_run(self, exported):
        bundle, callback = exported(2, with_frontend=True)
        graphs = bundle.manifest.for_other_hosts
        assert [graph.file for graph in graphs] == ["fold0.waveform.onnx", "fold1.waveform.onnx"]
        assert all(graph.max_probability_difference < 1e-4 for graph in graphs)
        assert all((bundle.folder / graph.file).is_file() for graph in graphs)
        assert not {graph.file for graph in graphs} & {
            graph.file for member in bundle.manifest.members for graph in member.graphs.values()
        }
        assert callback.lines[2].startswith("fold0.waveform.onnx: takes the waveform; largest |p - p_birdinfer| ")

    def test_a_member_that_takes_the_waveform_needs_none(self, exported):
        recipe = msgspec.structs.replace(RECIPE, model=TINY["raw"])
        bundle, callback = exported(recipe=recipe, with_frontend=True)
        assert bundle.manifest.for_other_hosts == ()
        assert callback.lines[-1] == "fold0.onnx: takes the waveform as it is"

    def test_it_is_checked_when_the_bundle_is_loaded(self, exported):
        bundle, _ = exported(with_frontend=True)
        path = bundle.folder / "fold0.waveform.onnx"
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(BundleError, match=r"fold0.waveform.onnx: has changed"):
            Bundle.load(bundle.folder)


class TestSoup:
    RECIPE = msgspec.structs.replace(RECIPE, model=TINY["vit"])

    def test_of_folds_that_are_alike_is_one_member(self, exported, data):
        bundle, callback = exported(2, self.RECIPE, alike, soup=True)
        (member,) = bundle.manifest.members
        assert (member.name, member.fold, member.out_of_fold_macro_auc) == ("soup", None, None)
        assert sorted(path.name for path in bundle.folder.iterdir()) == ["folds.csv", "manifest.json", "soup.onnx"]
        assert callback.lines[0].startswith("soup of 2 folds: macro AUC ")
        assert np.isfinite(Predictor(bundle).predict(data / "train_audio" / LABELS[0] / "XC0.wav")).all()

    def test_has_variants_like_a_fold(self, exported):
        """With limits that any processor's INT8 keeps: one without VNNI adds products in 16 bits, which overflow."""
        bundle, _ = exported(
            2, self.RECIPE, alike, soup=True, quantize=("dynamic",), limits=Limits(max_auc_drop=1.0, min_spearman=-1.0)
        )
        assert bundle.manifest.members[0].graphs["int8"].file == "soup.dynamic.onnx"

    def test_of_folds_from_different_starts_is_refused(self, exported, tmp_path):
        with pytest.raises(CheckpointError, match=r"were they trained from common weights\? - export the folds"):
            exported(2, self.RECIPE, soup=True)
        assert not (tmp_path / "bundle").exists()

    def test_of_different_networks_is_refused(self, data, tmp_path):
        run = write_run(tmp_path / "run", data, 1)
        other = write_run(tmp_path / "other", data, 2, self.RECIPE)
        (other / "fold1").rename(run / "fold1")
        with pytest.raises(CheckpointError, match="has another network than"):
            export_bundle(run, tmp_path / "bundle", soup=True)

    def test_of_one_fold_is_none(self, exported):
        with pytest.raises(ConfigError, match="needs two folds or more, 1 given"):
            exported(1, self.RECIPE, soup=True)

    def test_of_a_run_that_held_out_nothing_is_evaluated_on_labelled_soundscapes(self, exported, soundscapes):
        folder, truth = soundscapes
        recipe = msgspec.structs.replace(self.RECIPE, data=DataConfig(all_data=True))
        bundle, _ = exported(2, recipe, alike, soup=True, soundscapes=folder, truth=truth)
        assert [member.name for member in bundle.manifest.members] == ["soup"]

    def test_without_labelled_windows_says_what_to_give(self, exported):
        recipe = msgspec.structs.replace(self.RECIPE, data=DataConfig(all_data=True))
        with pytest.raises(ConfigError, match="give labelled soundscapes: --judge-on FOLDER --truth TABLE"):
            exported(2, recipe, alike, soup=True)


def test_the_table_of_another_run_is_refused(data, tmp_path):
    """Its clips have other labels in train.csv."""
    run = write_run(tmp_path / "run", data)
    other = write_clips(tmp_path / "other")
    with (other / "train.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    for row in rows:
        row[0] = LABELS[0]
    write_table(other / "train.csv", header, rows)
    with pytest.raises(MetadataError, match="name the data that the run was trained on: --data"):
        export_bundle(run, tmp_path / "bundle", data_dir=other, measure=True)
