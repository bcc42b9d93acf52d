"""``birdinfer score --ablate``: scores and steps as text -> an ablation as a table, JSON or a picture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from birdinfer.cli.ablate_blend import read_groups
from birdinfer.cli.console import make_table, needing, stderr, stdout, widen
from birdinfer.cli.score_tables import check_one_source, known_species, read_matched
from birdinfer.errors import ConfigError
from birdinfer.evaluation.ablation import (
    ROUGH_BELOW_FILES,
    Ablation,
    Attempt,
    Conclusion,
    Subject,
    Trial,
    ablate,
    each_alone,
    labelled_rows,
    max_attempts,
    pipeline_parts,
    read_out_of_fold,
    standard_steps,
)
from birdinfer.evaluation.blend_ablation import ablate_blend
from birdinfer.postprocess.steps import parse_steps
from birdinfer.species import Species
from birdinfer.system.outputs import PICTURE, check_outputs
from birdinfer.tables.scores import FileRows, check_probabilities, rows_by_file

_CLIPS_ARE_ROWS = (
    "each clip is a file of one row: steps over time find no neighbours; clips of one group are resampled together"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationSettings:
    """The scores (a submission with its truth, or ``oof`` instead), the steps that are tried on them, and how."""

    submission: Path | None
    truth: Path | None
    oof: Path | None
    post: tuple[str, ...]
    blend: str | None  # of group tables: the blend whose parts are tried; None: the bundle's
    bundle: Path | None
    taxonomy: Path | None
    resamples: int
    seed: int
    plot: Path | None

    @property
    def is_of_groups(self) -> bool:
        """Whether the submission is a folder of tables, of the groups of a blend."""
        return self.submission is not None and self.submission.is_dir()


def run_ablation(settings: AblationSettings, as_json: bool) -> None:
    """Try the steps and print the result; raise a BirdinferError if options, tables or the bundle do not allow it."""
    _check(settings)
    if settings.submission and settings.is_of_groups:
        _print(settings, *_blend_ablation(settings, settings.submission), (), as_json)
        return
    subject, about_truth = (_out_of_fold(settings), ()) if settings.oof else _submission(settings)
    attempts, left_out = _attempts(settings.post, subject.species)
    ablation = ablate(subject, attempts, settings.resamples, settings.seed)
    notes = [*([_CLIPS_ARE_ROWS] if settings.oof else []), *about_truth, *(f"not tried: {line}" for line in left_out)]
    _print(settings, ablation, notes, left_out, as_json)


def _blend_ablation(settings: AblationSettings, folder: Path) -> tuple[Ablation, Sequence[str]]:
    assert settings.truth is not None
    subject, notes = read_groups(folder, settings.truth, settings.blend, settings.bundle, settings.taxonomy)
    return ablate_blend(subject, settings.resamples, settings.seed), notes


def _print(
    settings: AblationSettings, ablation: Ablation, notes: Sequence[str], left_out: Sequence[str], as_json: bool
) -> None:
    if as_json:
        typer.echo(ablation_json(ablation, left_out))
    else:
        print_ablation(
            ablation, notes, "for the mean of the groups" if settings.is_of_groups else "without post-processing"
        )
    if settings.plot:
        with needing("report", "matplotlib"):
            from birdinfer.plots.ablation import draw_ablation
        draw_ablation(settings.plot, ablation)


def _check(settings: AblationSettings) -> None:
    tables = settings.submission, settings.truth
    if settings.oof and any(tables):
        raise ConfigError("--oof", "takes the place of submission and truth", "leave one of them out")
    if not settings.oof and not all(tables):
        hint = "birdinfer score submission.csv truth.csv --ablate, or --ablate --oof runs/NAME"
        raise ConfigError("--ablate", "needs scores and their truth", hint)
    check_one_source(settings.bundle, settings.taxonomy)
    if settings.is_of_groups and settings.post:
        raise ConfigError("--post", "runs before scores are ranked, and the groups' tables have it", "leave it out")
    if settings.is_of_groups and not (settings.bundle or settings.blend):
        raise ConfigError("--ablate", "needs the blend of the groups' tables", "give --bundle, or --blend rank:...")
    if settings.blend and not settings.is_of_groups:
        hint = "birdinfer predict --group-tables DIR makes it: birdinfer score DIR truth.csv --ablate --blend rank"
        raise ConfigError("--blend", "needs the folder of the groups' tables as submission", hint)
    if settings.plot:
        check_outputs([(settings.plot, PICTURE)], filter(None, (*tables, settings.taxonomy)))


def _attempts(post: Sequence[str], species: Sequence[Species]) -> tuple[list[Attempt], tuple[str, ...]]:
    """Return the attempts, and a line for each step that cannot be tried."""
    if not post:
        standard = standard_steps(species)
        return each_alone(standard.steps), standard.left_out
    steps = parse_steps(post)
    if not steps:
        raise ConfigError("--post", "names no step", "leave it out to try every kind of step")
    return pipeline_parts(steps), ()


def _submission(settings: AblationSettings) -> tuple[Subject, tuple[str, ...]]:
    """Return what is tried, and a line for each thing that was left out of the truth."""
    assert settings.submission is not None
    assert settings.truth is not None
    tables = read_matched(settings.submission, settings.truth, settings.bundle, settings.taxonomy)
    given = tables.given
    check_probabilities(given, "try steps on what predict writes, without post-processing")
    files = rows_by_file(given.row_ids, settings.submission)
    stem_of = {row: file.stem for file in files for row in file.rows.tolist()}
    stems = [stem_of[row] for row in tables.rows.tolist()]
    subject = Subject(
        given.values.astype(np.float32),
        known_species(given.labels, settings.bundle, settings.taxonomy),
        files,
        tables.rows,
        tables.columns,
        labelled_rows(tables.truth.values == 1, stems),
    )  # all rows of the submission: those without truth are neighbours of others
    return subject, tables.notes


def _out_of_fold(settings: AblationSettings) -> Subject:
    """Each clip is a file of one row; clips of one recording are resampled together."""
    assert settings.oof is not None
    clips = read_out_of_fold(settings.oof)
    return Subject(
        clips.probabilities,
        known_species(clips.labels, settings.bundle, settings.taxonomy),
        [FileRows(Path(name).stem, np.array([row])) for row, name in enumerate(clips.filenames)],
        np.arange(len(clips.filenames)),
        np.arange(len(clips.labels)),
        labelled_rows(clips.truth, clips.groups),
    )


_NUMBERS = ("macro AUC", "gain", "95 % interval", "better", "worse", "ms/1,000 rows")
_COLOURS = {"take": "green", "promising": "yellow", "leave: worse": "red"}


def print_ablation(ablation: Ablation, notes: Sequence[str], of_what: str = "without post-processing") -> None:
    """Print the table and the recommendation to standard output, reservations and ``notes`` to standard error."""
    console = stdout()
    console.print(
        f"[bold]macro ROC-AUC  {ablation.macro_auc:.4f}[/] {of_what}: {ablation.n_rows} rows of "
        f"{ablation.n_files} files, {ablation.n_scored} classes scored"
    )
    table = ablation_table(ablation)
    if table.row_count:
        console.print(table)
    for line in recommendation(ablation):
        console.print(escape(line))
    for line in notes:
        stderr().print(escape(line))
    for line in reservations(ablation):
        stderr().print(f"[yellow]{escape(line)}[/]")


def ablation_table(ablation: Ablation) -> Table:
    """Make a table with a line for each trial that changes the order of rows: first single steps, by gain.

    Gain is macro AUC less that without the step, with an interval of 95 %; better and worse are shares of the scored
    classes.
    """
    table = make_table(("step", "tried", *_NUMBERS, "conclusion"), _NUMBERS)
    for trial in shown_trials(ablation):
        colour = _COLOURS.get(trial.conclusion)
        conclusion = conclusion_text(trial, ablation)
        table.add_row(
            escape(trial.name), trial.how, *_cells(trial), f"[{colour}]{conclusion}[/]" if colour else conclusion
        )
    return widen(table)


def shown_trials(ablation: Ablation) -> list[Trial]:
    """Return the trials in the table's order, without those that change no order of rows."""
    moving = [trial for trial in ablation.trials if trial.conclusion is not Conclusion.no_change]
    alone = sorted((trial for trial in moving if trial.how == "alone"), key=lambda trial: -trial.gain)
    return alone + [trial for trial in moving if trial.how != "alone"]


