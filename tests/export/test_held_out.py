import types
from pathlib import Path

import pandas as pd
import pytest

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.export.held_out import clips_to_check, fallback_probabilities, trained_clips, validated_clips
from birdinfer.labels import Species
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.data import DataConfig

LABELS = ("0012", "comcuc", "nan")


def checkpoint(data_dir="/data", *, all_data=False, fold=0):
    recipe, species = Recipe(data=DataConfig(all_data=all_data)), tuple(Species(label) for label in LABELS)
    return types.SimpleNamespace(recipe=recipe, species=species, fold=fold, data_dir=str(data_dir))


def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)


def write_oof(folder, probabilities, names=("0012/a.ogg", "nan/b.ogg")):
    rows = [
        {"filename": name, "primary_label": name.split("/")[0], **dict(zip(LABELS, probabilities, strict=True))}
        for name in names
    ]
    write_table(folder / "oof.csv", rows)


def write_folds(run, folds):
    rows = [
        {"filename": f"{label}/{index}.ogg", "primary_label": label, "group": "", "fold": fold}
        for index, (label, fold) in enumerate(folds)
    ]
    write_table(run / "folds.csv", rows)


class TestClipsToCheck:
    def test_those_it_was_validated_on(self, tmp_path):
        write_oof(tmp_path / "fold0", (0.1, 0.2, 0.3))
        (tmp_path / "data" / "train_audio").mkdir(parents=True)
        found = clips_to_check(tmp_path / "fold0", checkpoint(tmp_path / "data"), None)
        assert found == [tmp_path / "data" / "train_audio" / name for name in ("0012/a.ogg", "nan/b.ogg")]

    def test_where_they_are_now(self, tmp_path):
        write_oof(tmp_path / "fold0", (0.1, 0.2, 0.3))
        (tmp_path / "moved" / "train_audio").mkdir(parents=True)
        found = clips_to_check(tmp_path / "fold0", checkpoint("/nowhere"), tmp_path / "moved")
        assert found[0] == tmp_path / "moved" / "train_audio" / "0012" / "a.ogg"

    def test_without_validation_those_it_was_trained_on(self, tmp_path):
        write_folds(tmp_path, [("0012", -1), ("comcuc", -2), ("nan", -3), ("nan", -1)])
        found = clips_to_check(tmp_path / "fold0", checkpoint(all_data=True), Path("/x"))
        assert found == [Path("/x/0012/0.ogg"), Path("/x/nan/3.ogg")]

    def test_a_fold_that_was_not_trained_to_its_end_is_refused(self, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"oof.csv: is missing - train the fold to its end"):
            clips_to_check(tmp_path / "fold0", checkpoint(), None)

    def test_a_run_without_its_folds_is_refused(self, tmp_path):
        with pytest.raises(
            InputNotFoundError, match=r"folds.csv: is missing - it names the clips that a run learnt from"
        ):
            clips_to_check(tmp_path / "fold0", checkpoint(all_data=True), None)


class TestFallback:
    def test_the_mean_over_all_held_out_clips(self, tmp_path):
        write_oof(tmp_path / "fold0", (0.1, 0.2, 0.3))
        write_oof(tmp_path / "fold1", (0.4, 0.2, 0.9), names=("comcuc/c.ogg",))
        folds = {tmp_path / f"fold{fold}": checkpoint() for fold in range(2)}
        assert fallback_probabilities(folds, LABELS) == pytest.approx((0.2, 0.2, 0.5))

    def test_without_validation_the_share_of_each_species(self, tmp_path):
        write_folds(tmp_path, [("0012", -1), ("0012", -1), ("nan", -1), ("comcuc", -2), ("comcuc", -1)])
        found = fallback_probabilities({tmp_path / "fold0": checkpoint(all_data=True)}, LABELS)
        assert found == pytest.approx((0.5, 0.25, 0.25))

    def test_where_no_held_out_clip_could_be_decoded_too(self, tmp_path):
        pd.DataFrame(columns=["filename", "primary_label", *LABELS]).to_csv(
            (tmp_path / "fold0").mkdir() or tmp_path / "fold0" / "oof.csv", index=False
        )
        write_folds(tmp_path, [("0012", 0), ("nan", 1)])
        found = fallback_probabilities({tmp_path / "fold0": checkpoint()}, LABELS)
        assert found == pytest.approx((0.5, 0.0, 0.5))


