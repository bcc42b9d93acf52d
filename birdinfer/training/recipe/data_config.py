"""Sections ``data`` and ``labels`` of a recipe: clips and other sources, and how they are split, drawn and labelled."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""A probability or a share of something, 0 to 1."""
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]

GroupedBy = Literal["author", "recording", "site"]
MOST_SHARED = 0.95
"""Of a batch, by all sources together."""
_HARD = frozenset({"clips", "soundscapes", "unlabelled", "background"})
SourceKind = Literal["clips", "soundscapes", "pseudo_labels", "segments", "unlabelled", "background"]


class SourceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A source of training data beside the data folder's clips: one table ``[[data.sources]]``."""

    path: str
    """Folder of its recordings, relative to the working folder or to the data folder; of pseudo-labels, "" is the
    folder that they were made of."""
    kind: SourceKind = "clips"
    """``clips``: labelled by train.csv, or by the folders that they lie in. ``soundscapes``: labelled by a table of
    windows or calls. ``pseudo_labels``: what ``birdinfer pseudo-label`` made. ``segments``: a table of filename, start,
    end and primary_label, or of filename, start, end (or row_id) and a column of 0 to 1 for each label. ``unlabelled``:
    recordings that only a teacher (``distil``) says something about. ``background``: recordings in which no species is,
    negative examples."""
    table: str = ""
    """The table, or the folder of pseudo-labels; found as ``path``. Clips need none."""
    name: str = ""
    """Stands before its files' names in folds.csv and oof.csv; "" for the name of the folder."""
    role: Literal["train", "folds", "validate"] = "train"
    """``train``: in the training of every fold. ``folds``: each recording is held out by one fold. ``validate``: held
    out by every fold, and never trained on."""
    overlap: Literal["leave_out", "refuse", "keep"] = "leave_out"
    """What becomes of recordings that validation has under another name, by file name or by sound."""

    share: Annotated[float, msgspec.Meta(ge=0, le=0.95)] = 0.0
    """Of each batch. 0: its windows are drawn along with the data folder's clips, by the same rules."""
    mix_probability: Share = 0.0
    """Instead: a window of it is mixed into any other training window with this probability."""
    mix_share: Share = 0.5
    """Share of the mixed-in window in the waveform; labels are the maximum of both."""
    mix_label_sum: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    """The mixed-in labels are scaled down to this sum at most, before labels are normalised; 0 leaves them."""
    drawn_by: Literal["window", "label_sum"] = "window"
    """With a share or a probability: every window as often; or recordings in proportion to their largest sum of labels
    in a window."""
    upsample_to: Count = 0
    """With a share or a probability: windows of species that have fewer are repeated up to this number."""
    weight: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    """Of its windows in the loss."""

    power: Annotated[float, msgspec.Meta(ge=0, le=20)] = 0.0
    """Soft labels are raised to this. 0 in this and the next two: as the pseudo-labels' own record recommends."""
    keep: Share = 0.0
    """Windows whose largest label is less are left out, before labels are raised to a power."""
    zero: Share = 0.0
    """Labels below this are 0, before they are raised to a power."""
    site_table: str = ""
    """A table of labelled soundscapes: a species that it never has at a site is 0 in soft labels of that site, which
    file names give. Found as ``path``."""
    same_family: bool = False
    """Let pseudo-labels of a network's own family and backbone teach it."""

    @property
    def title(self) -> str:
        """Its name in tables and messages."""
        return self.name or Path(self.path or self.table).name

    def __post_init__(self) -> None:
        if not self.path and not (self.kind == "pseudo_labels" and self.table):
            raise ValueError(f"path is '', {self.kind} need the folder of their recordings")
        if self.kind == "unlabelled" and not (self.share and self.role == "train"):
            raise ValueError("kind is 'unlabelled', it needs a share of each batch, and validates nothing")
        if self.kind not in {"clips", "unlabelled", "background"} and not self.table:
            raise ValueError(f"table is '', {self.kind} need one")
        if "/" in self.name or "\\" in self.name:
            raise ValueError(f"name is {self.name!r}, needed is one without slashes")
        if self.kind == "pseudo_labels" and self.role != "train":
            raise ValueError(f"role is {self.role!r}, pseudo-labels are no truth: only 'train' is allowed")
        if self.share and self.mix_probability:
            raise ValueError("share and mix_probability are both set, a source is either drawn or mixed in")
        soft = ("power", "keep", "zero", "site_table") if self.kind in _HARD else ()
        drawn = () if self.share or self.mix_probability else ("drawn_by", "upsample_to")
        mixed = () if self.mix_probability else ("mix_share", "mix_label_sum")
        for keys, why in (
            (soft, f"{self.kind} have hard labels"),
            (drawn, "it needs share or mix_probability"),
            (mixed, "it needs mix_probability"),
        ):
            for key in keys:
                if getattr(self, key) != self.__struct_defaults__[self.__struct_fields__.index(key) - 1]:
                    raise ValueError(f"{key} is {getattr(self, key)!r}, {why}")


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which clips, how folds are assigned, how often each clip is drawn, and which windows of it are used."""

    n_folds: Annotated[int, msgspec.Meta(ge=2, le=50)] = 5
    """Number of parts into which the clips are divided."""
    fold_column: str = ""
    """Column of train.csv that gives the folds; "" assigns them by label and group."""
    folds_file: str = ""
    """A folds.csv of an earlier run, to validate on the same clips again; "" assigns new folds."""
    val_share: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    """Instead of folds one split: fold 0 validates on this share of the clips, the others train; 0 for folds."""
    test_share: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    """A share of the clips that no fold sees; each fold's best model is scored on it once, at its end."""
    all_data: bool = False
    """Train on every clip and validate on none: the last model, once everything is decided."""

    group_by: tuple[GroupedBy, ...] = ("author", "recording")
    """What is never on both sides of a fold: one author's clips, one recording's (columns group, url), or one site's
    (latitude and longitude to 0.01 degrees)."""
    duplicates: Literal["keep", "group", "remove"] = "keep"
    """Recordings that sound alike under two names or collections: unsearched, kept on one side, or only the first
    kept. Searching decodes every clip once."""
    complete_fold0: bool = False
    """Every species that has two independent recordings is validated in fold 0, too."""
    min_clips_per_species: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 1
    """Clips of species with fewer are left out; the species keep their columns. 1 leaves out none."""
    max_clips: Count = 0
    """Train and validate on a random choice of this many clips; 0 takes all."""

    sampling_power: Annotated[float, msgspec.Meta(ge=-1, le=0)] = 0.0
    """A clip is drawn with weight (clips of its species)^power: 0 takes each clip once per epoch, -0.5 is what winners
    of BirdCLEF use for the long tail, -1 makes all species equally frequent."""
    upsample_to: Count = 0
    """Species with fewer clips are repeated until each epoch has this many of them; 0 repeats none."""
    cap_at: Count = 0
    """Of a species at most this many clips are drawn in an epoch, others in the next one; 0 caps none."""

    windows: Literal["random", "centre", "first", "all"] = "random"
    """Which window of a training clip is used: another one each time, its middle, its beginning; or each of its
    windows side by side, as clips of their own."""
    max_seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0
    """Only this much of a clip, from its beginning, is used; 0 uses all of it."""
    cache: bool = False
    """Decode every clip once into a memory-mapped file of 16-bit samples (1 GB for 4.6 hours at 32 kHz), instead of
    each window when it is needed."""
    remove_voice: bool = False
    """Cut people's speech out of clips (Silero VAD); needs the cache."""
    sources: tuple[SourceConfig, ...] = ()
    """More data to train or validate on: tables ``[[data.sources]]``."""

    def __post_init__(self) -> None:
        if self.remove_voice and not self.cache:
            raise ValueError("remove_voice is true, it needs cache = true")
        if bool(self.fold_column) + bool(self.folds_file) + bool(self.val_share) > 1:
            raise ValueError("fold_column, folds_file and val_share each say how clips are split, only one can")
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"val_share + test_share is {self.val_share + self.test_share:g}, nothing is left to train on"
            )
        if 0 < self.cap_at < self.upsample_to:
            raise ValueError(f"cap_at is {self.cap_at}, less than upsample_to, {self.upsample_to}")
        titles = [source.title for source in self.sources]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        if twice is not None:
            raise ValueError(f"two sources are called {twice!r}, give one another name")
        if sum(source.share for source in self.sources) > MOST_SHARED:
            raise ValueError(f"the shares of all sources are more than {MOST_SHARED:g} of a batch")
        if sum(source.mix_probability for source in self.sources) > 1 + 1e-9:
            raise ValueError("the mix_probability of all sources is more than 1: one of them is mixed in at a time")


class LabelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a clip's labels ask of the model. A primary label's target is 1."""

    secondary: Literal["target", "masked", "ignored"] = "target"
    """Species that a clip names in secondary_labels: wanted as ``secondary_target``; left out of the loss, for they
    sound somewhere in the clip, perhaps not in this window; or taken for absent."""
    secondary_target: Share = 0.5
    """Their target, where ``secondary`` is ``target``."""
    secondary_loss_weight: Share = 1.0
    """Weight of these species' cells in the loss."""
    kind: Literal["hard", "soft"] = "hard"
    """``soft``: a clip's targets are divided by their sum, so that they are a distribution."""
    smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Targets are moved by this share towards an even guess, 1 / labels."""
    nocall: bool = False
    """Learn whether there is any species at all, too: 1 where none is labelled (rows ``nocall``, windows of soundscapes
    without a species, a source of kind ``background``)."""
    nocall_power: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0
    """Probabilities of species are multiplied by (1 - that of no call)^power, in the exported graph, too; 0 leaves
    them."""
    taxon: str = ""
    """Learn taxa of two species or more, too: ``genus`` (of taxonomy.csv, or the scientific name's first word), or
    another column of taxonomy.csv, as ``family``. A row may then be labelled with a taxon alone. "" learns none."""
    taxon_share: Share = 0.2
    """A species' logit is the mean of its own and, by this share, its taxon's, in the exported graph, too."""
    rating_weight: Share = 0.0
    """How much a clip's rating (0 to 5 stars) counts in the loss: 0 not at all, 1 in proportion. Unrated clips (0 or
    empty) count as the mean of the rated ones."""
