import pytest

from birdinfer.errors import ConfigError
from birdinfer.training.tuning.pruning import PRUNERS, Steps, build_pruner
from birdinfer.training.tuning.storage import open_study


@pytest.mark.parametrize(
    ("epochs", "warmup", "rung"),
    [
        (1, 0, 1),  # at its only epoch
        (2, 1, 2),  # the second is the first whose rate is whole
        (2, 5, 2),  # never beyond the fold's end
        (20, 1, 3),  # 20 / 9, rounded up
        (20, 3, 4),  # the first epoch after the warm-up
        (90, 3, 10),
    ],
)
def test_the_first_rung_suits_short_and_long_recipes(epochs, warmup, rung):
    assert Steps(epochs, 2, warmup).first_rung == rung


def ends(pruner, curves, tmp_path):
    """At which step each trial, one after another, is given up; None: at its end."""
    study = open_study(tmp_path, "journal")
    study.pruner = build_pruner(pruner, Steps(9, 1, 0))
    found = []
    for curve in curves:
        trial, ended = study.ask(), None
        for step, score in enumerate(curve, start=1):
            trial.report(score, step)
            if trial.should_prune():
                ended = step
                break
        study.tell(trial, curve[-1])
        found.append(ended)
    return found


def flat(score):
    return [score] * 9


class TestEnds:
    def test_halving_lets_the_better_third_go_on(self, tmp_path):
        # Rungs at 1, 3, 9. The first has nobody beside it; the second is not in the better third of two, which is
        # one; the fourth is better than all.
        assert ends("halving", [flat(0.5), flat(0.4), flat(0.3), flat(0.6)], tmp_path) == [None, 1, 1, None]

    def test_who_lags_later_ends_at_a_later_rung(self, tmp_path):
        late = [0.7, 0.7, 0.45, *[0.45] * 6]
        assert ends("halving", [flat(0.5), late], tmp_path) == [None, 3]

    def test_the_median_judges_when_it_knows_four(self, tmp_path):
        assert ends("median", [flat(0.5), flat(0.4), flat(0.6), flat(0.7), flat(0.3), flat(0.8)], tmp_path) == [
            None, None, None, None, 1, None,
        ]  # fmt: skip

    def test_hyperband_gives_up_too(self, tmp_path):
        found = ends("hyperband", [flat(0.9 - 0.05 * index) for index in range(12)], tmp_path)
        assert found[0] is None
        assert any(found)

    def test_none_never_does(self, tmp_path):
        assert ends("none", [flat(0.5), flat(0.1)], tmp_path) == [None, None]


def test_an_unknown_pruner_is_refused():
    with pytest.raises(ConfigError, match="--pruner: is 'asha', allowed are halving, hyperband, median, none"):
        build_pruner("asha", Steps(9, 1, 0))
    assert len(PRUNERS) == 4