class TestTrainedClips:
    def test_all_but_its_own_fold_the_test_and_those_left_out(self, tmp_path):
        write_folds(tmp_path, [("0012", 0), ("comcuc", 1), ("nan", -1), ("nan", -2), ("comcuc", -3), ("0012", 2)])
        found = trained_clips(tmp_path / "fold1", checkpoint(fold=1), Path("/x"))
        assert [clip.filename for clip in found] == ["0012/0.ogg", "nan/2.ogg", "0012/5.ogg"]
        assert found[1].primary_label == "nan"
        assert found[1].path == Path("/x/nan/2.ogg")

    def test_of_a_run_that_held_out_nothing_every_fold(self, tmp_path):
        write_folds(tmp_path, [("0012", 0), ("comcuc", -1), ("nan", -2)])
        found = trained_clips(tmp_path / "fold0", checkpoint(all_data=True), Path("/x"))
        assert [clip.filename for clip in found] == ["0012/0.ogg", "comcuc/1.ogg"]

    def test_a_table_of_something_else_is_refused(self, tmp_path):
        (tmp_path / "folds.csv").write_text("filename,fold\na.ogg,0\n")
        with pytest.raises(MetadataError, match=r"folds.csv: lacks the column primary_label"):
            trained_clips(tmp_path / "fold0", checkpoint(), Path("/x"))


class TestValidatedClips:
    ROWS = (
        {"filename": "0012/a.ogg", "primary_label": "0012", "secondary_labels": "['comcuc', '0012', 'foreign']"},
        {"filename": "nan/b.ogg", "primary_label": "nan", "secondary_labels": "[]", "group": "g7", "url": "u"},
    )

    def found(self, tmp_path, rows=ROWS):
        write_oof(tmp_path / "fold0", (0.1, 0.2, 0.3))
        write_table(tmp_path / "data" / "train.csv", rows)
        return validated_clips(tmp_path / "fold0", checkpoint(tmp_path / "data"), None)

    def test_with_those_secondary_labels_that_have_a_column(self, tmp_path):
        assert [clip.secondary_labels for clip in self.found(tmp_path)] == [("comcuc",), ()]

    def test_with_the_recording_that_each_was_cut_from(self, tmp_path):
        assert [clip.recording for clip in self.found(tmp_path)] == ["0012/a.ogg", "g7"]

    def test_of_a_clip_that_is_listed_twice_the_first_row_counts(self, tmp_path):
        again = {**self.ROWS[0], "secondary_labels": "['nan']"}
        assert self.found(tmp_path, (*self.ROWS, again))[0].secondary_labels == ("comcuc",)

    def test_none_where_nothing_was_held_out(self, tmp_path):
        assert validated_clips(tmp_path / "fold0", checkpoint(all_data=True), tmp_path) == []

    @pytest.mark.parametrize("other", [{"primary_label": "0012"}, {"filename": "nan/c.ogg"}])
    def test_other_data_are_refused(self, tmp_path, other):
        with pytest.raises(MetadataError, match=r"no row for 1 of 2 held-out clips with their label, first nan/b.ogg"):
            self.found(tmp_path, (self.ROWS[0], {**self.ROWS[1], **other}))

    def test_without_the_clips_table_truth_is_not_guessed(self, tmp_path):
        write_oof(tmp_path / "fold0", (0.1, 0.2, 0.3))
        with pytest.raises(InputNotFoundError, match=r"holds neither train.csv"):
            validated_clips(tmp_path / "fold0", checkpoint(tmp_path), None)

    @pytest.mark.parametrize("text", ["", "a\n\x00\xff", 'filename,primary_label\n"a,b\n'])
    def test_a_damaged_table_is_refused(self, tmp_path, text):
        (tmp_path / "fold0").mkdir()
        (tmp_path / "fold0" / "oof.csv").write_bytes(text.encode("latin-1"))
        with pytest.raises(MetadataError, match=r"oof.csv: (is not a table|lacks the column)"):
            validated_clips(tmp_path / "fold0", checkpoint(tmp_path), None)


def test_a_fallback_needs_a_column_for_every_label(tmp_path):
    write_oof(tmp_path / "fold0", (0.1, 0.2, 0.3))
    with pytest.raises(MetadataError, match=r"oof.csv: lacks the column other"):
        fallback_probabilities({tmp_path / "fold0": checkpoint()}, (*LABELS, "other"))
