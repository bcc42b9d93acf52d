import math

import numpy as np
import pytest
from tiny_searches import KEYS, OF_THE_TRIAL, write_search

from birdinfer.errors import InputNotFoundError, MetadataError
from birdinfer.runs.study import is_search, read_search

IMPORTANCE = {"optim.lr": 0.25, "model.drop_rate": 0.75}
TWO_KEYS = ("optim.lr", "model.drop_rate")


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class TestIsSearch:
    def test_a_search_has_a_space_or_trials(self, tmp_path):
        assert not is_search(tmp_path)
        (tmp_path / "space.toml").touch()
        assert is_search(tmp_path)
        assert is_search(write_search(tmp_path / "old-tune"))


class TestReadSearch:
    def test_trials_come_by_number_with_their_values_and_curves(self, tmp_path):
        rows = [[2, "running", "", 2e-3], [0, "complete", 0.7, 1e-3]]
        search = read_search(write_search(tmp_path / "a-tune", rows, curves=[[0, 1, 0.6], [2, 1, ""], [0, 3, 0.7]]))
        assert (search.name, search.keys) == ("a-tune", KEYS)
        first, second = search.trials
        assert (first.number, first.state, first.score, first.values) == (0, "complete", 0.7, {"optim.lr": "0.001"})
        assert (second.number, second.state) == (2, "running")
        np.testing.assert_array_equal(first.curve.steps, [1, 3])
        np.testing.assert_array_equal(first.curve.scores, [0.6, 0.7])
        np.testing.assert_array_equal(second.curve.scores, [np.nan])

    def test_a_pruned_trial_without_a_score_has_its_curves_last(self, tmp_path):
        rows = [[0, "pruned", "", 1], [1, "pruned", 0.3, 1], [2, "failed", "", 1]]
        curves = [[0, 1, 0.5], [0, 2, 0.6], [1, 1, 0.4], [2, 1, 0.5]]
        scores = [one.score for one in read_search(write_search(tmp_path, rows, curves=curves)).trials]
        np.testing.assert_array_equal(scores, [0.6, 0.3, np.nan])

    def test_the_best_is_the_first_of_the_highest_that_is_complete(self, tmp_path):
        rows = [[0, "complete", 0.7, 1], [1, "pruned", 0.9, 1], [2, "complete", 0.7, 1]]
        assert read_search(write_search(tmp_path, rows)).best.number == 0

    def test_without_a_complete_trial_there_is_no_best(self, tmp_path):
        assert read_search(write_search(tmp_path, [[0, "pruned", 0.9, 1]])).best is None

    def test_keys_are_ranked_by_importance(self, tmp_path):
        folder = write_search(tmp_path, [[0, "complete", 0.7, 1e-3, 0.1]], TWO_KEYS, importance=IMPORTANCE)
        assert list(read_search(folder).importance.items()) == [("model.drop_rate", 0.75), ("optim.lr", 0.25)]

    def test_only_trials_are_needed(self, tmp_path):
        folder = write_search(tmp_path)
        (folder / "curves.csv").unlink()
        search = read_search(folder)
        assert (search.importance, search.layouts) == ({}, {})
        assert not len(search.trials[0].curve.steps)

    def test_a_curve_newer_than_the_trials_is_passed_over(self, tmp_path):
        search = read_search(write_search(tmp_path, [[0, "running", "", 1]], curves=[[0, 1, 0.5], [7, 1, 0.5]]))
        assert [one.number for one in search.trials] == [0]

    def test_the_space_says_how_ranges_were_drawn(self, tmp_path):
        space = """
            optim.lr = {low = 1e-4, high = 1e-2, log = true}
            [model]
            drop_rate = {low = 0.0, high = 0.5}
            [loop]
            batch_size = [16, 32]
        """
        keys = (*TWO_KEYS, "loop.batch_size")
        folder = write_search(tmp_path, [[0, "complete", 0.7, 1e-3, 0.1, 16]], keys, space=space)
        assert read_search(folder).layouts == {"optim.lr": "log", "model.drop_rate": "linear"}


