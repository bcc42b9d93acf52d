"""Where and when -> how likely each species occurs, by a graph that the user has, such as BirdNET's geographic model.

In: latitude and longitude in degrees and a week, 1 to 48, four in each month. Out: probabilities in the columns of a
bundle, float32 [species], NaN for a species that the model does not know. The graph takes ``[1, 3]`` and returns
``[1, species]``, probabilities already; which species its columns are says a list beside it: ``code, scientific name,
common name`` separated by tabs, ``Scientific name_Common name``, or a table with a header.
"""

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from birdinfer.errors import BundleError, ConfigError, InputNotFoundError, LabelError
from birdinfer.inference.engines.onnxruntime import open_session, read_facts
from birdinfer.inference.external.label_lists import ListedLabel, read_label_list
from birdinfer.species import Species, fold_name
from birdinfer.tables.csv import text_lines
from birdinfer.typing import Float32

WEEKS = range(1, 49)
_DAYS_OF_WEEK = 7
_ROUNDING = 1e-3
_PRECISION = re.compile(r"[-_](fp|int)\d+$", re.IGNORECASE)
"""``geomodel_fp16.onnx`` shares its list with ``geomodel.onnx``."""
_LIST_ENDINGS = (".txt", ".csv", ".tsv")


class LocationModel:
    """A graph that says which species occur where and when."""

    def __init__(self, path: Path, species: Sequence[Species], labels: Path | None = None) -> None:
        """Load a graph and match its columns to the species by scientific, else by common name.

        ``labels`` lists the species of its columns; None: see :func:`find_labels`.

        Raises:
            InputNotFoundError: the graph, or its list, is not there.
            BundleError: it is no graph that takes latitude, longitude and week.
            LabelError: its list has another length than its output, or none of the species.
            MissingExtraError: onnxruntime is not installed.
        """
        if not path.is_file():
            raise InputNotFoundError(path, "no such file", "name an ONNX graph that takes latitude, longitude, week")
        self._path, self._session = path, open_session(path, ["CPUExecutionProvider"])
        self._facts = read_facts(self._session)
        shape = self._facts.input_shape
        if len(self._session.get_inputs()) != 1 or len(shape) != 2 or shape[1] not in (3, None):
            raise BundleError(path, "does not take [1, 3]: latitude, longitude, week", "name a location model")
        self._labels = labels or find_labels(path)
        self._listed = _read_list(self._labels)
        n_columns = len(self._run(0.0, 0.0, 1))
        if n_columns != len(self._listed):
            what = f"lists {len(self._listed)} species, {path.name} has {n_columns}"
            raise LabelError(self._labels, what, "name its own list with --location-labels")
        self._columns = _match(species, self._listed)
        if not any(self._columns):
            raise LabelError(self._labels, "lists no species of the bundle", "names are compared, not codes")

    def problem(self) -> str:
        """Say how many species it does not know, in one line; "" if it knows all."""
        n_unknown = sum(not columns for columns in self._columns)
        if not n_unknown:
            return ""
        return f"{self._path}: {n_unknown} of {len(self._columns)} species are not in it, they are detected everywhere"

    def occurrence(self, latitude: float, longitude: float, week: int | None) -> Float32:
        """Return the probability with which each species occurs [species], NaN where it is not known.

        ``week``: 1 to 48; None: the whole year, that is the highest of all weeks.
        """
        weeks = WEEKS if week is None else (week,)
        found = np.max([self._run(latitude, longitude, each) for each in weeks], axis=0)
        known = [found[columns].max() if columns else np.nan for columns in self._columns]
        return np.array(known, np.float32)

    def _run(self, latitude: float, longitude: float, week: int) -> Float32:
        place = np.array([[latitude, longitude, week]], np.float32)
        try:
            (output, *_) = self._session.run(None, {self._facts.input_name: place})
        except Exception as error:  # onnxruntime's own exception classes share no base but Exception
            raise BundleError(self._path, f"cannot be run on latitude, longitude and week ({error})") from error
        if output.ndim != 2 or len(output) != 1:
            raise BundleError(self._path, f"returns {list(output.shape)}, needed is [1, species]")
        if not (output.min() >= -_ROUNDING and output.max() <= 1 + _ROUNDING):  # also true for NaN
            what = f"returns values from {output.min():.3g} to {output.max():.3g}, needed are probabilities"
            raise BundleError(self._path, what, "export it with a sigmoid at its end")
        return np.asarray(output[0], np.float32)


def week_of(day: date) -> int:
    """Return the week of a day, 1 to 48: every month has four, the last of 7 to 10 days.

    >>> week_of(date(2026, 5, 1)), week_of(date(2026, 5, 31))
    (17, 20)
    """
    return (day.month - 1) * 4 + min(3, (day.day - 1) // _DAYS_OF_WEEK) + 1


def check_place(latitude: float | None, longitude: float | None, week: int | None) -> None:
    """Raise ConfigError for a position that is not on the globe, or a week that is not one of 48."""
    for option, value, most in (("--lat", latitude, 90), ("--lon", longitude, 180)):
        if value is not None and not -most <= value <= most:
            raise ConfigError(option, f"is {value:g}, allowed are -{most} to {most} degrees")
    if week is not None and week not in WEEKS:
        raise ConfigError("--week", f"is {week}, allowed are 1 to 48: four in each month")


def find_labels(model: Path) -> Path:
    """Find the list of species beside a graph: ``NAME.txt``, ``NAME_labels.txt``, ``labels.txt``, or .csv or .tsv.

    ``_fp16`` and the like at the end of the graph's name are no part of NAME; case has no meaning.

    Raises:
        InputNotFoundError: there is none.
    """
    stem = _PRECISION.sub("", model.stem)
    stems = (model.stem, stem, f"{model.stem}_labels", f"{stem}_labels", "labels")
    there = {path.name.casefold(): path for path in sorted(model.parent.iterdir()) if path.is_file()}
    for name in (f"{each}{ending}".casefold() for each in stems for ending in _LIST_ENDINGS):
        if name in there:
            return there[name]
    what = f"there is no list of its species beside it ({stem}_labels.txt, labels.txt)"
    raise InputNotFoundError(model, what, "name it with --location-labels")


def _read_list(path: Path) -> list[ListedLabel]:
    if not path.is_file():
        raise InputNotFoundError(path, "no such file", "it lists the species of the location model, one a line")
    cells = [line.split("\t") for line in text_lines(path) if line.strip()]
    # BirdNET's has no header, and two codes may share their names.
    if cells and all(len(row) == 3 for row in cells):
        return [ListedLabel(line, code, name, common) for line, (code, name, common) in enumerate(cells, 1)]
    return read_label_list(path)


def _match(species: Sequence[Species], listed: Sequence[ListedLabel]) -> list[list[int]]:
    """List the columns of each species: those with its scientific name, else with its common name."""
    scientific: dict[str, list[int]] = {}
    common: dict[str, list[int]] = {}
    for column, each in enumerate(listed):
        scientific.setdefault(fold_name(each.scientific_name or each.label), []).append(column)
        common.setdefault(fold_name(each.common_name), []).append(column)
    common.pop("", None)
    return [
        scientific.get(fold_name(each.scientific_name or each.label.partition("_")[0]))
        or common.get(fold_name(each.common_name or each.label.partition("_")[2]), [])
        for each in species
    ]
