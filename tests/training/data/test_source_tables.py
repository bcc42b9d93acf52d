"""Sources of each kind -> clips and their labels."""

import pickle

import numpy as np
import pytest
from tiny_clips import LABELS, write_clips
from tiny_sources import SITES, soundscape, write_labels, write_pseudo, write_soundscapes

from birdinfer.errors import BirdinferError
from birdinfer.species import Species
from birdinfer.training.data.source_tables import draw_weights, read_source
from birdinfer.training.recipe.data_config import SourceConfig

SPECIES = tuple(Species(label) for label in LABELS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Soundscapes, their labels and pseudo-labels. Read only."""
    there = tmp_path_factory.mktemp("sources")
    write_soundscapes(there / "sound")
    write_labels(there / "labels.csv")
    write_pseudo(there / "pseudo")
    return there


@pytest.fixture
def read(folder):
    def run(window_seconds=1.0, species=SPECIES, **keys):
        return read_source(SourceConfig(path="sound", **keys), 1, folder, species, window_seconds)

    return run


def labels_of(found):
    return np.array([found.source.rows(clip.row) for clip in found.clips])


class TestSoundscapes:
    def test_each_window_is_a_clip_with_its_labels(self, read):
        found = read(kind="soundscapes", table="labels.csv", name="s")
        first = found.clips[1]
        assert (first.filename, first.primary_label) == (f"@s/{soundscape(0)}.wav#t=1,2", LABELS[1])
        assert (first.begin_seconds, first.end_seconds, first.source, first.site) == (1, 2, 1, SITES[0])
        assert len(found.clips) == 12
        assert labels_of(found)[:4].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
        assert found.clips[3].primary_label == ""

    def test_a_longer_window_has_the_labels_of_all_in_it(self, read):
        found = read(kind="soundscapes", table="labels.csv", window_seconds=2.0)
        assert (found.clips[1].begin_seconds, found.clips[1].end_seconds) == (0.5, 2.5)
        assert labels_of(found)[1].tolist() == [1, 1, 1, 0]
        assert found.clips[1].filename.endswith("#t=1,2")

    def test_recordings_that_are_missing_are_named(self, read, folder, tmp_path):
        text = (folder / "labels.csv").read_text() + f"gone.ogg,0,1,{LABELS[0]}\n"
        (tmp_path / "labels.csv").write_text(text)
        found = read(kind="soundscapes", table=str(tmp_path / "labels.csv"))
        assert "1 recordings of labels.csv are missing: gone" in found.notes[-1]


class TestPseudoLabels:
    def test_scores_are_read_from_the_disk(self, read):
        found = read(kind="pseudo_labels", table="pseudo")
        rows = pickle.loads(pickle.dumps(found.source.rows))
        assert rows(5) == pytest.approx([0.3, 0.4, 0.5, 0.6], abs=1e-3)
        assert found.clips[5].primary_label == LABELS[3]

    def test_thresholds_then_power(self, read):
        found = read(kind="pseudo_labels", table="pseudo", keep=0.5, zero=0.35, power=2.0)
        assert "of 12 windows have no label of 0.5 or more: left out" in found.notes[0]
        assert len(found.clips) == 11
        assert labels_of(found)[0] == pytest.approx([0, 0, 0.16, 0.25], abs=1e-3)

    def test_the_record_of_the_teacher_is_the_default(self, read, folder):
        write_pseudo(folder / "recorded", keep=0.5, power=2.0)
        found = read(kind="pseudo_labels", table="recorded")
        assert len(found.clips) == 11
        assert labels_of(found)[0, 3] == pytest.approx(0.25, abs=1e-3)
        assert len(read(kind="pseudo_labels", table="recorded", keep=0.01).clips) == 12

    def test_species_that_the_teacher_does_not_know_are_masked(self, read):
        found = read(kind="pseudo_labels", table="pseudo", species=(*SPECIES, Species("new")))
        assert found.source.rows.known.tolist() == [True] * 4 + [False]
        assert any("1 species are not known to the teacher and masked: new" in note for note in found.notes)

    def test_a_species_of_another_label_is_found_by_its_scientific_name(self, read, folder):
        theirs = [f"Genus {label}_Common {label}" for label in LABELS]
        write_pseudo(folder / "theirs", labels=theirs, scientific_names=tuple(f"Genus {label}" for label in LABELS))
        species = [Species(label, f"Genus {label}") for label in reversed(LABELS)]
        found = read(kind="pseudo_labels", table="theirs", species=species)
        assert found.source.rows(5) == pytest.approx([0.6, 0.5, 0.4, 0.3], abs=1e-3)

    def test_species_never_observed_at_a_site_are_zero(self, read, folder):
        found = read(kind="pseudo_labels", table="pseudo", site_table="labels.csv")
        for clip, labels in zip(found.clips, labels_of(found), strict=True):
            unseen = 3 if clip.site == SITES[1] else None
            zeros = np.flatnonzero(labels == 0).tolist()
            assert zeros == ([0] if unseen else [])

    def test_files_are_drawn_by_their_largest_sum(self, read):
        found = read(kind="pseudo_labels", table="pseudo", share=0.5, drawn_by="label_sum")
        weights = draw_weights(found.clips, found.source)
        sums = labels_of(found).sum(axis=1)
        assert weights[:4] == pytest.approx(sums[:4].max() / 4, rel=1e-3)
        assert draw_weights(found.clips, read(kind="pseudo_labels", table="pseudo").source) is None


class TestSegments:
    def test_soft_labels_in_columns(self, read, tmp_path):
        table = tmp_path / "soft.csv"
        table.write_text(f"filename,start,end,weight,{LABELS[2]},other\n{soundscape(1)}.wav,0.5,2,0.5,0.75,1\n")
        found = read(kind="segments", table=str(table), power=2.0)
        assert labels_of(found).tolist() == [[0, 0, 0.5625, 0]]
        assert found.source.rows.known.tolist() == [False, False, True, False]
        assert found.source.rows.weights.tolist() == [0.5]
        assert found.notes == ("sound: 1 columns outside the taxonomy are left out: other",)

    def test_hard_labels_name_those_outside_with_counts(self, read, tmp_path):
        table = tmp_path / "hard.csv"
        table.write_text(f"filename,primary_label\n{soundscape(1)}.wav,{LABELS[0]};x\n{soundscape(2)}.wav,x;y\n")
        found = read(kind="segments", table=str(table))
        assert labels_of(found).tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
        assert found.clips[0].duration_seconds == 4
        assert found.notes == ("sound: 2 labels outside the taxonomy are left out: x (2), y (1)",)

    def test_a_submission(self, read, tmp_path):
        table = tmp_path / "submission.csv"
        table.write_text(f"row_id,{','.join(LABELS)}\n{soundscape(0)}_2,0.5,0,0,1\n")
        found = read(kind="segments", table=str(table))
        assert (found.clips[0].begin_seconds, found.clips[0].end_seconds) == (1, 2)
        assert labels_of(found).tolist() == [[0.5, 0, 0, 1]]


class TestClips:
    def test_a_table_or_the_names_of_folders_label_them(self, tmp_path, read):
        data = write_clips(tmp_path / "extra", clips_per_label=2)
        found = read_source(SourceConfig(path=str(data)), 2, tmp_path, SPECIES, 1.0)
        (data / "train.csv").unlink()
        (data / "train_audio" / LABELS[0]).rename(data / "train_audio" / "stranger")
        bare = read_source(SourceConfig(path=str(data)), 2, tmp_path, SPECIES, 1.0)
        names = [f"@extra/{label}/XC{index}.wav" for label in LABELS for index in range(2)]
        assert sorted(clip.filename for clip in found.clips) == sorted(names)
        assert sorted(clip.filename for clip in bare.clips) == sorted(names[2:])
        assert bare.notes == ("extra: 2 clips of 1 labels outside the taxonomy are left out: stranger (2)",)
        assert {clip.source for clip in found.clips} == {2}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kind": "soundscapes", "table": "none.csv"}, "data.sources sound: table: 'none.csv' is not there"),
        ({"kind": "pseudo_labels", "table": "sound"}, "name a folder that birdinfer pseudo-label made"),
        ({"kind": "pseudo_labels", "table": "pseudo", "species": [Species("x")]}, "none of its 4 labels is in"),
        ({"kind": "segments", "table": "labels.csv", "species": [Species("x")]}, "none of its 4 labels is in the tax"),
        ({"kind": "clips"}, "holds neither train.csv nor train_metadata.csv, nor clips in folders named as labels"),
    ],
)
def test_read_source_refuses_in_one_line(read, keys, message):
    with pytest.raises(BirdinferError, match=message):
        read(**keys)
