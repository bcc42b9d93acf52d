"""Rounds of a noisy student (Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification").

Round 0 trains a recipe on labels, or takes a bundle that is there. Each further round lets the bundle before it score
soundscapes (pseudo-labels), trains a recipe on labels and these, exports it and evaluates it on recordings that no
round learns from. Rounds end when the interval of the gain includes zero, and the last one with a sure gain is kept.

Every step leaves its result whole or not at all and can be resumed, and what is done is noted when it is: a run that is
killed at any moment and started again ends, on a CPU, with the same weights and scores.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import Literal

import msgspec

from birdinfer.audio.find import find_recordings
from birdinfer.errors import BirdinferError, CheckpointError, ConfigError, MetadataError
from birdinfer.export.run import export_run
from birdinfer.export.settings import ExportSettings
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle
from birdinfer.inference.trained_on import ends_alike
from birdinfer.prediction.pseudo_label import PseudoLabelSettings, pseudo_label
from birdinfer.prediction.run import PredictionSettings, predict_to_csv
from birdinfer.rounds.callbacks import TABLE, RoundRecord, RoundsCallback
from birdinfer.rounds.evaluate import Evaluated, evaluate_out_of_fold, evaluate_soundscapes, gain_of
from birdinfer.runs.layout import LAST
from birdinfer.system.files import atomic_folder, write_atomic
from birdinfer.system.locks import locked
from birdinfer.system.outputs import check_folder
from birdinfer.tables.csv import csv_text
from birdinfer.tables.pseudo_labels import read_pseudo_labels
from birdinfer.tables.recording_names import parse_name
from birdinfer.training.plan import Run, debug, wanted_folds, without_hub
from birdinfer.training.recipe.data_config import SourceConfig
from birdinfer.training.recipe.schema import Recipe
from birdinfer.training.recipe.toml import load_recipe, write_recipe
from birdinfer.training.run import TrainingSettings, check_recipe, train_folds

MARKER, BEST = "rounds.json", "bundle"
RECORD = "round.json"
DEBUG_SOUNDSCAPES = 10
_COLUMNS = ("round", "recipe", "macro_auc", "gain", "low", "high", "is_sure", "pseudo_windows", "seconds", "best")
Step = Literal["pseudo-labels", "training", "export", "scores"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundsSettings:
    """What is trained, on what, and on what it is evaluated."""

    recipes: tuple[Path, ...]
    """Of round 0, 1 ...; after the last one the first again, so two recipes teach each other."""
    soundscapes: Path
    """Folder of recordings without labels."""
    data: Path = Path("data")
    out: Path | None = None  # None: ``runs/NAME-rounds``
    n_rounds: int = 3  # after round 0, at most
    teacher: Path | None = None  # a bundle that stands for round 0
    judge_on: Path | None = None
    truth: Path | None = None
    """Labelled recordings that no round learns from; None: the out-of-fold clips of the recipe's folds."""
    apart: Literal["file", "site"] = "file"
    """What of the soundscapes gets no pseudo-labels: the recordings of ``judge_on``, or all of their sites."""
    share: float = 0.5  # of each batch that pseudo-labelled windows are
    power: float = 1.0
    keep: float = 0.0
    zero: float = 0.0
    folds: tuple[int, ...] | None = None
    device: str = "auto"
    overrides: tuple[str, ...] = ()
    cache_dir: Path | None = None
    n_resamples: int = 1000
    resume: bool = False
    debug: bool = False
    """Try all of it in minutes: each round trains fold 0 as ``train --debug`` does, on labels and the pseudo-labels of
    the first few soundscapes, and a gain that is not sure ends nothing."""

    @property
    def thresholds(self) -> tuple[float, float]:
        """``keep`` and ``zero``; a network that has learned nothing reaches none."""
        return (0.0, 0.0) if self.debug else (self.keep, self.zero)

    @property
    def wanted(self) -> tuple[int, ...] | None:
        """Which folds are trained; None for all."""
        return (0,) if self.debug else self.folds


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundsOutcome:
    """What rounds have come to."""

    out: Path
    records: tuple[RoundRecord, ...]
    best: int
    """The round that is kept, in ``out/bundle``."""


