import types
from pathlib import Path

import pandas as pd
import pytest

from birdinfer.errors import InputNotFoundError
from birdinfer.export.held_out import clips_to_check, fallback_probabilities
from birdinfer.training.recipe import Recipe
from birdinfer.training.recipe.data import DataConfig

LABELS = ("0012", "comcuc", "nan")


def checkpoint(data_dir="/data", *, all_data=False):
    return types.SimpleNamespace(recipe=Recipe(data=DataConfig(all_data=all_data)), data_dir=str(data_dir))


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
