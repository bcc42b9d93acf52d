"""Read reviews of detections: who was right -> the confidence of each, its species and recording, right or wrong.

Two sources: tables of reviewed detections, as the page of ``birdinfer detect`` exports them, and a score table with its
truth, each of whose cells is a detection that the truth answers. Unsure ones and those without an answer are left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from birdinfer.errors import LabelError, MetadataError
from birdinfer.species import Species, SpeciesNames
from birdinfer.tables.cells import flag_of, is_blank, near_miss, number_of
from birdinfer.tables.csv import check_columns, csv_rows, numbered
from birdinfer.tables.recordings import spelled
from birdinfer.typing import Bool, Float64, Index

ANSWER = "verdict"
_NEEDED = ("label", "confidence", ANSWER)
_RECORDING = ("file", "recording")
_RIGHT = {"right": True, "wrong": False}
_UNSURE = "unsure"
_HINT = "the page of birdinfer detect exports such a table"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reviews:
    """Reviewed detections, [reviews] each."""

    confidences: Float64
    """0 to 1."""
    right: Bool
    species: Index
    """Columns of the bundle."""
    recordings: Index
    """From 0."""
    notes: tuple[str, ...] = ()
    """What was left out, a line each."""


def read_reviews(paths: Sequence[Path], species: Sequence[Species]) -> Reviews:
    """Read tables of reviewed detections; an event that stands in several counts once.

    Args:
        paths: tables with the columns ``label``, ``confidence``, ``'verdict'`` (right, wrong, unsure or empty) and
            ``file`` or ``recording``; with ``start`` and ``end`` an event is known again. Others are not read.
        species: of the bundle, which the tables may also call by their names.

    Raises:
        InputNotFoundError: there is no such file.
        MetadataError: one lacks a column, or holds what is no answer or no confidence; with the row.
        LabelError: a label is no species of the bundle, or that of two.
    """
    names = SpeciesNames(species)
    answers: dict[_Event, tuple[float, bool | None]] = {}
    left_out: Counter[str] = Counter()
    for event, confidence, answer in (row for path in paths for row in _answered(path, names)):
        if isinstance(answer, str):
            left_out[answer] += 1
        elif event not in answers:
            answers[event] = confidence, answer
        elif answers[event][1] == answer:
            left_out["reviewed twice"] += 1
        else:
            answers[event] = confidence, None
    known = {event: each for event, each in answers.items() if each[1] is not None}
    left_out["right in one row and wrong in another"] = len(answers) - len(known)
    column = {label: index for index, label in enumerate(names.labels)}
    return Reviews(
        confidences=np.array([confidence for confidence, _ in known.values()]),
        right=np.array([answer for _, answer in known.values()], np.bool_),
        species=np.array([column[event.label] for event in known], np.intp),
        recordings=_numbers(event.recording for event in known),
        notes=tuple(f"left out: {times} {what}" for what, times in left_out.items() if times),
    )


class _Event(NamedTuple):
    recording: str
    label: str
    place: tuple[str, ...]
    """Recording (a file may have one of each channel), start and end; table and row where these are not known."""


def _answered(path: Path, names: SpeciesNames) -> Iterator[tuple[_Event, float, bool | str]]:
    """Yield the event of each row, its confidence, and whether it is right or why it does not count."""
    with csv_rows(path, _HINT, _NEEDED) as rows:
        header = next(rows, [])
        check_columns(path, header, _NEEDED)
        recording = next((name for name in _RECORDING if name in header), None)
        if recording is None:
            raise MetadataError(path, f"has no column {' or '.join(_RECORDING)}", _HINT)
        for number, row in numbered(rows):
            cells = dict(zip(header, row, strict=True))
            if not cells[recording].strip():
                raise MetadataError(path, f"row {number} names no {recording}")
            times = tuple(cells[name] for name in ("start", "end") if name in cells)
            place = (cells.get("recording", ""), *times) if times else (str(path), str(number))
            event = _Event(spelled(cells[recording]), _label(path, number, cells["label"], names), place)
            yield event, _confidence(path, number, cells["confidence"]), _answer(path, number, cells[ANSWER])


def reviews_of_truth(scores: Float64, truth: Bool, recordings: Sequence[str], least: float) -> Reviews:
    """Take the cells of a score table as reviewed detections.

    Args:
        scores: 0 to 1, [rows, species].
        truth: whether the species is there, [rows, species].
        recordings: name of the recording of each row.
        least: lower scores are no detections.
    """
    rows, species = np.nonzero(scores >= least)
    return Reviews(
        confidences=scores[rows, species],
        right=truth[rows, species],
        species=species,
        recordings=_numbers(recordings)[rows],
    )


def _numbers(names: Iterable[str]) -> Index:
    number: dict[str, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], np.intp)


def _answer(path: Path, number: int, cell: str) -> bool | str:
    """Whether the detection is right, or why it does not count."""
    text = cell.strip().casefold()
    if is_blank(text):
        return "without an answer"
    if text == _UNSURE:
        return _UNSURE
    answer = _RIGHT.get(text, flag_of(text))
    if answer is None:
        raise MetadataError(path, f"row {number} holds {cell[:40]!r} as {ANSWER}", "right, wrong or unsure is needed")
    return answer


def _confidence(path: Path, number: int, cell: str) -> float:
    confidence = number_of(cell)
    if not 0 <= confidence <= 1:
        raise MetadataError(path, f"row {number} holds {cell[:40]!r} as confidence", "a number from 0 to 1 is needed")
    return confidence


def _label(path: Path, number: int, cell: str, names: SpeciesNames) -> str:
    text = cell.strip()
    found = names.find(text)
    if len(found) != 1:
        near = near_miss(text, names.labels)
        what = " and ".join(map(repr, found[:2])) if found else near or "no species of the bundle"
        raise LabelError(path, f"row {number}: {text!r} is {what}", "reviews of one bundle calibrate that bundle")
    return found[0]
