"""What a network learns besides species: taxa and no call."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from make_bundles import write_sound
from one_fold import Killed, assert_same_bits, changed, die_at, kill, session
from onnxruntime import InferenceSession
from tiny_clips import LABELS, RATE, call, write_clips, write_table
from untrained_runs import export_bundle, hasten

from birdinfer import Predictor
from birdinfer.errors import CheckpointError, ConfigError, LabelError
from birdinfer.export.overrides import with_overrides
from birdinfer.inference.activation import activate
from birdinfer.inference.external.label_lists import ListedLabel
from birdinfer.inference.external.label_matching import species_of
from birdinfer.report.listing import read_listing
from birdinfer.runs.layout import BEST
from birdinfer.species import Species
from birdinfer.training.checkpoint import load_checkpoint
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.label_names import read_taxa
from birdinfer.training.data.metadata import clips_of_folder, read_metadata
from birdinfer.training.data.prepare import prepare_data
from birdinfer.training.data.source_tables import read_source
from birdinfer.training.data.sources import DecodedSource
from birdinfer.training.data.targets import TargetMaker, Targets, with_nocall
from birdinfer.training.fold import Fold, check_start_weights
from birdinfer.training.loop import train_fold
from birdinfer.training.models.base import Logits
from birdinfer.training.models.merge import Merge
from birdinfer.training.models.registry import build_model
from birdinfer.training.outputs import outputs_of
from birdinfer.training.recipe.data_config import LabelConfig, SourceConfig

NAMES = ("Turdus merula", "Turdus pilaris", "Corvus corax", "Pica pica")
SPECIES = tuple(Species(label, name) for label, name in zip(LABELS, NAMES, strict=True))
GENERA = tuple(name.split()[0] for name in NAMES)
EVERYTHING = LabelConfig(nocall=True, taxon="genus")
OUTPUTS = outputs_of(SPECIES, GENERA, EVERYTHING)


def write_data(folder):
    """Clips of ``tiny_clips`` with scientific names and families, three clips of no call and one of a genus alone."""
    write_clips(folder, clips_per_label=3)
    table = folder / "train.csv"
    more = [["Turdus", "", "genus.wav", "a genus"]]
    write_sound(folder / "train_audio" / "genus.wav", call(LABELS[0], 1.5, 9), RATE)
    for index in range(3):
        noise = np.random.default_rng(index).normal(0, 0.05, round(1.5 * RATE)).astype(np.float32)
        write_sound(folder / "train_audio" / f"none{index}.wav", noise, RATE)
        more.append(["nocall", "", f"none{index}.wav", f"none {index}"])
    with table.open("a", newline="") as file:
        csv.writer(file).writerows(more)
    families = ("Turdidae", "Turdidae", "Corvidae", "Corvidae")
    rows = [list(row) for row in zip(LABELS, NAMES, families, strict=True)]
    write_table(folder / "taxonomy.csv", ["primary_label", "scientific_name", "family"], rows)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def learning(tiny_recipe):
    """Everything is on, also what is learned besides; 2 epochs of 4 steps."""
    return changed(
        tiny_recipe,
        labels={"nocall": True, "taxon": "genus", "smoothing": 0.1, "secondary": "masked"},
        data={"n_folds": 2, "sampling_power": 0.0},
        loop={"epochs": 2, "batch_size": 2, "val_windows": 1, "checkpoint_every_steps": 2},
    )


def fold_of(recipe, data, folder):
    prepared = prepare_data(recipe, data, folder)
    return Fold(
        recipe=recipe,
        species=prepared.species,
        number=0,
        training=prepared.training(0),
        validation=prepared.held_out(0),
        source=DecodedSource(recipe.input_config, recipe.data.max_seconds),
        taxa=prepared.taxa,
        data_dir=data,
        folder=folder / "fold0",
    )


@pytest.fixture(scope="module")
def trained(learning, data, tmp_path_factory):
    fold = fold_of(learning, data, tmp_path_factory.mktemp("trained"))
    train_fold(fold, session())
    return fold


class TestColumns:
    def test_taxa_of_two_species_and_no_call_follow_the_species(self):
        assert OUTPUTS.taxa == ("Turdus",)
        assert OUTPUTS.taxon_of == (0, 0, -1, -1)
        assert OUTPUTS.names == (*LABELS, "taxon;Turdus", "nocall;")
        assert outputs_of(SPECIES, (), LabelConfig()).names == LABELS

    def test_clips_are_counted_for_each(self):
        assert OUTPUTS.clips_per_output([LABELS[0], LABELS[1], LABELS[1], "Turdus", "", ""]) == [1, 2, 0, 0, 4, 2]

    def test_a_column_at_the_rank_of_a_genus_means_some_species_of_it(self):
        species = (*SPECIES, Species("4711", "Turdus"))
        assert outputs_of(species, (*GENERA, "Turdus"), EVERYTHING).general == (("Turdus", 0), ("4711", 0))

    def test_a_column_of_the_taxonomy_is_read(self, data):
        assert read_taxa(data / "taxonomy.csv", SPECIES, "family") == ("Turdidae", "Turdidae", "Corvidae", "Corvidae")
        assert read_taxa(data / "taxonomy.csv", SPECIES, "genus") == GENERA

    @pytest.mark.parametrize(
        ("taxon", "message"),
        [
            ("order", "no column of .*its columns are primary_label, scientific_name"),
            ("genus", "of which no one"),
        ],
    )
    def test_what_cannot_be_learned_is_refused(self, data, taxon, message):
        with pytest.raises(ConfigError, match=rf"labels\.taxon.*{message}"):
            read_taxa(data / "taxonomy.csv", SPECIES[1:], taxon)


def test_the_survey_of_data_loads_no_torch():
    command = "import sys, birdinfer.report.survey; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def targets_of(clip, **config):
    values, weights, _ = TargetMaker(OUTPUTS, LabelConfig(nocall=True, taxon="genus", **config), [clip])(clip)
    return values.tolist(), weights.tolist()


class TestTargets:
    def test_a_species_teaches_its_genus(self):
        assert targets_of(Clip("a", None, LABELS[1])) == ([0, 1, 0, 0, 1], [1, 1, 1, 1, 1])
        assert targets_of(Clip("a", None, LABELS[2])) == ([0, 0, 1, 0, 0], [1, 1, 1, 1, 1])

    def test_a_genus_says_nothing_of_its_species(self):
        assert targets_of(Clip("a", None, "Turdus")) == ([1, 1, 0, 0, 1], [0, 0, 1, 1, 1])

    def test_a_column_at_the_rank_of_a_genus_is_taught_itself(self):
        species = (*SPECIES, Species("4711", "Turdus"))
        outputs = outputs_of(species, (*GENERA, "Turdus"), LabelConfig(taxon="genus"))
        values, weights, _ = TargetMaker(outputs, LabelConfig(), [])(Clip("a", None, "4711"))
        assert (values.tolist(), weights.tolist()) == ([1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1])

    def test_a_masked_species_masks_its_genus_unless_another_is_there(self):
        beside = targets_of(Clip("a", None, LABELS[2], (LABELS[0],)), secondary="masked")
        assert beside == ([1, 0, 1, 0, 1], [0, 1, 1, 1, 0])
        sibling = targets_of(Clip("a", None, LABELS[1], (LABELS[0],)), secondary="masked")
        assert sibling == ([1, 1, 0, 0, 1], [0, 1, 1, 1, 1])

    def test_what_is_masked_is_as_certain_as_a_label(self):
        values, _ = targets_of(Clip("a", None, "Turdus"), smoothing=0.2)
        np.testing.assert_allclose(values, [0.85, 0.85, 0.05, 0.05, 0.85], rtol=1e-6)

    def test_no_species_is_no_call(self):
        values, weights, _ = TargetMaker(OUTPUTS, EVERYTHING, [])(Clip("a", None, ""))
        assert (values.tolist(), weights.tolist()) == ([0] * 5, [1] * 5)

    def test_other_labels_are_refused_as_before(self):
        with pytest.raises(LabelError, match="'Pica' has no column"):
            TargetMaker(OUTPUTS, EVERYTHING, [Clip("a", None, "Pica")])

    @given(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5), st.lists(st.booleans(), min_size=5, max_size=5))
    def test_no_call_is_what_is_left_of_the_greatest_or_masked(self, values, known):
        cells = torch.tensor([values]), torch.tensor([known], dtype=torch.float32)
        targets = with_nocall(Targets(*cells, torch.ones(1)))
        greatest = max((value for value, is_known in zip(values, known, strict=True) if is_known), default=0.0)
        assert targets.values[0, -1].item() == pytest.approx(1 - greatest)
        assert targets.cell_weights[0, -1].item() == (all(known) or greatest >= 0.5)
        assert torch.equal(targets.values[:, :-1], cells[0])


def merged(logits, **config):
    """Of species, genus and no call -> of species."""
    answer = Merge(OUTPUTS, LabelConfig(nocall=True, taxon="genus", **config))(Logits(logits, logits[:, None]))
    assert torch.equal(answer.frames[:, 0], answer.clip)
    return answer.clip


LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=6, max_size=6)


class TestMerge:
    @given(LOGITS)
    def test_without_share_and_power_the_species_keep_their_bits(self, logits):
        row = torch.tensor([logits])
        assert torch.equal(merged(row, taxon_share=0.0, nocall_power=0.0), row[:, :4])

    @given(LOGITS, st.floats(0.05, 4))
    def test_probabilities_are_multiplied_by_those_of_a_call(self, logits, power):
        z = np.array(logits, np.float64)
        own = z[:4] * 0.75 + np.array([z[4], z[4], z[2], z[3]]) * 0.25
        wanted = 1 / (1 + np.exp(-own)) * (1 / (1 + np.exp(z[5]))) ** power
        given_ = torch.sigmoid(merged(torch.tensor([logits]), taxon_share=0.25, nocall_power=power))[0]
        np.testing.assert_allclose(given_.numpy(), wanted, rtol=2e-4, atol=1e-7)

    @given(LOGITS)
    def test_the_order_of_a_genus_and_of_all_others_stays(self, logits):
        row = merged(torch.tensor([logits]), taxon_share=0.5)[0]
        for first, second in ((0, 1), (2, 3)):
            assert (row[first] - row[second]) * (logits[first] - logits[second]) >= 0

    def test_a_sure_species_of_a_sure_call_overflows_nowhere(self):
        extreme = torch.tensor([[100.0, -100.0, 0.0, 80.0, 100.0, -100.0], [100.0, -100.0, 0.0, 80.0, 100.0, 100.0]])
        assert torch.isfinite(merged(extreme)).all()
        assert torch.isfinite(merged(extreme.half()).float()).all()


class TestData:
    def test_rows_without_a_species_and_of_a_genus_are_clips(self, data):
        metadata = read_metadata(data, learned=EVERYTHING)
        assert [clip.primary_label for clip in metadata.clips][-4:] == ["Turdus", "", "", ""]
        assert metadata.taxa == GENERA
        assert metadata.notes[:2] == (
            "learned, too: genus, 1 with 2 of 4 species, and 1 clips labelled with a genus alone",
            "learned, too: no call, 3 clips without a species",
        )

    def test_unless_they_are_learned_they_are_refused_with_what_helps(self, data):
        with pytest.raises(LabelError, match=r"'nocall', which is not in taxonomy.*set labels.nocall=true"):
            read_metadata(data, learned=LabelConfig(taxon="genus"))
        with pytest.raises(LabelError, match="'Turdus', which is not in taxonomy"):
            read_metadata(data, learned=LabelConfig(nocall=True))

    def test_the_report_finds_no_fault_in_what_the_recipe_learns(self, data):
        outside = "labels outside the taxonomy"
        assert read_listing(data).faults[outside] == ["nocall (3 clips)", "Turdus (1 clip)"]
        assert outside not in read_listing(data, learned=EVERYTHING).faults

    def test_no_call_in_the_taxonomy_is_no_species(self, tmp_path):
        data = write_data(tmp_path / "data")
        with (data / "taxonomy.csv").open("a") as file:
            file.write("nocall,,\n")
        assert read_metadata(data, learned=EVERYTHING).labels == LABELS

    def test_parts_of_a_file_may_be_silent(self, tmp_path):
        data = write_data(tmp_path / "data")
        rows = [["", "genus.wav", 0, 0.5], ["nocall", "genus.wav", 0.5, 1], [LABELS[2], "genus.wav", 0.5, 1]]
        write_table(data / "train.csv", ["primary_label", "filename", "start", "end"], rows)
        clips = read_metadata(data, learned=EVERYTHING).clips
        assert [clip.primary_label for clip in clips] == ["", LABELS[2]]

    def test_a_genus_alone_trains_and_validates_nothing(self, learning, data, tmp_path):
        prepared = prepare_data(changed(learning, data={"all_data": True}), data, tmp_path / "all")
        assert "Turdus" in {clip.primary_label for clip in prepared.training(0)}
        folds = [prepare_data(learning, data, tmp_path / "run").held_out(fold) for fold in (0, 1)]
        assert {clip.primary_label for fold in folds for clip in fold} == {*LABELS, ""}

    def test_a_source_of_clips_may_have_both(self, data):
        labels = [each for each in LABELS if each != LABELS[3]]
        clips, notes = clips_of_folder(data, None, labels, read_metadata(data, learned=EVERYTHING).also)
        assert [clip.primary_label for clip in clips][-4:] == ["Turdus", "", "", ""]
        assert notes[0].startswith(f"3 clips of 1 labels outside the taxonomy are left out: {LABELS[3]}")
        without, notes = clips_of_folder(data, None, LABELS)
        assert len(without) == 12
        assert "nocall (3), Turdus (1)" in notes[0]

    def test_no_call_without_an_example_is_refused(self, learning, clips_dir, background_dir, tmp_path):
        alone = changed(learning, labels={"taxon": ""})
        with pytest.raises(ConfigError, match=r"labels\.nocall: is true, and every clip has a species"):
            prepare_data(alone, clips_dir, tmp_path)
        source = SourceConfig(path=str(background_dir), kind="background", share=0.2)
        prepare_data(changed(alone, data={"sources": (source,)}), clips_dir, tmp_path)

    def test_background_has_no_species(self, data, background_dir):
        config = SourceConfig(path=str(background_dir), kind="background", share=0.2)
        found = read_source(config, 1, data, SPECIES, 1.0)
        assert [clip.primary_label for clip in found.clips] == ["", ""]
        assert found.source.rows.known is None
        assert [found.source.rows(clip.row).tolist() for clip in found.clips] == [[0] * 4] * 2


class TestTraining:
    def test_scores_are_those_of_the_species(self, trained):
        header = (trained.folder / "oof.csv").read_text().splitlines()[0]
        assert header == f"filename,primary_label,{','.join(LABELS)}"
        tensors = load_checkpoint(trained.folder / BEST).tensors
        assert tensors["model.backbone.classifier.weight"].shape[0] == 6

    @pytest.mark.parametrize("step", [3, 5])
    def test_killed_and_resumed_it_ends_with_the_same_bits(self, trained, learning, data, tmp_path, monkeypatch, step):
        fold = fold_of(learning, data, tmp_path)
        with monkeypatch.context() as patch:
            die_at(patch, step, kill)
            with pytest.raises(Killed):
                train_fold(fold, session())
        train_fold(fold, session())
        assert_same_bits(fold.folder, trained.folder)

    def test_a_softmax_over_species_is_refused(self, learning):
        with pytest.raises(ValueError, match="a softmax over species"):
            changed(learning, loss={"name": "ce"})

    def test_heads_are_taken_by_name(self, trained, plain_recipe):
        config = msgspec.structs.replace(plain_recipe.model, weights=str(trained.folder))
        labels = (LABELS[2], "new", "taxon;Turdus")
        model = build_model(config, 3, plain_recipe.input_config, start=True, labels=labels)
        theirs = load_checkpoint(trained.folder / BEST).tensors["model.backbone.classifier.weight"]
        assert torch.equal(model.backbone.classifier.weight[[0, 2]], theirs[[2, 4]])

    def test_a_teacher_must_have_learned_the_same(self, trained, learning, data, tmp_path):
        weights = {"weights": str(trained.folder)}
        taught = changed(learning, model=weights, loss={"teacher_share": 0.5}, loop={"epochs": 1})
        check_start_weights(taught, (0,))
        train_fold(fold_of(taught, data, tmp_path), session())
        with pytest.raises(CheckpointError, match=r"was trained with labels.taxon = 'genus' and labels.nocall = true"):
            check_start_weights(changed(taught, labels={"nocall": False}), (0,))


class TestExport:
    def test_the_bundle_scores_species_times_the_probability_of_a_call(self, trained, tmp_path, monkeypatch):
        hasten(monkeypatch)
        bundle = export_bundle(trained.folder.parent, tmp_path / "bundle", data_dir=trained.data_dir)
        assert bundle.labels == LABELS
        model = load_checkpoint(trained.folder / BEST).build_model()
        window = np.random.default_rng(0).normal(0, 1, (3, 1, *trained.recipe.input_config.input_shape))
        model.merge = None
        with torch.no_grad():
            raw = model(torch.from_numpy(window.astype(np.float32))).clip.double().numpy()
        share, own = trained.recipe.labels.taxon_share, raw[:, :4].copy()
        own[:, :2] = own[:, :2] * (1 - share) + raw[:, 4:5] * share
        wanted = 1 / (1 + np.exp(-own)) / (1 + np.exp(raw[:, 5:]))
        graph = InferenceSession(bundle.graph_path(bundle.manifest.members[0].graphs["fp32"]))
        (logits,) = graph.run(None, {graph.get_inputs()[0].name: window.astype(np.float32)})
        np.testing.assert_allclose(activate(logits, "sigmoid"), wanted, atol=1e-6)
        sound = next((trained.data_dir / "train_audio").rglob("*.wav"))
        assert Predictor(bundle).predict(sound).shape[1] == len(LABELS)

    def test_another_share_and_power_may_be_exported(self, trained, tmp_path, monkeypatch):
        hasten(monkeypatch)
        asked = ("labels.nocall_power=0", "labels.taxon_share=0")
        run, sound = trained.folder.parent, next((trained.data_dir / "train_audio").rglob("*.wav"))
        bundle = export_bundle(run, tmp_path / "bundle", data_dir=trained.data_dir, overrides=asked)
        assert bundle.manifest.provenance.recipe["labels"]["nocall_power"] == 0
        gated = export_bundle(run, tmp_path / "gated", data_dir=trained.data_dir)
        assert (Predictor(bundle).predict(sound) > Predictor(gated).predict(sound)).all()

    @pytest.mark.parametrize(
        ("asked", "message"),
        [("labels.smoothing=0", "is decided by the training"), ("labels.nocall_power=11", "nocall_power")],
    )
    def test_what_the_training_decides_is_refused(self, trained, tmp_path, asked, message):
        with pytest.raises(ConfigError, match=f"--set.*{message}"):
            export_bundle(trained.folder.parent, tmp_path / "bundle", overrides=(asked,))

    def test_what_was_not_learned_has_no_weight(self, trained):
        checkpoint = load_checkpoint(trained.folder / BEST)
        plain = changed(checkpoint.recipe, labels={"nocall": False})
        header = msgspec.structs.replace(checkpoint.header, recipe=plain)
        with pytest.raises(ConfigError, match=r"what the run has not learned - train it with labels\.nocall"):
            with_overrides(dataclasses.replace(checkpoint, header=header), ("labels.nocall_power=2",))


def test_a_graph_of_others_has_no_species_called_nocall():
    listed = [ListedLabel(1, "nocall"), ListedLabel(2, "comcuc")]
    assert [one.label for one in species_of(listed, Path("labels.csv"))] == ["comcuc"]
