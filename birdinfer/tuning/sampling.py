"""Which values are tried next: at random, or by TPE; the same for the same seed, trial and what was known.

A choice is handed to Optuna by how TOML writes it, for it may be a list; a range as it is.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from birdinfer.errors import ConfigError
from birdinfer.system.toml import toml_value
from birdinfer.tuning.space import Choices, Range, Space, Values, plain

SAMPLERS = ("tpe", "random")
_DRAW = 301  # first element of a trial's seed: streams for different purposes never meet
_LEARNED_DRAWS, _MOST_DRAWS = 10, 100
_MOST_RANDOM, _RANDOM_SHARE = 10, 4  # the first trials are drawn at random: a quarter of those asked for, ten at most


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna has it."""
    return {key: _distribution(choice) for key, choice in space.items()}


def encoded(space: Space, values: Values) -> dict[str, Any]:
    """Values as Optuna keeps them."""
    return {
        key: toml_value(_equal(space[key], value)) if isinstance(space[key], Choices) else value
        for key, value in values.items()
    }


def decoded(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a recipe has them, in the space's order."""
    return {key: _value(choice, params[key]) for key, choice in space.items() if key in params}


def _equal(choices: Range | Choices, value: Any) -> Any:
    """The choice that the value is: a recipe's 0.0 may be written 0."""
    assert isinstance(choices, Choices)
    return next(each for each in choices.values if Choices((each,)).holds(value))


def _value(choice: Range | Choices, param: Any) -> Any:
    if isinstance(choice, Choices):
        return next(each for each in choice.values if toml_value(each) == param)
    return plain(param)


def _distribution(choice: Range | Choices) -> BaseDistribution:
    if isinstance(choice, Choices):
        return CategoricalDistribution([toml_value(value) for value in choice.values])
    if choice.is_whole:
        return IntDistribution(int(choice.low), int(choice.high), choice.log, int(choice.step or 1))
    return FloatDistribution(float(choice.low), float(choice.high), choice.log, choice.step)


class SeededSampler(BaseSampler):
    """Draws each trial with a sampler of its own, whose seed is the study's and the trial's number.

    So workers never draw the same, and a resumed study draws as if it had not been interrupted. Values that a recipe
    refuses, because they do not fit together, are drawn again.
    """

    def __init__(self, name: str, seed: int, n_trials: int, is_taken: Callable[[Mapping[str, Any]], bool]) -> None:
        """``is_taken`` says whether values, as Optuna keeps them, make a recipe; ConfigError for an unknown sampler."""
        if name not in SAMPLERS:
            raise ConfigError("--sampler", f"is {name!r}, allowed are {', '.join(SAMPLERS)}")
        self._name, self._seed, self._is_taken = name, seed, is_taken
        self._n_random = max(1, min(_MOST_RANDOM, n_trials // _RANDOM_SHARE))
        self._space: dict[str, BaseDistribution] = {}
        self._samplers: dict[tuple[str, int], BaseSampler] = {}

    def over(self, space: dict[str, BaseDistribution]) -> "SeededSampler":
        self._space = space
        return self

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        # What TPE thinks best may be refused again and again; chance gets out of that.
        for name in (*[self._name] * _LEARNED_DRAWS, *["random"] * _MOST_DRAWS):
            sampler = self._sampler_of(name, trial.number)
            learned = sampler.infer_relative_search_space(study, trial)
            drawn = sampler.sample_relative(study, trial, learned)
            for key, choice in search_space.items():
                if key not in drawn:
                    drawn[key] = sampler.sample_independent(study, trial, key, choice)
            if self._is_taken(drawn):
                break
        return drawn

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler_of(self._name, trial.number).sample_independent(
            study, trial, param_name, param_distribution
        )

    def _sampler_of(self, name: str, number: int) -> BaseSampler:
        """One for each name, kept while one trial is drawn: asked again, it draws on."""
        if (name, number) not in self._samplers:
            self._samplers = {key: sampler for key, sampler in self._samplers.items() if key[1] == number}
            self._samplers[name, number] = self._fresh(name, number)
        return self._samplers[name, number]

    def _fresh(self, name: str, number: int) -> BaseSampler:
        seed = int(np.random.default_rng((_DRAW, self._seed, number)).integers(2**31))
        if name == "random":
            return RandomSampler(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whether these are experimental depends on Optuna's version
            # constant_liar: what others are at counts as bad for now, so that not all try the same corner.
            return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=self._n_random)
