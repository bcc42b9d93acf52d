"""Which steps of post-processing an ablation tries: what the user named, or all kinds there are -> attempts.

In: steps, or the species they have to fit. Out: :class:`~birdinfer.ablation.ablate.Attempt`, and a line on each kind of
step that cannot be tried by itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from birdinfer.ablation.ablate import Attempt
from birdinfer.errors import ConfigError
from birdinfer.labels import Species
from birdinfer.postprocess.step import Step
from birdinfer.postprocess.steps import AnyStep, catalogue, parse_step, write_step

ALL_STEPS = "all steps"
_OTHER_STRENGTHS = (
    "smooth:kernel=0.1/0.8/0.1",
    "smooth:kernel=0.333/0.334/0.333",
    "smooth:kernel=0.1/0.2/0.4/0.2/0.1",
)
"""Kernels of winners of 2025 and 2026 beside the catalogue's default: weak, even, and over five rows."""


class Standard(NamedTuple):
    """All that can be tried without naming anything."""

    steps: tuple[AnyStep, ...]
    left_out: tuple[str, ...]
    """Kinds of steps that have no default or do not fit the species, a line each."""


def standard_steps(species: Sequence[Species]) -> Standard:
    """Every kind of step at its defaults, and kernels that winners used.

    Args:
        species: what the steps have to fit, in column order.
    """
    steps: list[AnyStep] = []
    left_out: list[str] = []
    needy = {name: needed for name, kind in catalogue().items() if (needed := _needed(kind))}
    left_out += [f"{name}: has no default for {', '.join(needed)}" for name, needed in needy.items()]
    for text in (*(name for name in catalogue() if name not in needy), *_OTHER_STRENGTHS):
        try:
            step = parse_step(text)
            step.bind(species)
        except ConfigError as error:
            left_out.append(f"{text}: {error.what}")
        else:
            steps += [] if step.is_neutral or step in steps else [step]
            left_out += [f"{text}: changes nothing at its defaults"] if step.is_neutral else []
    return Standard(tuple(steps), tuple(left_out))


def each_alone(steps: Sequence[AnyStep]) -> list[Attempt]:
    """Steps as alternatives: each by itself."""
    return [Attempt(write_step(step), "alone", (step,)) for step in steps]


def pipeline_parts(steps: Sequence[AnyStep]) -> list[Attempt]:
    """Steps as one pipeline: each by itself, each put into the whole that lacks it, and the whole.

    A single step is all three at once and is tried once. A step that stands in the pipeline twice is taken out of it at
    one place at a time, and tried alone once.
    """
    whole = tuple(steps)
    if len(whole) == 1:
        return each_alone(whole)
    alone: list[AnyStep] = []
    for step in whole:
        alone += [] if step in alone else [step]
    put_back = [
        Attempt(write_step(step), "last", whole, whole[:place] + whole[place + 1 :]) for place, step in enumerate(whole)
    ]
    return [*each_alone(alone), *put_back, Attempt(ALL_STEPS, "whole", whole)]


def _needed(kind: type[Step]) -> list[str]:
    """The keys that only a user can fill."""
    return [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
