"""Which species may be detected: those on a list, and those that occur where and when a recording was made.

In: the species of a bundle, a list of names, a location model. Out: per recording which columns count. A species that
the location model does not know is kept: it says nothing about it.
"""

import difflib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from birdinfer.detections.location_model import LocationModel, check_place, week_of
from birdinfer.detections.recordings import Recording
from birdinfer.errors import ConfigError, LabelError
from birdinfer.inference.external.label_lists import ListedLabel, read_names
from birdinfer.inference.external.synonyms import newest_name
from birdinfer.species import Species, SpeciesNames, fold_name
from birdinfer.tables.cells import near_miss, plain_label
from birdinfer.typing import Bool

_COMMENT = "#"
_SHOWN = 5
_ALIKE = 0.85
"""Ratio of difflib from which on a name is taken for a misspelled one."""
_GENDER = re.compile("(us|um|a|is|e)$")
"""Endings of an epithet that change with the genus: ``Sitta caeruleus``, ``Sylvia caerulea``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterSettings:
    """Which species may be detected; all of them by default."""

    species_list: Path | None = None
    """Labels, codes, scientific or common names, one a line, or a table with such a column."""
    location_model: Path | None = None
    """An ONNX graph [latitude, longitude, week] -> probability of each species, as BirdNET's."""
    location_labels: Path | None = None
    """The species of the graph's columns; None: a list beside it, see :func:`find_labels`."""
    latitude: float | None = None
    """In degrees north, for all recordings; None: each recording's own."""
    longitude: float | None = None
    """In degrees east."""
    week: int | None = None
    """1 to 48, four in each month; None: that of each recording's date, or the whole year where it has none."""
    min_occurrence: float = 0.03
    """Least probability with which a species occurs, 0 to 1."""


@dataclass(frozen=True, slots=True)
class SpeciesList:
    """The species of a bundle that a list names."""

    path: Path
    labels: tuple[str, ...]
    """In the bundle's order, at least one."""
    unknown: tuple[str, ...] = ()
    """What else it names, with a species of the bundle that may be meant; those without one last."""

    def problem(self) -> str:
        """Say what the bundle does not know, in one line; "" if it knows everything."""
        if not self.unknown:
            return ""
        more = ", ..." if len(self.unknown) > _SHOWN else ""
        names = ", ".join(self.unknown[:_SHOWN])
        return f"{self.path}: {len(self.unknown)} of its names are no species of the bundle: {names}{more}"


def read_species_list(path: Path, species: Sequence[Species]) -> SpeciesList:
    r"""Find the species that a list names by label or code, scientific name or its synonym, common name.

    Names are compared without regard to case, spaces and underscores; a name that several species share means all of
    them. Blank lines and those that begin with ``#`` are skipped. ``Turdus merula_Eurasian Blackbird``, BirdNET's form,
    is read by either half.

    >>> Path("list.txt").write_text("# seen in May\nTurdus merula\nSitta caeruleus\n")
    44
    >>> bundle = [Species("eurbla", "Turdus merula"), Species("blutit", "Cyanistes caeruleus")]
    >>> found = read_species_list(Path("list.txt"), bundle)
    >>> found.labels, found.unknown
    (('eurbla',), ("'Sitta caeruleus' (perhaps 'Cyanistes caeruleus')",))

    Raises:
        InputNotFoundError: there is no such file.
        LabelError: it is no list, or names no species of the bundle.
    """
    names, newest, found = SpeciesNames(species), _by_newest_name(species), set[str]()
    unknown: dict[str, None] = {}
    for listed in read_names(path, "it lists species, one a line"):
        if not listed.label or listed.label.startswith(_COMMENT):
            continue
        labels = _labels_of(listed, names) or _synonyms_of(listed, newest)
        found.update(labels)
        if not labels:
            unknown[listed.scientific_name or listed.label] = None
    known = tuple(label for label in names.labels if label in found)
    nearest = _NearestSpecies(species)
    described = sorted(map(nearest.describe, unknown), key=lambda text: not text.endswith(")"))
    if not known:
        what = f"names no species of the bundle ({', '.join(described[:_SHOWN]) or 'it is empty'})"
        raise LabelError(path, what, "labels, scientific and common names are read, one a line")
    return SpeciesList(path, known, tuple(described))


