"""``manifest.json``: what a bundle says of itself, as frozen structs that refuse unknown fields.

A manifest holds all that inference needs: species in column order, the rows of the result, and for each member what it
hears, its graphs by precision, what its outputs mean, and how its windows become rows. Nothing here touches a file;
``bundle.py`` reads, verifies and writes.
"""

from typing import Any, Literal

import msgspec

from birdinfer.config import FrontEndConfig, Hearing, PostConfig, TimelineConfig, WaveformConfig, WindowConfig
from birdinfer.ensemble import Blend
from birdinfer.labels import Species

FORMAT = 2

Precision = Literal["fp32", "fp16", "bf16", "int8"]


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ONNX file."""

    file: str
    """Name within the bundle's folder."""
    sha256: str
    max_probability_difference: float | None = None
    """Largest |p - p_reference| on real windows: of fp32 from the torch model, of any other precision from fp32."""


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graph beside its member's fp32 graph, both measured in one run when they were exported."""

    size_mb: float
    """Of the file."""
    windows_per_second: float
    """All lanes together, on the machine that exported it, at that moment: two variants' are of different moments."""
    times_fp32: float
    """Its windows per second over those of fp32 in ONNX Runtime, measured in turns: this is what compares."""
    max_probability_difference: float
    """Largest |p - p_fp32| of all held-out windows and labels."""
    mean_probability_difference: float
    n_windows: int
    """Held-out windows that it was compared on."""
    n_recordings: int
    """What they were cut from."""
    macro_auc: float | None = None
    """Of its probabilities on the labelled windows; this and what follows: None where labels are too few to tell."""
    auc_fall: float | None = None
    """Macro AUC of fp32 less its own: above 0 it is worse."""
    auc_fall_interval: tuple[float, float] | None = None
    """Of 95 %, by bootstrap over recordings."""
    least_spearman: float | None = None
    """Rank correlation of its logits with those of fp32 over the windows: of the species where it is least."""
    mean_spearman: float | None = None


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graph that was tried for a member: taken, or refused and why."""

    name: str
    """``int8 static``, ``int8 dynamic``, ``fp16`` ..."""
    made_by: str
    """What was done, in a few words: ``percentile 99.999; 3 nodes left in fp32``."""
    figures: Figures
    refused: str = ""
    """The limit that failed and by how much; "" where it was taken."""


class Outputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a graph's outputs mean."""

    clip: str | None = "logits"
    """Name of the output [batch, labels]: one opinion a window."""
    frames: str | None = None
    """Name of the output [batch, frames, labels] of a sound event detector: an opinion for each frame."""
    activation: Literal["sigmoid", "softmax", "none"] = "sigmoid"
    """What turns these outputs into probabilities; ``none`` where the graph has done it."""

    def __post_init__(self) -> None:
        if self.clip is None and self.frames is None:
            raise ValueError("outputs name neither clip nor frames, one is needed")


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of the ensemble."""

    name: str
    graphs: dict[Precision, Graph]
    """By precision; ``fp32`` is always there, for it is what the others are held against."""
    frontend: FrontEndConfig | None = None
    """The log-mel that it takes, or"""
    frontend_fingerprint: tuple[float, ...] | None = None
    """:func:`birdinfer.mel.fingerprint` of that log-mel when the graph was exported."""
    waveform: WaveformConfig | None = None
    """the waveform."""
    outputs: Outputs = Outputs()
    timeline: TimelineConfig = TimelineConfig()
    label_columns: dict[str, int] | None = None
    """Label of the bundle -> column of the graph, for a member that knows other labels; None: they are the same."""
    weight: float = 1.0
    """Its say in the blend."""
    backbone: str = ""
    fold: int | None = None
    out_of_fold_macro_auc: float | None = None
    variants: tuple[Variant, ...] = ()
    """All that was tried when it was exported, taken or not; the first is fp32."""

    def __post_init__(self) -> None:
        if (self.frontend is None) == (self.waveform is None):
            raise ValueError(f"member {self.name!r} needs either frontend or waveform")
        if "fp32" not in self.graphs:
            raise ValueError(f"member {self.name!r} has no fp32 graph")
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"member {self.name!r} has weight {self.weight}, needed is a number >= 0")
        if self.label_columns is not None and not (
            self.label_columns and all(column >= 0 for column in self.label_columns.values())
        ):
            raise ValueError(f"member {self.name!r}: label_columns needs at least one label, and columns >= 0")

    @property
    def hearing(self) -> Hearing:
        """What it hears."""
        hearing = self.frontend or self.waveform
        assert hearing is not None  # __post_init__ saw to it
        return hearing


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the ensemble's probabilities may lie from fp32 for another precision or engine to be taken for it."""

    max_probability_difference: float = 0.05
    """In any window and species."""
    mean_probability_difference: float = 0.005
    """On average over windows and species."""


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a bundle comes from."""

    created_utc: str
    run: str
    versions: dict[str, str]
    recipe: dict[str, Any]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``manifest.json``."""

    format: int
    name: str
    species: tuple[Species, ...]
    """In column order."""
    rows: WindowConfig
    """The rows of the result: how long one is, and what rest of a file makes one."""
    post: PostConfig
    members: tuple[Member, ...]
    fallback_probabilities: tuple[float, ...]
    """Per species: the mean out-of-fold probability, which fills the rows of a file that cannot be read."""
    provenance: Provenance
    tolerance: Tolerance = Tolerance()
    blend: Blend = Blend()
    """How the members become one opinion; manifests of before there was a choice say nothing and mean the mean."""
    for_other_hosts: tuple[Graph, ...] = ()
    """Graphs with the front end inside, which take the waveform; birdinfer does not run them."""
