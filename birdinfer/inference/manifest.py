"""``manifest.json``: the description of a bundle, as frozen structs that refuse unknown fields.

A manifest holds all that inference needs: species in column order, the rows of the result, and for each member its
input, its graphs by precision, the meaning of its outputs, and how its windows become rows. Nothing here touches a
file; :mod:`birdinfer.inference.bundle` reads, verifies and writes.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from birdinfer.config import (
    AggregationConfig,
    FrontEndConfig,
    InputConfig,
    SpectrogramConfig,
    WaveformConfig,
    WindowConfig,
)
from birdinfer.inference.ensemble import Blend
from birdinfer.inference.rank_blend import group_name
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species

FORMAT = 2

Precision = Literal["fp32", "fp16", "bf16", "int8"]


class Graph(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ONNX file."""

    file: str
    """Name within the bundle's folder."""
    sha256: str
    max_probability_difference: float | None = None
    """Largest |p - p_reference| on real windows: of fp32 from the torch model, of any other precision from fp32."""
    original_sha256: str = ""
    """Of the graph whose front end was folded into this one; "" if it is as it was given."""


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graph beside its member's fp32 graph, both measured in one run when they were exported."""

    size_mb: float
    windows_per_second: float
    """Of all workers together, on the machine that exported it; two variants were measured at different moments."""
    times_fp32: float
    """Its windows per second over those of fp32 in ONNX Runtime, measured in turns: this can be compared."""
    max_probability_difference: float
    """Largest |p - p_fp32| over all held-out windows and labels."""
    mean_probability_difference: float
    n_windows: int
    """Held-out windows it was compared on."""
    n_recordings: int
    """Recordings these were cut from."""
    macro_auc: float | None = None
    """Of its probabilities on the labelled windows; this and what follows is None where there are too few labels."""
    auc_fall: float | None = None
    """Macro AUC of fp32 minus its own: above 0 it is worse."""
    auc_fall_interval: tuple[float, float] | None = None
    """95 %, by bootstrap over recordings."""
    least_spearman: float | None = None
    """Rank correlation of its logits with those of fp32 over the windows, for the species with the lowest."""
    mean_spearman: float | None = None


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graph that was tried for a member: accepted, or refused with the reason."""

    name: str
    """``int8 static``, ``int8 dynamic``, ``fp16`` ..."""
    made_by: str
    """How it was made: ``percentile 99.999; 3 nodes left in fp32``."""
    figures: Figures
    refused: str = ""
    """The limit that failed and by how much; "" if it was accepted."""


class Outputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The meaning of a graph's outputs."""

    clip: str | None = "logits"
    """Name of the output [batch, labels]: clip-wise scores."""
    frames: str | None = None
    """Name of the output [batch, frames, labels] of a sound event detector: frame-wise scores."""
    activation: Literal["sigmoid", "softmax", "none"] = "sigmoid"
    """Function that turns these outputs into probabilities; ``none`` if the graph contains it."""
    embedding: str | None = None
    """Name of the output [batch, numbers] that describes a window whatever species it is asked for; of one
    [batch, frames, numbers] the mean over the frames counts."""
    slope: float = 1.0
    """A logit x becomes slope * x + intercept before the sigmoid, for a network that was trained with softmax."""
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if self.clip is None and self.frames is None and self.embedding is None:
            raise ValueError("outputs name neither clip nor frames nor an embedding, one is needed")
        if not (0 < self.slope < float("inf") and abs(self.intercept) < float("inf")):
            raise ValueError(
                f"outputs have slope {self.slope} and intercept {self.intercept}, needed is a slope above 0"
            )

    @property
    def is_encoder(self) -> bool:
        """Whether it gives embeddings alone: it scores nothing, which is 0 for every label."""
        return self.clip is None and self.frames is None


class SequenceHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A graph that scores the windows of a file together (:mod:`birdinfer.inference.sequence`).

    It takes [1, n_windows, n_numbers + 2]: a member's embeddings of neighbouring windows, the number of the site (from
    1; 0 unknown) and the hour of the day (24 unknown). It gives logits [1, n_windows, labels].
    """

    graph: Graph
    n_windows: int
    n_numbers: int
    """Of an embedding."""
    sites: tuple[str, ...] = ()
    """As names of recordings spell them."""
    output: str = "logits"

    def __post_init__(self) -> None:
        if self.n_windows < 2 or self.n_numbers < 1:
            raise ValueError(f"a sequence of {self.n_windows} windows and {self.n_numbers} numbers, needed are 2 and 1")


def columns_of(columns: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the columns of a label in :attr:`Member.label_columns` as a tuple."""
    return (columns,) if isinstance(columns, int) else columns


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of the ensemble."""

    name: str
    graphs: dict[Precision, Graph]
    """By precision; always with ``fp32``, the reference of the others."""
    frontend: FrontEndConfig | None = None
    """The log-mel that it takes; None if it takes a waveform."""
    frontend_fingerprint: tuple[float, ...] | None = None
    """:func:`birdinfer.features.log_mel.fingerprint` of that log-mel, or that of :mod:`birdinfer.features.spectrogram`,
    when the graph was exported or adopted."""
    waveform: WaveformConfig | None = None
    """The waveform that it takes; None if it takes a log-mel."""
    spectrogram: SpectrogramConfig | None = None
    """The spectrogram that an external graph takes, in a form of librosa or torchaudio."""
    outputs: Outputs = Outputs()
    aggregation: AggregationConfig = msgspec.field(default=AggregationConfig(), name="timeline")
    """How its windows become rows."""
    label_columns: dict[str, int | tuple[int, ...]] | None = None
    """Label of the bundle -> column of the graph, or several of which the highest score counts, for a member that knows
    other labels; None: they are the same."""
    batch: Literal["any", "one"] | None = None
    """Windows that a call of its graph may have without a change of their scores; None: not stated. Then a graph that
    birdinfer did not export is tried when it first runs."""
    weight: float = 1.0
    backbone: str = ""
    fold: int | None = None
    out_of_fold_macro_auc: float | None = None
    variants: tuple[Variant, ...] = ()
    """All graphs tried when it was exported, accepted or not; the first is fp32."""
    sequence: SequenceHead | None = None
    """What scores its windows; the graphs give their embeddings alone. None: the graphs score them."""

    def __post_init__(self) -> None:
        if self.sequence is not None and (not self.outputs.is_encoder or self.aggregation.frame_share):
            raise ValueError(f"member {self.name!r} has a head for sequences, and scores of its own")
        if sum(each is not None for each in (self.frontend, self.waveform, self.spectrogram)) != 1:
            raise ValueError(f"member {self.name!r} needs one of frontend, waveform and spectrogram")
        if "fp32" not in self.graphs:
            raise ValueError(f"member {self.name!r} has no fp32 graph")
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"member {self.name!r} has weight {self.weight}, needed is a number >= 0")
        if self.label_columns is not None and not (
            self.label_columns and all(min(columns_of(each), default=-1) >= 0 for each in self.label_columns.values())
        ):
            raise ValueError(f"member {self.name!r}: label_columns needs at least one label, and columns >= 0")

    @property
    def input_config(self) -> InputConfig:
        """The log-mel, the waveform or the spectrogram that it takes."""
        input_config = self.frontend or self.waveform or self.spectrogram
        assert input_config is not None  # see __post_init__
        return input_config

    @property
    def every_graph(self) -> tuple[Graph, ...]:
        """All that it is made of: its graphs in each precision, and its head's."""
        return (*self.graphs.values(), *((self.sequence.graph,) if self.sequence is not None else ()))


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Largest differences from fp32 at which another precision or engine counts as equal."""

    max_probability_difference: float = 0.05
    """In any window and species."""
    mean_probability_difference: float = 0.005
    """On average over windows and species."""


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Origin of a bundle."""

    created_utc: str
    run: str
    versions: dict[str, str]
    recipe: dict[str, Any]
    epoch: int | None = None
    """Of the weights, from 1; None: the best one, or no epoch's."""


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often detections of a confidence p are right: 1 / (1 + exp(-(slope * logit p + intercept)))."""

    slope: float
    """Above 0: higher confidences are right more often."""
    intercept: float
    threshold: float | None
    """Confidence, 0 to 1, from which on a detection is right with the wanted precision; None: not reached by any."""
    threshold_interval: tuple[float | None, float | None]
    """90 %, by bootstrap over recordings; None as above."""
    reviewed: tuple[float, float]
    """Lowest and highest confidence of its reviews."""
    n_right: int
    n_wrong: int
    n_files: int

    def __post_init__(self) -> None:
        if not (0 < self.slope < float("inf") and abs(self.intercept) < float("inf")):
            raise ValueError(
                f"a curve has slope {self.slope} and intercept {self.intercept}, needed is a slope above 0"
            )
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ValueError(f"a curve has threshold {self.threshold}, needed is a number between 0 and 1")


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What reviews of detections say about the scores of a bundle."""

    precision: float
    """Wanted: the share of detections at the threshold that are right, 0 to 1."""
    scores_sha256: str
    """:func:`scores_sha256` of the manifest whose scores were reviewed."""
    created_utc: str
    species: dict[str, Curve]
    """By label: of species with enough reviews of their own."""
    classes: dict[str, Curve]
    """By class_name: of all reviews of a class, for its other species."""
    unlike_class: tuple[str, ...] = ()
    """Labels without a curve: too few reviews for their own, and these do not fit that of their class."""

    def curve_of(self, species: Species) -> Curve | None:
        """Return the species' own curve, or that of its class; None if there is neither."""
        if species.label in self.species or species.label in self.unlike_class:
            return self.species.get(species.label)
        return self.classes.get(species.class_name)


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``manifest.json``."""

    format: int
    name: str
    species: tuple[Species, ...]
    rows: WindowConfig
    """The rows of the result: length of a row, and the shortest rest of a file that makes one."""
    post: PostConfig
    members: tuple[Member, ...]
    fallback_probabilities: tuple[float, ...]
    """Per species: the mean out-of-fold probability, which fills the rows of a file that cannot be read."""
    provenance: Provenance
    tolerance: Tolerance = Tolerance()
    blend: Blend = Blend()
    """How the members' scores are combined; manifests without it mean the mean."""
    for_other_hosts: tuple[Graph, ...] = ()
    """Graphs with the front end inside, which take the waveform; birdinfer does not run them."""
    calibration: Calibration | None = None
    """From reviews, by ``birdinfer calibrate``; it changes no score."""