class SpeciesFilter:
    """Says which species may be detected in a recording."""

    def __init__(self, species: Sequence[Species], settings: FilterSettings) -> None:
        """Read the list and load the location model.

        Raises:
            InputNotFoundError: one of the files is not there.
            ConfigError: position, week or least occurrence are none; they are given without a location model.
            LabelError: list or location model know none of the species.
            BundleError: the location model is no such graph.
            MissingExtraError: onnxruntime is not installed.
        """
        _check(settings)
        self._settings = settings
        listed = read_species_list(settings.species_list, species) if settings.species_list else None
        self.labels = tuple(each.label for each in species) if listed is None else listed.labels
        """Species that are on the list, in the bundle's order; without one, all."""
        wanted = set(self.labels)
        self._is_listed = np.array([each.label in wanted for each in species])
        self._model = None
        if settings.location_model is not None:
            self._model = LocationModel(settings.location_model, species, settings.location_labels)
        notes = (listed.problem() if listed else "", self._model.problem() if self._model else "")
        self.notes = tuple(filter(None, notes))
        """What is to be known before the run, a line each."""
        self._known: dict[tuple[float, float, int | None], Bool] = {}
        self._without_place: set[str] = set()

    def place_problem(self) -> str:
        """Say of how many recordings so far no position is known, in one line; "" if the model knew all of them."""
        if not self._without_place:
            return ""
        n_recordings = len(self._without_place)
        what = f"no position is known of {n_recordings} recordings, species of all places are kept"
        return f"--location-model: {what} - give --lat and --lon"

    def allowed(self, recording: Recording) -> Bool:
        """Return which species [species] may be detected in a recording.

        Its own position and date are used where the settings have none; without a position its list alone counts.
        """
        settings = self._settings
        latitude, longitude = settings.latitude, settings.longitude
        if latitude is None:
            latitude, longitude = recording.latitude, recording.longitude
        if self._model is None:
            return self._is_listed
        if latitude is None or longitude is None:
            self._without_place.add(recording.name)
            return self._is_listed
        week = settings.week or (None if recording.start is None else week_of(recording.start.date()))
        place = (latitude, longitude, week)
        if place not in self._known:
            occurs = self._model.occurrence(latitude, longitude, week)
            self._known[place] = self._is_listed & ~(occurs < settings.min_occurrence)  # NaN is kept
        return self._known[place]


def _check(settings: FilterSettings) -> None:
    place = {"--lat": settings.latitude, "--lon": settings.longitude, "--week": settings.week}
    given = [option for option, value in place.items() if value is not None]
    if given and settings.location_model is None:
        raise ConfigError(given[0], "is for a location model, none is given", "name one with --location-model")
    if (settings.latitude is None) != (settings.longitude is None):
        raise ConfigError("--lat", "a position takes --lat and --lon", "give both, or none for the recordings' own")
    check_place(settings.latitude, settings.longitude, settings.week)
    if not 0 <= settings.min_occurrence <= 1:
        raise ConfigError("--min-occurrence", f"is {settings.min_occurrence:g}, allowed are 0 to 1")


def _by_newest_name(species: Sequence[Species]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for each in species:
        found[newest_name(each.scientific_name or each.label)].append(each.label)
    return {name: tuple(labels) for name, labels in found.items()}


def _synonyms_of(listed: ListedLabel, newest: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """List the labels whose species goes by another scientific name elsewhere."""
    texts = (listed.scientific_name, listed.label.partition("_")[0], listed.label)
    return next((newest[name] for text in texts if text and (name := newest_name(text)) in newest), ())


def _labels_of(listed: ListedLabel, names: SpeciesNames) -> tuple[str, ...]:
    """List the labels that the first of an entry's texts with a meaning has."""
    halves = listed.label.split("_", 1) if "_" in listed.label else ()
    texts = (listed.label, *listed.codes, listed.scientific_name, listed.common_name, *halves)
    return next((labels for text in texts if text and (labels := names.find(text))), ())


class _NearestSpecies:
    """Finds what is meant by a name that no species has: another spelling, a misspelled word, an older genus."""

    def __init__(self, species: Sequence[Species]) -> None:
        self._labels: dict[str, list[str]] = defaultdict(list)
        self._sharing: dict[str, dict[str, str]] = defaultdict(dict)
        """Word -> the names that it stands in, by how they are compared."""
        self._epithets: dict[str, set[str]] = defaultdict(set)
        for each in species:
            self._labels[plain_label(each.label)].append(each.label)
            self._epithets[_epithet(each.scientific_name)].add(each.scientific_name)
        for name in SpeciesNames(species).texts:
            for word in fold_name(name).split():
                self._sharing[word][fold_name(name)] = name

    def describe(self, name: str) -> str:
        """Quote a name, with the species that may be meant."""
        meant = near_miss(name, self._labels.get(plain_label(name), ()))
        if not meant and (near := self._misspelled(fold_name(name)) or self._renamed(name)):
            meant = f"perhaps {near!r}"
        return f"{name!r} ({meant})" if meant else repr(name)

    def _misspelled(self, name: str) -> str:
        sharing = {folded: known for word in name.split() for folded, known in self._sharing.get(word, {}).items()}
        near = difflib.get_close_matches(name, sharing, n=1, cutoff=_ALIKE)
        return sharing[near[0]] if near else ""

    def _renamed(self, name: str) -> str:
        """The one species with the same epithet in another genus: most synonyms are such."""
        epithet = _epithet(name)
        alike = self._epithets.get(epithet, set()) if epithet else set()
        return next(iter(alike)) if len(alike) == 1 else ""


def _epithet(name: str) -> str:
    """The second word of a scientific name without the ending of its gender; "" for what is none."""
    words = fold_name(name).split()
    return _GENDER.sub("", words[1]) if len(words) == 2 else ""