class TestTheDefault:
    KEYS = ("optim.lr", "optim.name", "data.cache", "augment.filter_bands")
    RECIPE = '[optim]\nlr = 0.001\nname = "adamw"\n[data]\ncache = true\n[augment]\nfilter_bands = [3, 6]\n'

    def default_of(self, folder, *values, number=0):
        rows = [[number, "complete", 0.7, *values]]
        found = read_search(write_search(folder, rows, self.KEYS, recipe=self.RECIPE)).default
        return found and found.number

    def test_is_trial_0_where_it_has_the_base_recipes_values(self, tmp_path):
        assert self.default_of(tmp_path, "1e-3", "adamw", "true", "[3, 6]") == 0

    @pytest.mark.parametrize("column", range(4))
    def test_is_none_where_one_of_them_differs(self, tmp_path, column):
        values = ["0.001", "adamw", "true", "[3, 6]"]
        values[column] = ["0.002", "sgd", "false", "[3, 7]"][column]
        assert self.default_of(tmp_path, *values) is None

    def test_is_no_later_trial_of_its_own(self, tmp_path):
        assert self.default_of(tmp_path, "0.001", "adamw", "true", "[3, 6]", number=1) is None

    def test_is_trial_0_unless_the_recipe_says_otherwise(self, tmp_path):
        assert read_search(write_search(tmp_path)).default.number == 0
        assert read_search(write_search(tmp_path, recipe='name = "a"\n')).default.number == 0


class TestRefusals:
    def test_no_such_search(self, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"none: no such search - name its folder, runs/NAME-tune"):
            read_search(tmp_path / "none")

    def test_no_trial_yet(self, tmp_path):
        with pytest.raises(InputNotFoundError, match=r"holds no trial of a search yet - birdinfer tune makes them"):
            read_search(tmp_path)
        with pytest.raises(InputNotFoundError, match="holds no trial"):
            read_search(write_search(tmp_path, []))

    @pytest.mark.parametrize(
        ("name", "old", "new", "message"),
        [
            ("trials.csv", "\n1,", "\n0,", r"trials\.csv, line 3: has trial 0 once more - mend or delete the file"),
            ("trials.csv", "\n1,", "\none,", r"trials\.csv, line 3: trial holds 'one', needed is a number"),
            ("trials.csv", "\n1,", "\n1.5,", r"trials\.csv, line 3: trial is '1\.5', needed is a whole number from 0"),
            (
                "trials.csv",
                "pruned",
                "cut",
                r"line 3: state is 'cut', needed is one of complete, pruned, failed, interr",
            ),
            ("trials.csv", "0.75", "", r"line 4: trial 2 is complete, but has no score"),
            ("trials.csv", "0.75", "good", r"line 4: score holds 'good', needed is a number"),
            ("trials.csv", ",0.003", "", r"trials\.csv: row 5 has 6 cells, the header 7"),
            ("trials.csv", "trial,", "number,", r"trials\.csv: has no column trial - its columns are: number"),
            ("trials.csv", "state,", "stat,", r"trials\.csv, line 2: state is '', needed is one of"),
            ("curves.csv", "0,2,", "0,1,", r"curves\.csv, line 3: step is '1', needed is a whole number from 2"),
            ("curves.csv", "2,2,0.75", "2,2,x", r"curves\.csv, line 6: score holds 'x', needed is a number"),
            (
                "importance.csv",
                "optim.lr",
                "optim.rl",
                r"importance\.csv, line 2: 'optim\.rl' is no key that trials\.c",
            ),
            ("importance.csv", "1.0", "-1.0", r"importance\.csv, line 2: importance is '-1\.0', needed is a number fr"),
            ("importance.csv", "1.0", "", r"importance\.csv, line 2: importance is '', needed is a number from 0"),
            ("space.toml", "a = 1", "a =", r"space\.toml: is not TOML"),
            ("recipe.toml", "b = 1", "b", r"recipe\.toml: is not TOML"),
        ],
    )
    def test_a_damaged_file_with_its_line(self, tmp_path, name, old, new, message):
        folder = write_search(tmp_path, importance={"optim.lr": 1.0}, space="a = 1\n", recipe="b = 1\n")
        replace(folder / name, old, new)
        with pytest.raises(MetadataError, match=message) as refused:
            read_search(folder)
        assert "\n" not in str(refused.value)

    def test_a_study_of_an_older_version(self, tmp_path):
        folder = write_search(tmp_path)
        replace(folder / "trials.csv", "started,", "continues,")
        with pytest.raises(MetadataError, match=r"trials\.csv: is of an older birdinfer"):
            read_search(folder)

    def test_bytes_that_are_no_text(self, tmp_path):
        folder = write_search(tmp_path)
        with (folder / "curves.csv").open("ab") as file:
            file.write(b"3,1,\xff\n")
        with pytest.raises(MetadataError, match=r"curves\.csv: row 7 holds what is no UTF-8"):
            read_search(folder)

    def test_the_columns_of_a_trial_are_no_keys(self, tmp_path):
        assert not set(read_search(write_search(tmp_path)).keys) & set(OF_THE_TRIAL)
        assert math.isnan(read_search(tmp_path).trials[3].score)
