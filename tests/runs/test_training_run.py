import math

import numpy as np
import pytest
from tiny_runs import write_run

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.runs.training_run import read_run


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class TestReadRun:
    def test_folds_come_in_the_order_of_their_numbers(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        (run_dir / "fold1").rename(run_dir / "fold10")
        (run_dir / "fold0").rename(run_dir / "fold9")
        (run_dir / "fold_notes").mkdir()
        run = read_run(run_dir)
        assert (run.name, [fold.fold for fold in run.folds]) == ("run", [9, 10])
        np.testing.assert_array_equal(run.folds[0].epochs, [1, 2])
        np.testing.assert_allclose(run.folds[0].curves["val_macro_auc"], [0.5, 0.8])
        np.testing.assert_allclose(run.folds[1].curves["train_loss"], [0.9, 0.8])

    def test_missing_columns_and_empty_cells_are_nan(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        (run_dir / "fold0" / "history.csv").write_text("epoch,train_loss,val_macro_auc\n1,0.5,\n2,inf,0.7\n")
        curves = read_run(run_dir).folds[0].curves
        np.testing.assert_array_equal(curves["val_macro_auc"], [np.nan, 0.7])
        np.testing.assert_array_equal(curves["train_loss"], [0.5, np.nan])
        np.testing.assert_array_equal(curves["lr"], [np.nan, np.nan])

    def test_species_are_the_mean_of_folds_weighted_by_clips(self, tmp_path):
        first = [["a", "", "A", "Aves", 3, 0.9, 0.5], ["b", "Bufo bufo", "", "", 1, "", ""]]
        second = [["a", "", "A", "Aves", 1, 0.5, 0.5], ["b", "Bufo bufo", "", "", "", "", ""]]
        named, unscored = read_run(write_run(tmp_path, classes=(first, second))).species
        assert named == ("a", "A", "Aves", 4, pytest.approx((3 * 0.9 + 0.5) / 4))
        assert unscored[:4] == ("b", "Bufo bufo", "", 1)
        assert math.isnan(unscored.auc)

    def test_a_species_without_names_is_called_by_its_label(self, tmp_path):
        assert [one.name for one in read_run(write_run(tmp_path / "run")).species] == [
            "Common Cuckoo",
            "Pica pica",
            "47158son16",
        ]

    def test_the_summarys_numbers_are_kept_and_nothing_else(self, tmp_path):
        summary = {"mean_macro_auc": 0.9, "std_macro_auc": None, "out_of_fold_macro_auc": math.nan, "folds": [{}]}
        assert read_run(write_run(tmp_path, summary=summary)).summary == {"mean_macro_auc": 0.9}

    def test_a_run_without_classes_or_summary_is_read(self, tmp_path):
        run = read_run(write_run(tmp_path, classes=()))
        assert (run.species, run.summary) == ((), {})

    def test_a_fold_that_has_not_finished_an_epoch_is_left_out(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        (run_dir / "fold1" / "history.csv").write_text("epoch,train_loss\n")
        assert [fold.fold for fold in read_run(run_dir).folds] == [0]


class TestRefusals:
    def test_no_such_run(self, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"none: no such run - name its folder, runs/NAME"):
            read_run(tmp_path / "none")

    def test_nothing_trained(self, tmp_path):
        (tmp_path / "fold0").mkdir()
        with pytest.raises(InputNotFoundError, match=r"holds no fold that has finished an epoch - birdinfer train mak"):
            read_run(tmp_path)

    def test_a_fold_instead_of_its_run(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        with pytest.raises(InputNotFoundError, match=rf"that is a fold, name its run: {run_dir}$"):
            read_run(run_dir / "fold0")

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("0.8,0.8", "0.8,high", r"history\.csv, line 3: val_padded_cmap holds 'high', needed is a number - mend"),
            ("0.8,0.8", "0.8", r"history\.csv: row 3 has 7 cells, the header 8"),
            ("\n2,", "\n1,", r"history\.csv, line 3: epoch is '1', needed is one after 1"),
            ("\n1,", "\n0,", r"history\.csv, line 2: epoch is '0', needed is one from 1"),
            ("\n2,", "\n2.5,", r"history\.csv, line 3: epoch is '2\.5', needed is one after 1"),
            ("\n2,", "\n,", r"history\.csv, line 3: epoch is '', needed is one after 1"),
            ("epoch", "epic", r"history\.csv: has no column epoch - its columns are: epic, train_loss"),
        ],
    )
    def test_a_damaged_history_with_its_line(self, tmp_path, old, new, message):
        run_dir = write_run(tmp_path / "run")
        replace(run_dir / "fold0" / "history.csv", old, new)
        with pytest.raises(MetadataError, match=message) as refused:
            read_run(run_dir)
        assert "\n" not in str(refused.value)

    def test_an_empty_history(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        (run_dir / "fold0" / "history.csv").write_bytes(b"")
        with pytest.raises(MetadataError, match=r"history\.csv: has no column epoch - .* none, it is empty"):
            read_run(run_dir)

    def test_a_history_of_bytes(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        (run_dir / "fold0" / "history.csv").write_bytes(b"epoch,lr\n1,\xff\xfe\n")
        with pytest.raises(MetadataError, match=r"history\.csv: row 2 holds what is no UTF-8"):
            read_run(run_dir)

    def test_damaged_classes(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        replace(run_dir / "fold1" / "classes.csv", "0.6", "o.6")
        with pytest.raises(MetadataError, match=r"fold1/classes\.csv, line 3: roc_auc holds 'o\.6', needed is a numb"):
            read_run(run_dir)

    def test_a_damaged_summary(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        (run_dir / "summary.json").write_text('{"mean_macro_auc": 0.')
        with pytest.raises(MetadataError, match=r"summary\.json: is not JSON \(.*line 1"):
            read_run(run_dir)