def run_rounds(settings: RoundsSettings, callback: RoundsCallback | None = None) -> RoundsOutcome:
    """Train rounds until one is no longer surely better than the best before it.

    Raises:
        BirdinferError: nothing can be trained as asked, or a step failed; ``resume`` continues.
        KeyboardInterrupt, SystemExit: stopped; ``resume`` continues.
    """
    callback = callback or RoundsCallback()
    recipes = [load_recipe(path, settings.overrides) for path in settings.recipes]
    if settings.debug:
        recipes = [_debugged(recipe, callback) for recipe in recipes]
    out = settings.out or Path("runs") / f"{recipes[0].name}-rounds"
    _check(settings, recipes, out)
    read = [settings.data, settings.soundscapes, settings.teacher, settings.judge_on, settings.truth, *settings.recipes]
    check_folder(out, filter(None, read), hint="name another folder: --out")
    if settings.cache_dir is not None:
        check_folder(settings.cache_dir, hint="name another folder: --cache-dir")
    with locked(out, callback.on_message):
        _begin(out, settings, recipes)
        return _Rounds(settings, recipes, out, callback).run()


def _debugged(recipe: Recipe, callback: RoundsCallback) -> Recipe:
    short, note = without_hub(debug(recipe))
    if note:
        callback.on_message(f"{recipe.name}: {note}")
    return short


def _check(settings: RoundsSettings, recipes: Sequence[Recipe], out: Path) -> None:
    if (settings.judge_on is None) != (settings.truth is None):
        raise ConfigError("--judge-on", "needs --truth, and --truth needs it", "name folder and table, or neither")
    if settings.judge_on is None and any(recipe.data.all_data for recipe in recipes):
        raise ConfigError("data.all_data", "holds no clip out to evaluate on", "give --judge-on and --truth")
    if settings.judge_on is None and settings.teacher is not None:
        raise ConfigError("--teacher", "has no out-of-fold clips to compare with", "give --judge-on and --truth")
    if settings.n_rounds < 1:
        raise ConfigError("--rounds", f"is {settings.n_rounds}, needed is at least 1")
    if not settings.soundscapes.is_dir():
        raise ConfigError("--soundscapes", f"{settings.soundscapes} is no folder", "name the folder of the recordings")
    # What only the last round would meet is met here, before hours of training.
    for number, recipe in enumerate(recipes):
        _student(recipe, settings, Path("pseudo"))
        run = Run(
            recipe=recipe, data_dir=settings.data, run_dir=out / f"round{number}" / "run", folds=settings.wanted,
            resume=settings.resume, cache_dir=settings.cache_dir,
        )  # fmt: skip
        check_recipe(run, wanted_folds(run))


def _student(recipe: Recipe, settings: RoundsSettings, pseudo: Path) -> Recipe:
    """The recipe with a round's pseudo-labels as a further source of training data."""
    source = SourceConfig(
        path=str(settings.soundscapes), kind="pseudo_labels", table=str(pseudo), name="pseudo", share=settings.share,
        same_family=True,
    )  # fmt: skip
    try:
        data = msgspec.structs.replace(recipe.data, sources=(*recipe.data.sources, source))
    except ValueError as error:
        raise ConfigError("--share", f"is {settings.share:g}: {error}") from error
    return msgspec.structs.replace(recipe, data=data)


