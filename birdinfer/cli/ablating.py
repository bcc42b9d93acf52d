"""``birdinfer score --ablate``: tables on disk and steps as text -> an ablation as a table, as JSON, as a picture.

The scores are a submission with its truth, or the out-of-fold scores of a run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

if TYPE_CHECKING:
    from birdinfer.ablation.ablate import Ablation, Attempt, Subject
    from birdinfer.labels import Species

_CLIPS_ARE_ROWS = (
    "each clip is a file of one row: steps over time find no neighbours; clips of one group are resampled together"
)


class Asked(NamedTuple):
    """What the command line asks for."""

    submission: Path | None
    truth: Path | None
    oof: Path | None
    """Instead of the two tables."""
    post: tuple[str, ...]
    bundle: Path | None
    taxonomy: Path | None
    resamples: int
    seed: int
    plot: Path | None


def run_ablation(asked: Asked, as_json: bool) -> None:
    """Try the steps and tell what came out.

    Raises:
        ConfigError: options contradict one another, a step cannot be used, or the resamples are too few.
        InputNotFoundError, MetadataError, LabelError, BundleError: a table or the bundle is missing or damaged.
        MissingExtraError: a picture is wanted and matplotlib is not there.
        OutputError: the picture cannot be written.
    """
    from birdinfer.ablation.ablate import ablate
    from birdinfer.cli.ablation_table import ablation_json, print_ablation

    _check(asked)
    subject = _out_of_fold(asked) if asked.oof else _submission(asked)
    attempts, left_out = _attempts(asked.post, subject.species)
    ablation = ablate(subject, attempts, asked.resamples, asked.seed)
    notes = [*([_CLIPS_ARE_ROWS] if asked.oof else []), *(f"not tried: {line}" for line in left_out)]
    if as_json:
        typer.echo(ablation_json(ablation, left_out))
    else:
        print_ablation(ablation, notes)
    if asked.plot:
        _draw(asked.plot, ablation)


def _check(asked: Asked) -> None:
    from birdinfer.cli.known_species import check_one_source
    from birdinfer.errors import ConfigError
    from birdinfer.files import check_writable

    tables = asked.submission, asked.truth
    if asked.oof and any(tables):
        raise ConfigError("--oof", "takes the place of submission and truth", "leave one of them out")
    if not asked.oof and not all(tables):
        remedy = "birdinfer score submission.csv truth.csv --ablate, or --ablate --oof runs/NAME"
        raise ConfigError("--ablate", "needs scores and their truth", remedy)
    check_one_source(asked.bundle, asked.taxonomy)
    if asked.plot and asked.plot.suffix.lower() != ".png":
        raise ConfigError("--plot", f"{asked.plot} does not end in .png", "pictures are PNG")
    if asked.plot:
        check_writable(asked.plot)


def _attempts(post: Sequence[str], species: "Sequence[Species]") -> tuple["list[Attempt]", tuple[str, ...]]:
    """What is tried, and what is not."""
    from birdinfer.ablation.attempts import each_alone, pipeline_parts, standard_steps
    from birdinfer.errors import ConfigError
    from birdinfer.postprocess.steps import parse_steps

    if not post:
        standard = standard_steps(species)
        return each_alone(standard.steps), standard.left_out
    steps = parse_steps(post)
    if not steps:
        raise ConfigError("--post", "names no step", "leave it out to try every kind of step")
    return pipeline_parts(steps), ()


def _submission(asked: Asked) -> "Subject":
    """All the submission's rows, for those without truth are neighbours of others."""
    import numpy as np

    from birdinfer.ablation.ablate import Subject, judged_rows
    from birdinfer.cli.known_species import known_species
    from birdinfer.cli.matched_tables import read_matched
    from birdinfer.tables.score_files import rows_by_file
    from birdinfer.tables.score_table import check_probabilities

    assert asked.submission is not None
    assert asked.truth is not None
    tables = read_matched(asked.submission, asked.truth)
    given = tables.given
    check_probabilities(given, "try steps on what predict writes, without post-processing")
    files = rows_by_file(given.row_ids, asked.submission)
    stem_of = {row: file.stem for file in files for row in file.rows.tolist()}
    stems = [stem_of[row] for row in tables.rows.tolist()]
    return Subject(
        given.values.astype(np.float32),
        known_species(given.labels, asked.bundle, asked.taxonomy),
        files,
        tables.rows,
        tables.columns,
        judged_rows(tables.truth.values == 1, stems),
    )


def _out_of_fold(asked: Asked) -> "Subject":
    """Each clip is a file of one row; clips of one recording are resampled together."""
    import numpy as np

    from birdinfer.ablation.ablate import Subject, judged_rows
    from birdinfer.ablation.out_of_fold import read_out_of_fold
    from birdinfer.cli.known_species import known_species
    from birdinfer.tables.score_files import FileRows

    assert asked.oof is not None
    clips = read_out_of_fold(asked.oof)
    return Subject(
        clips.probabilities,
        known_species(clips.labels, asked.bundle, asked.taxonomy),
        [FileRows(Path(name).stem, np.array([row])) for row, name in enumerate(clips.filenames)],
        np.arange(len(clips.filenames)),
        np.arange(len(clips.labels)),
        judged_rows(clips.truth, clips.groups),
    )


def _draw(path: Path, ablation: "Ablation") -> None:
    from birdinfer.errors import MissingExtraError

    try:
        from birdinfer.report.ablation_gains import draw_ablation
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "matplotlib", "report") from error
    draw_ablation(path, ablation)