def conclusion_text(trial: Trial, ablation: Ablation) -> str:
    """Describe a conclusion with its reason."""
    if trial.conclusion is Conclusion.promising:
        return f"promising: excludes zero alone, not among {ablation.n_counted} tried"
    return str(trial.conclusion)


def recommendation(ablation: Ablation) -> list[str]:
    """List what to do, a line each."""
    taken = dict.fromkeys(trial.name for trial in shown_trials(ablation) if trial.conclusion is Conclusion.take)
    still = dict.fromkeys(trial.name for trial in ablation.trials if trial.conclusion is Conclusion.no_change)
    lines = [f"take: {'; '.join(taken)}" if taken else "nothing is recommended"]
    if len(taken) > 1 and all(trial.how == "alone" for trial in ablation.trials):
        lines.append("each was tried alone: to see what they give together, name them with --post")
    return lines + ([f"change no order of rows here: {'; '.join(still)}"] if still else [])


def reservations(ablation: Ablation) -> list[str]:
    """List what weakens the conclusions, a line each."""
    n_informative, most = ablation.n_informative, max_attempts(ablation.n_informative)
    if n_informative == 1:
        return [
            "all positives are in one file, which cannot be resampled: there are no intervals, and nothing is "
            "recommended"
        ]
    is_every = n_informative == ablation.n_files
    of_all = "" if is_every else f" with a scored species (of {ablation.n_files})"
    files = f"{n_informative} files{of_all}"
    lines = [f"{files} are few: the intervals are rough"] if n_informative < ROUGH_BELOW_FILES else []
    if ablation.n_counted > most:
        able = f"carry {most} trials at most, not {ablation.n_counted}" if most else "are too few for any trial"
        hint = "name fewer steps with --post, or label more files" if most else "label more files"
        lines.append(f"{files} {able}: nothing is recommended; {hint}")
    return lines


def ablation_json(ablation: Ablation, left_out: Sequence[str]) -> str:
    """Return an ablation as one line; an interval that does not exist is null."""
    line = msgspec.to_builtins(ablation) | {
        "recommended": [trial.name for trial in ablation.trials if trial.conclusion is Conclusion.take],
        "not_tried": list(left_out),
        "reservations": reservations(ablation),
    }
    return json.dumps(line)


def _cells(trial: Trial) -> tuple[str, ...]:
    interval = "-" if trial.interval is None else "{:+.4f} .. {:+.4f}".format(*trial.interval)
    return (
        f"{trial.macro_auc:.4f}",
        f"{trial.gain:+.4f}",
        interval,
        f"{trial.better:.0%}",
        f"{trial.worse:.0%}",
        f"{trial.ms_per_thousand_rows:.1f}",
    )
