import types
from pathlib import Path

import pandas as pd
import pytest

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.export.acceptance.held_out import clips_to_check, fallback_probabilities, trained_clips, validated_clips
from birdinfer.species import Species
from birdinfer.training.recipe.schema import DataConfig, Recipe

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
        with pytest.raises(InputNotFoundError, match=r"oof.csv: no such file - train the fold to its end"):
            clips_to_check(tmp_path / "fold0", checkpoint(), None)

    def test_a_run_without_its_folds_is_refused(self, tmp_path):
        with pytest.raises(
            InputNotFoundError, match=r"folds.csv: is missing - it names the clips that a run was trained on"
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
        with pytest.raises(MetadataError, match=r"folds.csv: has no column primary_label"):
            trained_clips(tmp_path / "fold0", checkpoint(), Path("/x"))


class TestValidatedClips:
    ROWS = (
        {"filename": "0012/a.ogg", "primary_label": "0012", "secondary_labels": "['comcuc', '0012', 'unknown']"},
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
        with pytest.raises(MetadataError, match=r"oof.csv: (row 2 is not one of|row 2 holds NUL|has no column)"):
            validated_clips(tmp_path / "fold0", checkpoint(tmp_path), None)


def test_a_fallback_needs_a_column_for_every_label(tmp_path):
    write_oof(tmp_path / "fold0", (0.1, 0.2, 0.3))
    with pytest.raises(MetadataError, match=r"oof.csv: has no column other"):
        fallback_probabilities({tmp_path / "fold0": checkpoint()}, (*LABELS, "other"))


class TestDamagedTables:
    """A run may come from anyone; its tables are text."""

    OUTSIDE = (
        "/etc/passwd",
        "../../x.ogg",
        "a/../../x.ogg",
        "..",
        "..\\x.ogg",
        "C:\\x.ogg",
        "C:x.ogg",
        "//host/x.ogg",
    )

    @pytest.mark.parametrize("place", OUTSIDE)
    @pytest.mark.parametrize("column", ["filename", "primary_label"])
    def test_no_clip_is_looked_for_outside_the_data_folder(self, tmp_path, place, column):
        row = {"filename": "a.ogg", "primary_label": "0012", **dict.fromkeys(LABELS, 0.5), column: place}
        write_table(tmp_path / "fold0" / "oof.csv", [row])
        write_table(tmp_path / "folds.csv", [{"filename": "b.ogg", "primary_label": "nan", "fold": 1, column: place}])
        with pytest.raises(MetadataError, match=r"oof.csv: names .* which is no place in the data folder"):
            clips_to_check(tmp_path / "fold0", checkpoint(), tmp_path)
        with pytest.raises(MetadataError, match=r"folds.csv: names .* which is no place in the data folder"):
            trained_clips(tmp_path / "fold0", checkpoint(), tmp_path)

    def test_names_with_full_stops_and_spaces_are_names(self, tmp_path):
        names = ("0012/a..b.ogg", "nan/...ogg", "nan/XC1: dawn, .. dusk.ogg")
        write_oof(tmp_path / "fold0", (0.1, 0.2, 0.3), names)
        assert clips_to_check(tmp_path / "fold0", checkpoint(), tmp_path) == [tmp_path / name for name in names]

    @pytest.mark.parametrize("name", ["x" * 5_000, "x/" * 3_000, "é" * 200])
    def test_a_name_that_no_file_can_have_is_refused_and_not_repeated_in_full(self, tmp_path, name):
        write_oof(tmp_path / "fold0", (0.1, 0.2, 0.3), [f"0012/{name}"])
        (tmp_path / "0012").mkdir()
        with pytest.raises(MetadataError, match=r"oof.csv: names a clip .*File name too long.*'0012/") as caught:
            clips_to_check(tmp_path / "fold0", checkpoint(), tmp_path)
        assert len(caught.value.what) < 300

    @pytest.mark.parametrize("value", [7.0, -1e-9, 1.0000001, "inf", "nan"])
    def test_what_is_no_probability_fills_no_row(self, tmp_path, value):
        write_oof(tmp_path / "fold0", (0.1, 0.2, 0.3))
        write_oof(tmp_path / "fold1", (0.1, value, 0.3))
        folds = {tmp_path / f"fold{fold}": checkpoint() for fold in range(2)}
        with pytest.raises(MetadataError, match=r"fold1.oof.csv: row 2, column 'comcuc' holds '\S*' - a probab"):
            fallback_probabilities(folds, LABELS)

    @pytest.mark.parametrize("value", ["loud", "", "0.1;0.2", "9" * 5_000 + "x"])
    def test_text_where_a_number_is_due_is_refused(self, tmp_path, value):
        write_oof(tmp_path / "fold0", (0.1, value, 0.3))
        with pytest.raises(MetadataError, match=r"oof.csv: row 2, column 'comcuc' holds '") as caught:
            fallback_probabilities({tmp_path / "fold0": checkpoint()}, LABELS)
        assert len(caught.value.what) < 300

    def test_the_ends_of_the_range_are_probabilities(self, tmp_path):
        write_oof(tmp_path / "fold0", (0, 1, 0.5))
        assert fallback_probabilities({tmp_path / "fold0": checkpoint()}, LABELS) == (0.0, 1.0, 0.5)

    @pytest.mark.parametrize(
        "row", ["a.ogg,0012,0.1,0.2,0.3,0.4", "a.ogg,0012,0.1,0.2,0.3\nb.ogg,0012,0.1,0.2,0.3,0.4"]
    )
    def test_rows_of_more_cells_than_columns_are_not_shifted(self, tmp_path, row):
        (tmp_path / "fold0").mkdir()
        (tmp_path / "fold0" / "oof.csv").write_text(",".join(("filename", "primary_label", *LABELS)) + f"\n{row}\n")
        with pytest.raises(MetadataError, match=r"oof.csv: row [23] has 6 cells, the header 5"):
            clips_to_check(tmp_path / "fold0", checkpoint(), tmp_path)