def families_of(members: Sequence[Member]) -> dict[str, tuple[str, ...]]:
    """Group members by family, by the name of its network: folds of one network and input; another one is alone."""
    families: dict[tuple[object, ...], list[Member]] = {}
    for member in members:
        key = (member.name,) if member.fold is None else (member.backbone, member.input_config)
        families.setdefault(key, []).append(member)
    named: dict[str, tuple[str, ...]] = {}
    for each in families.values():
        name = group_name((each[0].backbone if each[0].fold is not None else "") or each[0].name)
        free = (name, *(f"{name}-{number}" for number in range(2, len(families) + 2)))
        named[next(one for one in free if one not in named)] = tuple(member.name for member in each)
    return named


def groups_and_families(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """List the members of the groups of a blend by rank, and of the families of members that are in none."""
    found = {name: group.members for name, group in manifest.blend.groups.items()}
    grouped = frozenset(name for members in found.values() for name in members)
    for name, members in families_of([each for each in manifest.members if each.name not in grouped]).items():
        found[name] = (*found.get(name, ()), *members)
    return found


def group_labels(manifest: Manifest) -> dict[str, frozenset[str]]:
    """List the labels that each group of a blend by rank knows."""
    labels = frozenset(species.label for species in manifest.species)
    by_name = {member.name: member for member in manifest.members}
    weighing = {
        name: [by_name[each] for each in group.members if by_name[each].weight > 0]
        for name, group in manifest.blend.groups.items()
    }
    known = [(name, member.label_columns) for name, members in weighing.items() for member in members]
    return {
        name: labels & frozenset().union(*(labels if own is None else own for group, own in known if group == name))
        for name in weighing
    }


def scores_sha256(manifest: Manifest) -> str:
    """Digest of all that a manifest says about scores: of everything but their calibration and embeddings."""
    settings = msgspec.to_builtins(manifest)
    del settings["calibration"]
    every = [graph for member in settings["members"] for graph in member["graphs"].values()]
    for graph in (*every, *settings["for_other_hosts"]):
        del graph["original_sha256"]
    if not settings["blend"]["groups"]:  # as before there were any
        del settings["blend"]["groups"]
    for member in settings["members"]:
        if member["spectrogram"] is None:
            del member["spectrogram"]
        outputs = member["outputs"]
        del outputs["embedding"]
        if (outputs["slope"], outputs["intercept"]) == (1, 0):  # as before there were any
            del outputs["slope"], outputs["intercept"]
        if member["sequence"] is None:
            del member["sequence"]
    return hashlib.sha256(msgspec.json.encode(settings)).hexdigest()
