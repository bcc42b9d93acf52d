from birdinfer.training.tuning.records import TrialRecord, best_of, default_of


def trial(number, score, **others):
    state = "failed" if score is None else "complete"
    return TrialRecord(number, state, score, None, "w", "", None, {}, {})._replace(**others)


def test_of_equal_scores_the_recipe_itself_is_the_best_also_where_it_was_gone_on_with():
    records = [
        trial(0, None, is_default=True, state="interrupted"),
        trial(1, 0.5),
        trial(2, 0.75),
        trial(3, 0.75, is_default=True, continues=0),
    ]
    assert best_of(records) == default_of(records) == records[3]
    assert best_of(records[:3]) == records[2]
    assert best_of([trial(1, 0.75), trial(2, 0.75)]).number == 1
    assert best_of(records[:1]) is None
