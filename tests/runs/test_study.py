import csv

import pytest

from birdinfer.runs.study import TrialRecord, best_of, default_of, trials_table, write_tables
from birdinfer.tuning.sampling import distributions
from birdinfer.tuning.space import Choices, Range
from birdinfer.tuning.trials import importance_of, open_study, records_of

KEYS = ["optim.lr", "augment.stretch_rate", "optim.name"]
VALUES = {"optim.lr": 0.001, "augment.stretch_rate": [0.9, 1.1], "optim.name": "adamw"}


def record(number, state="complete", score=None, **more):
    known = {"seconds": 12.34, "worker": "vm-1", "started": "2026-01-02T03:04:05", "values": VALUES, "score": score}
    return TrialRecord(number=number, state=state, **(known | more))


class TestTables:
    def test_trials_are_a_row_each_and_what_is_not_known_is_empty(self):
        records = [
            record(0, score=0.75),
            record(1, "failed", values={}, seconds=None, worker=""),
            record(2, "running", seconds=None),
        ]
        assert trials_table(records, KEYS).splitlines() == [
            "trial,state,score,seconds,worker,started,optim.lr,augment.stretch_rate,optim.name",
            '0,complete,0.750000,12.3,vm-1,2026-01-02T03:04:05,0.001,"[0.9, 1.1]",adamw',
            "1,failed,,,,2026-01-02T03:04:05,,,",
            '2,running,,,vm-1,2026-01-02T03:04:05,0.001,"[0.9, 1.1]",adamw',
        ]

    def test_curves_importance_and_no_waiting_trial(self, tmp_path):
        records = [record(0, curve={1: 0.5, 2: 0.625}, score=0.625), record(1, "waiting")]
        write_tables(tmp_path, records, KEYS, {"optim.lr": 0.75, "optim.name": 0.25, "augment.stretch_rate": 0.0})
        assert len((tmp_path / "trials.csv").read_text().splitlines()) == 2
        assert (tmp_path / "curves.csv").read_text() == "trial,step,score\n0,1,0.500000\n0,2,0.625000\n"
        with (tmp_path / "importance.csv").open() as file:
            assert [row["key"] for row in csv.DictReader(file)] == ["optim.lr", "optim.name", "augment.stretch_rate"]
        write_tables(tmp_path, records, KEYS, {})
        assert not (tmp_path / "importance.csv").exists()


class TestBest:
    def test_of_equal_scores_the_recipe_itself_is_the_best(self):
        records = [record(1, score=0.5), record(2, score=0.75), record(3, score=0.75, is_default=True)]
        assert best_of(records) == default_of(records) == records[2]

    def test_the_highest_score_and_of_equal_ones_the_earlier(self):
        records = [
            record(0, score=0.8, is_default=True),
            record(1, "pruned"),
            record(2, score=0.9),
            record(3, score=0.9),
        ]
        assert best_of(records).number == 2
        assert default_of(records).number == 0

    def test_a_default_without_a_score_is_none(self):
        assert default_of([record(0, "failed", is_default=True)]) is None
        assert best_of([]) is None


SPACE = {"optim.lr": Range(0.1, 1.0), "optim.ema_decay": Range(0.0, 0.9), "optim.name": Choices(("adam",))}


class TestImportance:
    def search(self, folder, n, score):
        study = open_study(folder, "journal")
        for index in range(n):
            trial = study.ask(distributions(SPACE))
            study.tell(trial, score(trial.params, index))
        return importance_of(study, records_of(study, SPACE), list(SPACE))

    def test_the_key_that_the_score_follows_counts_most_and_the_sum_is_one(self, tmp_path):
        shares = self.search(tmp_path, 30, lambda params, _: params["optim.lr"])
        assert next(iter(shares)) == "optim.lr"
        assert shares["optim.lr"] > 0.7
        assert shares["optim.name"] == 0
        assert sum(shares.values()) == pytest.approx(1)

    @pytest.mark.parametrize(("n", "score"), [(3, lambda params, index: index / 10), (8, lambda params, index: 0.5)])
    def test_too_few_trials_or_equal_scores_tell_nothing(self, tmp_path, n, score):
        assert self.search(tmp_path, n, score) == {}
