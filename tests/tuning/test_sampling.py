import pytest

from birdinfer.errors import ConfigError
from birdinfer.tuning.sampling import SAMPLERS, SeededSampler, decoded, distributions, encoded
from birdinfer.tuning.space import Choices, Range
from birdinfer.tuning.trials import open_study, queue_default

SPACE = {
    "optim.lr": Range(1e-4, 1e-2, log=True),
    "loop.batch_size": Choices((8, 16)),
    "loop.epochs": Range(2, 10, step=4, is_whole=True),
    "augment.stretch_rate": Choices(([0.9, 1.1], [0.8, 1.2])),
}


def drawn(folder, name="tpe", seed=0, n=8, is_taken=lambda params: True):
    """What the first trials of a study draw; the score of each is its learning rate."""
    folder.mkdir()
    study = open_study(folder, "journal")
    study.sampler = SeededSampler(name, seed, n, is_taken).over(distributions(SPACE))
    found = []
    for _ in range(n):
        trial = study.ask(distributions(SPACE))
        found.append(decoded(SPACE, trial.params))
        study.tell(trial, trial.params["optim.lr"])
    return found


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_draws_the_same_and_another_one_others(tmp_path, name):
    first = drawn(tmp_path / "a", name)
    assert first == drawn(tmp_path / "b", name)
    assert first != drawn(tmp_path / "c", name, seed=1)
    assert len({tuple(map(str, values.values())) for values in first}) == len(first)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_drawn_lies_in_the_space(tmp_path, name):
    for values in drawn(tmp_path / "study", name):
        assert list(values) == list(SPACE)
        assert all(choice.holds(values[key]) for key, choice in SPACE.items())


@pytest.mark.parametrize("name", SAMPLERS)
def test_values_that_do_not_fit_together_are_drawn_again(tmp_path, name):
    found = drawn(tmp_path / "s", name, n=12, is_taken=lambda params: params["loop.batch_size"] == "16")
    assert {values["loop.batch_size"] for values in found} == {16}


def test_tpe_learns_where_scores_are_high_and_chance_does_not(tmp_path):
    # The score is the learning rate. Drawn evenly on a logarithmic scale, a quarter lies above 3.16e-3.
    late = {name: drawn(tmp_path / name, name, n=30)[15:] for name in SAMPLERS}
    high = {name: sum(values["optim.lr"] > 3.16e-3 for values in found) for name, found in late.items()}
    assert high["tpe"] >= 10
    assert high["random"] < 8


def test_values_are_encoded_and_decoded_back(tmp_path):
    values = {"optim.lr": 1e-3, "loop.batch_size": 16, "loop.epochs": 6, "augment.stretch_rate": [0.8, 1.2]}
    assert decoded(SPACE, encoded(SPACE, values)) == values
    study = open_study(tmp_path, "journal")
    queue_default(study, SPACE, {**values, "loop.batch_size": 16.0})
    assert decoded(SPACE, study.ask(distributions(SPACE)).params) == values


def test_an_unknown_sampler_is_refused():
    with pytest.raises(ConfigError, match="--sampler: is 'grid', allowed are tpe, random"):
        SeededSampler("grid", 0, 1, lambda params: True)