def _begin(out: Path, settings: RoundsSettings, recipes: Sequence[Recipe]) -> None:
    """State what the folder holds; refuse one that holds other rounds, or, without ``resume``, any."""
    said = [write_recipe(recipe) for recipe in recipes]
    facts = [settings.soundscapes, settings.data, settings.teacher, settings.judge_on, settings.truth]
    numbers = [settings.apart, settings.share, settings.power, settings.keep, settings.zero, settings.folds]
    kept = {
        "identity": _digest([said, [str(each) for each in facts], numbers]),
        "round0": _digest([said, [str(each) for each in facts], settings.apart, settings.folds, settings.debug]),
    }
    path = out / MARKER
    is_begun = any(out.glob(f"round*/{RECORD}"))  # one that was refused in its first step may begin otherwise
    if path.is_file() and is_begun:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        # Thresholds that left no window must not cost round 0.
        is_new_student = found.get("round0") == kept["round0"] and not any(out.glob(f"round1/run/fold*/{LAST}"))
        if found.get("identity") != kept["identity"] and not is_new_student:
            raise CheckpointError(path, "is of rounds with other recipes or settings", "name another folder: --out")
        if not settings.resume:
            raise CheckpointError(path, "is already there", "continue with --resume, or name another folder: --out")
        if found.get("identity") != kept["identity"]:
            shutil.rmtree(out / "round1", ignore_errors=True)
            write_atomic(path, msgspec.json.encode(kept))
        return
    is_own = path.is_file() or not out.is_dir() or all(each.name.startswith(".") for each in out.iterdir())
    if not is_own:
        raise ConfigError("--out", f"{out} holds other things than rounds", "name another folder")
    write_atomic(path, msgspec.json.encode(kept))


def _digest(facts: object) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()


class _Rounds:
    """One run of rounds."""

    def __init__(
        self, settings: RoundsSettings, recipes: Sequence[Recipe], out: Path, callback: RoundsCallback
    ) -> None:
        self._settings, self._recipes, self._out, self._callback = settings, recipes, out, callback
        self._leave_out = _held_out(settings)
        if settings.debug:
            others = find_recordings([settings.soundscapes]).names.values()
            self._leave_out |= frozenset(sorted(set(others) - self._leave_out)[DEBUG_SOUNDSCAPES:])

    def run(self) -> RoundsOutcome:
        records: list[RoundRecord] = []
        best, best_scores = 0, None
        for number in range(self._settings.n_rounds + 1):
            record, scores = self._round(number, best, best_scores)
            records.append(record)
            if record.is_sure:
                best, best_scores = number, scores
            self._write_tables(records, best)
            self._callback.on_round(record)
            if not record.is_sure and not self._settings.debug:
                self._callback.on_message(f"round {number}: the gain is not sure, round {best} is kept")
                break
        self._keep(best)
        return RoundsOutcome(out=self._out, records=tuple(records), best=best)

    def _round(self, number: int, best: int, before: Evaluated | None) -> tuple[RoundRecord, Evaluated]:
        recipe = self._recipes[number % len(self._recipes)]
        folder = self._folder(number)
        record = _read_record(folder / RECORD) or RoundRecord(number=number, recipe=recipe.name)
        began = perf_counter()

        def step(name: Step) -> bool:
            """Whether a step is still to be done."""
            return name not in record.done

        def done(name: Step) -> None:
            nonlocal began
            record.done.append(name)
            record.seconds, began = record.seconds + perf_counter() - began, perf_counter()
            write_atomic(folder / RECORD, msgspec.json.encode(record))

        if number and step("pseudo-labels"):
            record.pseudo_windows = self._pseudo_label(folder / "pseudo", self._bundle(best))
            done("pseudo-labels")
        is_given = not number and self._settings.teacher is not None
        if not is_given and step("training"):
            self._train(number, recipe)
            done("training")
        if not is_given and step("export"):
            exported = ExportSettings(
                run=folder / "run", out=folder / BEST, data_dir=self._settings.data, measure_exporters=False
            )
            export_run(exported, self._callback.export())
            done("export")
        if step("scores"):
            self._predict(number)
        scores = self._evaluate(number)
        if step("scores"):
            record.macro_auc, record.is_sure = scores.macro_auc, True
            if before is not None:
                gain = gain_of(before, scores, self._settings.n_resamples)
                record.gain, record.is_sure = (gain.gain, gain.low, gain.high), gain.is_sure
            done("scores")
        return record, scores

    def _folder(self, number: int) -> Path:
        folder = self._out / f"round{number}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _bundle(self, number: int) -> Bundle:
        given = self._settings.teacher if not number else None
        return Bundle.load(given or self._folder(number) / BEST)

    def _pseudo_label(self, folder: Path, bundle: Bundle) -> int:
        settings, (keep, zero) = self._settings, self._settings.thresholds
        wanted = PseudoLabelSettings(
            output=folder, resume=True, power=settings.power, keep=keep, zero=zero,
            leave_out=self._leave_out,
        )  # fmt: skip
        n_windows = pseudo_label(bundle, settings.soundscapes, wanted, self._callback.prediction()).written.rows
        highest = float(read_pseudo_labels(folder).scores.max(initial=0.0)) ** settings.power if n_windows else 0.0
        if n_windows and highest < keep:
            what = f"is {keep:g}, no window reaches it (the highest is {highest:.2g})"
            raise ConfigError("--keep", what, "lower it, with --resume; what is trained stays")
        return n_windows

    def _train(self, number: int, recipe: Recipe) -> None:
        settings, folder = self._settings, self._folder(number)
        if number:
            recipe = _student(recipe, settings, folder / "pseudo")
        outcome = train_folds(
            TrainingSettings(
                recipe=recipe, data=settings.data, run_dir=folder / "run", folds=settings.wanted,
                devices=(settings.device,), resume=True, cache_dir=settings.cache_dir,
            ),
            self._callback.training(),
        )  # fmt: skip
        failed = [result for results in outcome.values() for result in results if result.problem]
        if failed:
            raise BirdinferError(folder / "run", f"fold {failed[0].fold} failed: {failed[0].problem}", "--resume")

    def _predict(self, number: int) -> None:
        if self._settings.judge_on is not None:
            table = self._folder(number) / "scores.csv"
            settings = PredictionSettings(output=table, resume=True)
            predict_to_csv(self._bundle(number), [self._settings.judge_on], settings, self._callback.prediction())

    def _evaluate(self, number: int) -> Evaluated:
        folder, truth = self._folder(number), self._settings.truth
        if truth is None:
            return evaluate_out_of_fold(folder / "run")
        return evaluate_soundscapes(folder / "scores.csv", truth, self._bundle(number))

    def _write_tables(self, records: Sequence[RoundRecord], best: int) -> None:
        rows = [_cells(record, is_best=record.number == best) for record in records]
        write_atomic(self._out / TABLE, csv_text(_COLUMNS, rows))

    def _keep(self, best: int) -> None:
        """Copy the best round's bundle to where it is looked for."""
        with atomic_folder(self._out / BEST, "a bundle", "name another folder: --out", MANIFEST_NAME) as new:
            shutil.copytree(self._bundle(best).folder, new, dirs_exist_ok=True)


