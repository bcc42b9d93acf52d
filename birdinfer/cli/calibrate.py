"""``birdinfer calibrate``: reviews of detections -> thresholds for a wanted precision, stored in the bundle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from birdinfer.cli.console import make_table, needing, shown, stderr, stdout, widen
from birdinfer.cli.options import bundle_folder
from birdinfer.cli.score_tables import read_matched
from birdinfer.detections.formats.cells import shown_names
from birdinfer.errors import ConfigError, MetadataError
from birdinfer.evaluation.calibrate import (
    Calibrated,
    CalibrationSettings,
    Fit,
    Refusal,
    calibrate_reviews,
    calibration_of,
    store_calibration,
)
from birdinfer.inference.bundle import Bundle
from birdinfer.species import Species
from birdinfer.system.outputs import PICTURE, check_outputs
from birdinfer.tables.reviews import Reviews, read_reviews, reviews_of_truth
from birdinfer.tables.scores import check_probabilities, rows_by_file

_LISTED = 10
"""Species without a curve, those with the most reviews."""
_LEAST = 0.1


def calibrate(
    reviews: Annotated[list[Path], typer.Argument(
        metavar="REVIEWS", help="Tables of reviewed detections, as the page of birdinfer detect exports them: label, "
        "confidence, 'verdict' (right, wrong, unsure), file. With --truth: the scores that birdinfer predict wrote.")],
    bundle: Annotated[Path | None, typer.Option(
        help="The bundle that detected; the newest in exports/ if left out.")] = None,
    precision: Annotated[float, typer.Option(help="Share of the detections at a threshold that are right.")] = 0.9,
    min_reviews: Annotated[int, typer.Option(help="Reviews that a species needs for a threshold of its own.")] = 30,
    truth: Annotated[Path | None, typer.Option(
        help="Who is present when, as for birdinfer score: each score is a reviewed detection.")] = None,
    min_confidence: Annotated[float | None, typer.Option(
        min=0, max=1, help="With --truth: lower scores are no detections.", show_default=f"{_LEAST}")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw how often which confidence is right: a PNG.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the thresholds, store nothing.")] = False,
    resamples: Annotated[int, typer.Option(help="How often recordings are resampled for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
) -> None:  # fmt: skip
    """Find from reviews the confidence from which on detections are right, and store it in the bundle.

    Species with enough reviews have a threshold of their own, the others that of their class, each with a 90 % interval
    from a bootstrap over recordings. Reviews that show none are refused, with what to review next.
    """
    settings = CalibrationSettings(
        precision=precision, min_reviews=min_reviews, n_resamples=resamples, seed=seed
    )  # fmt: skip
    if min_confidence is not None and truth is None:
        raise ConfigError("--min-confidence", "goes with --truth alone", "leave it out: reviews count as they are")
    inputs = [*reviews, *([truth] if truth else [])]
    check_outputs([(plot, PICTURE)] if plot else [], inputs)
    loaded = Bundle.load(bundle_folder(bundle))
    if truth is None:
        read = read_reviews(reviews, loaded.manifest.species)
    else:
        read = _read_truth(reviews, truth, loaded, _LEAST if min_confidence is None else min_confidence)
    calibrated = calibrate_reviews(read, loaded.manifest.species, settings)
    for line in read.notes:
        stderr().print(f"[yellow]{shown(line)}[/]")
    if not calibrated.species and not calibrated.classes:
        raise _nothing_known(reviews[0], calibrated)
    if plot:
        _draw(plot, calibrated, loaded.manifest.species)
    if not dry_run:
        store_calibration(loaded, calibrated, lambda line: stderr().print(shown(line)))
    _print_curves(calibrated)
    _print_refused(calibrated)
    calibration = calibration_of(calibrated, loaded.manifest)
    curves = [calibration.curve_of(species) for species in loaded.manifest.species]
    n_own, n_none = len(calibration.species), curves.count(None)
    n_pooled = len(curves) - n_own - n_none
    stdout().print(f"{n_own} species have a threshold of their own, {n_pooled} that of their class, {n_none} none")
    stdout().print(f"{'not stored in' if dry_run else 'stored in'} {shown(str(loaded.folder))}")


def _read_truth(scores: Sequence[Path], truth: Path, bundle: Bundle, least: float) -> Reviews:
    if len(scores) > 1:
        raise ConfigError("--truth", f"goes with one table of scores, not with {len(scores)}", "name one of them")
    tables = read_matched(scores[0], truth, bundle.folder)
    check_probabilities(tables.given, "birdinfer predict writes scores from 0 to 1")
    recordings = np.empty(len(tables.given.row_ids), object)
    for stem, rows in rows_by_file(tables.given.row_ids, scores[0]):
        recordings[rows] = stem
    column = {label: index for index, label in enumerate(bundle.labels)}
    species = np.array([column[label] for label in tables.truth.labels], np.intp)
    cells = reviews_of_truth(tables.scores, tables.truth.values > 0, recordings[tables.rows].tolist(), least)
    return Reviews(
        confidences=cells.confidences, right=cells.right, species=species[cells.species],
        recordings=cells.recordings, notes=tables.notes,
    )  # fmt: skip


def _nothing_known(where: Path, calibrated: Calibrated) -> MetadataError:
    refused = _by_reviews(calibrated.refused_species)
    if not refused:
        return MetadataError(where, "holds no review that is right or wrong", "review detections on the page")
    label, most = refused[0]
    more = f", and {len(refused) - 1} others" if len(refused) > 1 else ""
    return MetadataError(where, f"show no threshold: {label}: {most.reason}{more}", most.next_step)


def _titles(calibrated: Calibrated) -> dict[str, Fit]:
    return {**calibrated.species, **{_class_title(name): fit for name, fit in calibrated.classes.items()}}


def _draw(plot: Path, calibrated: Calibrated, species: Sequence[Species]) -> None:
    names = shown_names(species)
    with needing("report", "matplotlib"):
        from birdinfer.plots.reliability import draw_reliability

        fits = {names.get(title, title): fit for title, fit in _titles(calibrated).items()}
        draw_reliability(plot, fits, calibrated.precision)


def _print_curves(calibrated: Calibrated) -> None:
    table = make_table(
        ("", "reviews", "right", "recordings", "threshold", "90 %", "next"),
        ("reviews", "right", "recordings", "threshold"),
    )
    for title, fit in _titles(calibrated).items():
        curve = fit.curve
        low, high = map(_number, curve.threshold_interval)
        counts = (curve.n_right + curve.n_wrong, curve.n_right, curve.n_files)
        table.add_row(shown(title), *map(str, counts), _number(curve.threshold), f"{low} to {high}", fit.next_step)
    stdout().print(f"[bold]confidence from which on {100 * calibrated.precision:g} % of the detections are right[/]")
    stdout().print(widen(table))


def _print_refused(calibrated: Calibrated) -> None:
    refused = _by_reviews(calibrated.refused_species)
    for label, refusal in refused[:_LISTED]:
        unlike = ", unlike its class" if label in calibrated.unlike_class else ""
        stderr().print(f"[yellow]{shown(label)}: {refusal.reason}{unlike}[/] - {refusal.next_step}")
    if len(refused) > _LISTED:
        stderr().print(f"[yellow]{len(refused) - _LISTED} further species have no threshold of their own[/]")
    for name, refusal in calibrated.refused_classes.items():
        stderr().print(f"[yellow]{_class_title(name)}: {refusal.reason}[/] - {refusal.next_step}")


def _number(threshold: float | None) -> str:
    return "none" if threshold is None else f"{threshold:.2f}"


def _class_title(name: str) -> str:
    return f"all {name or 'of no class'}"


def _by_reviews(refused: Mapping[str, Refusal]) -> list[tuple[str, Refusal]]:
    return sorted(refused.items(), key=lambda each: -each[1].n_reviews)