def _held_out(settings: RoundsSettings) -> frozenset[str]:
    """Names of the soundscapes that get no pseudo-labels."""
    if settings.judge_on is None:
        return frozenset()
    evaluated = find_recordings([settings.judge_on]).names.values()
    others = find_recordings([settings.soundscapes]).names.values()
    by_file: dict[str, list[PurePosixPath]] = {}
    for path in map(PurePosixPath, evaluated):
        by_file.setdefault(path.name, []).append(path)
    held_out = {
        name for name in others if any(ends_alike(PurePosixPath(name), one) for one in by_file.get(Path(name).name, ()))
    }
    if settings.apart == "file":
        return frozenset(held_out)
    sites = {parse_name(name).site for name in evaluated} - {None}
    if not sites:
        raise ConfigError("--apart", "is site, but the names of the recordings show none", "take --apart file")
    return frozenset(held_out | {name for name in others if parse_name(name).site in sites})


def _read_record(path: Path) -> RoundRecord | None:
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=RoundRecord)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MetadataError(path, f"is damaged ({error})", "remove the folder of this round") from error


def _cells(record: RoundRecord, *, is_best: bool) -> list[str]:
    gain = [""] * 3 if record.gain is None else [f"{value:+.4f}" for value in record.gain]
    auc = "" if record.macro_auc is None else f"{record.macro_auc:.4f}"
    marks = ("yes" if record.is_sure else "no", record.pseudo_windows, f"{record.seconds:.0f}", "*" if is_best else "")
    return [str(record.number), record.recipe, auc, *gain, *map(str, marks)]
