"""Facts of the report -> its tables: each is a CSV beside the page, and most are shown on it."""

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from birdinfer.report.survey import ClipFacts, Survey
from birdinfer.training.data.folds_file import ALWAYS_TRAINING, LEFT_OUT, TEST

Cell = str | int | float | None
FOLD_NAMES = {ALWAYS_TRAINING: "training only", TEST: "test", LEFT_OUT: "left out"}
UNKNOWN = "unknown"
_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
"""Edges of the classes of durations."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report."""

    name: str
    """Of its CSV, without the ending."""
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def column(self, name: str) -> list[Cell]:
        """One column's cells."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def make_tables(survey: Survey) -> dict[str, Table]:
    """Make all tables by name; those that need sound are there only if it was decoded."""
    made = [
        _species(survey), _durations(survey), _ratings(survey), _formats(survey), _by("authors", survey, _author),
        _by("collections", survey, _collection), _by("sites", survey, lambda each: each.clip.site),
        _months(survey), _hours(survey), _secondary(survey), _folds(survey), _duplicates(survey), _cuts(survey),
        _soundscapes(survey), *(_voices(survey) if survey.is_voice_known else ()), _clips(survey),
    ]  # fmt: skip
    return {table.name: table for table in made}


def fold_name(fold: int | None) -> str:
    """Name a fold as the report does."""
    return "" if fold is None else FOLD_NAMES.get(fold, f"fold {fold}")


def _author(each: ClipFacts) -> str:
    return each.clip.author


def _collection(each: ClipFacts) -> str:
    return each.clip.collection


def _minutes(clips: Iterable[ClipFacts]) -> float:
    return round(sum(each.seconds for each in clips) / 60, 2)


def _grouped(clips: Iterable[ClipFacts], key: Callable[[ClipFacts], str]) -> dict[str, list[ClipFacts]]:
    found: dict[str, list[ClipFacts]] = defaultdict(list)
    for each in clips:
        found[key(each)].append(each)
    return found


def _speech(clips: Iterable[ClipFacts]) -> float:
    return round(sum(each.sound.speech_seconds or 0.0 for each in clips if each.sound is not None) / 60, 2)


def _median_rating(clips: Iterable[ClipFacts]) -> float | None:
    rated = [each.clip.rating for each in clips if each.clip.rating is not None]
    return statistics.median(rated) if rated else None


def _species(survey: Survey) -> Table:
    of_label = _grouped(survey.clips, lambda each: each.clip.primary_label)
    secondary = Counter(label for each in survey.clips for label in each.clip.secondary_labels)
    columns = (
        "label", "clips", "minutes", "common_name", "authors", "top_author", "top_author_share", "independent_sets",
        "sites", "median_seconds", "rated", "median_rating", "as_secondary", "soundscape_seconds",
        *(("speech_minutes",) if survey.is_voice_known else ()), "scientific_name", "class_name",
    )  # fmt: skip
    rows = []
    for one in survey.listing.species:
        clips = of_label.get(one.label, [])
        authors = Counter(each.clip.author for each in clips if each.clip.author)
        top, n_top = authors.most_common(1)[0] if authors else ("", 0)
        rows.append((
            one.label, len(clips), _minutes(clips), one.common_name, len(authors), top,
            round(n_top / len(clips), 3) if n_top else None, survey.n_alone.get(one.label, 0),
            len({each.clip.site for each in clips} - {""}),
            round(statistics.median(each.seconds for each in clips), 2) if clips else None,
            sum(each.clip.rating is not None for each in clips), _median_rating(clips), secondary[one.label],
            survey.listing.soundscapes.labels[one.label], *((_speech(clips),) if survey.is_voice_known else ()),
            one.scientific_name, one.class_name,
        ))  # fmt: skip
    rows.sort(key=lambda row: (-row[1], row[0]))
    return Table("species", "Clips and minutes per species", columns, tuple(rows))


def _durations(survey: Survey) -> Table:
    known = [each for each in survey.clips if each.is_usable]
    edges = (0.0, *map(float, _SECONDS), float("inf"))
    rows = []
    for low, high in itertools.pairwise(edges):
        inside = [each for each in known if low <= each.seconds < high]
        name = f"from {low:g} s" if high == float("inf") else f"{low:g} - {high:g} s"
        rows.append((name, len(inside), _minutes(inside)))
    return Table("durations", "Durations", ("duration", "clips", "minutes"), tuple(rows))


def _ratings(survey: Survey) -> Table:
    counts = Counter(each.clip.rating for each in survey.clips)
    rated = sorted(rating for rating in counts if rating is not None)
    rows = [("unrated", counts[None]), *((f"{rating:g}", counts[rating]) for rating in rated)]
    return Table("ratings", "Ratings", ("rating", "clips"), tuple(rows))


def _formats(survey: Survey) -> Table:
    known = [each for each in survey.clips if each.is_usable]
    groups: dict[tuple[str, int, int], list[ClipFacts]] = defaultdict(list)
    for each in known:
        groups[each.file.path.suffix.lower(), each.file.sample_rate, each.file.channels].append(each)
    rows = [(*key, len(clips), _minutes(clips)) for key, clips in groups.items()]
    rows.sort(key=lambda row: -row[3])
    return Table(
        "formats", "Rates and channels", ("ending", "sample_rate", "channels", "clips", "minutes"), tuple(rows)
    )


def _by(name: str, survey: Survey, key: Callable[[ClipFacts], str]) -> Table:
    """Count clips, minutes and species of each author, collection or site."""
    singular = name.removesuffix("s")
    has_voice = survey.is_voice_known and name == "collections"
    columns = (
        singular, "clips", "share", "minutes", "species", "unrated", "median_rating",
        *(("clips_with_speech", "speech_minutes") if has_voice else ()),
    )  # fmt: skip
    rows = []
    for value, clips in _grouped(survey.clips, key).items():
        voices = (_with_speech(clips), _speech(clips)) if has_voice else ()
        rows.append((
            value or UNKNOWN, len(clips), round(len(clips) / len(survey.clips), 4), _minutes(clips),
            len({each.clip.primary_label for each in clips}), sum(each.clip.rating is None for each in clips),
            _median_rating(clips), *voices,
        ))  # fmt: skip
    rows.sort(key=lambda row: (-row[1], row[0]))
    return Table(name, name.capitalize(), columns, tuple(rows))


def _with_speech(clips: Iterable[ClipFacts]) -> int:
    return sum(each.sound is not None and bool(each.sound.speech_seconds) for each in clips)


def _months(survey: Survey) -> Table:
    counts = Counter(each.listed.month for each in survey.clips)
    rows = [(f"{month:02}", counts[month]) for month in range(1, 13)]
    return Table("months", "Months", ("month", "clips"), (*rows, (UNKNOWN, counts[None])))


def _hours(survey: Survey) -> Table:
    counts = Counter(each.listed.hour for each in survey.clips)
    rows = [(f"{hour:02}", counts[hour]) for hour in range(24)]
    return Table("hours", "Hours of the day", ("hour", "clips"), (*rows, (UNKNOWN, counts[None])))


def _secondary(survey: Survey) -> Table:
    counts = Counter((each.clip.primary_label, label) for each in survey.clips for label in each.clip.secondary_labels)
    rows = [(*pair, count) for pair, count in counts.most_common()]
    return Table("secondary", "Secondary labels: who occurs with whom", ("primary", "secondary", "clips"), tuple(rows))


def _folds(survey: Survey) -> Table:
    folds = sorted({each.fold for each in survey.clips if each.fold is not None}, key=lambda fold: (fold < 0, fold))
    counts = Counter((each.clip.primary_label, each.fold) for each in survey.clips)
    rows: list[tuple[Cell, ...]] = []
    for one in survey.listing.species:
        cells = [counts[one.label, fold] for fold in folds]
        held_out = sum(count > 0 for fold, count in zip(folds, cells, strict=True) if fold >= 0)
        if sum(cells):
            rows.append((one.label, one.name, *cells, held_out))
    sizes = Counter(each.clip.primary_label for each in survey.clips if each.fold is not None)
    rows.sort(key=lambda row: (-sizes[str(row[0])], str(row[0])))
    columns = ("label", "name", *map(fold_name, folds), "folds_that_validate_it")
    return Table("folds", "Folds", columns, tuple(rows))


def _duplicates(survey: Survey) -> Table:
    rows = []
    for pair in survey.pairs:
        one, other = survey.clips[pair.one], survey.clips[pair.other]
        rows.append((
            one.clip.filename, other.clip.filename, one.clip.primary_label, other.clip.primary_label,
            one.clip.collection, other.clip.collection, round(pair.overlap_seconds, 1),
            round(pair.shift_seconds, 1) + 0.0,  # -0 becomes 0
            "same bytes" if pair.is_copy else "sounds alike", fold_name(one.fold), fold_name(other.fold),
        ))  # fmt: skip
    columns = (
        "clip", "other", "label", "other_label", "collection", "other_collection", "overlap_seconds", "shift_seconds",
        "how", "fold", "other_fold",
    )  # fmt: skip
    return Table("duplicates", "Duplicates" if survey.is_decoded else "Copies of a file", columns, tuple(rows))


def _cuts(survey: Survey) -> Table:
    rows = [
        (number, each.clip.filename, each.clip.primary_label, each.clip.author, each.clip.site, each.listed.date,
         round(each.seconds, 2), fold_name(each.fold))
        for number, part in enumerate(survey.cuts, start=1)
        for each in (survey.clips[index] for index in part)
    ]  # fmt: skip
    columns = ("set", "clip", "label", "author", "site", "date", "seconds", "fold")
    return Table("cut_recordings", "Clips that may be cut from one recording", columns, tuple(rows))


def _soundscapes(survey: Survey) -> Table:
    known = survey.listing.labels
    of_label = Counter(each.clip.primary_label for each in survey.clips)
    rows = [
        (label, "yes" if label in known else "no", seconds, of_label[label])
        for label, seconds in survey.listing.soundscapes.labels.most_common()
    ]
    columns = ("label", "in_taxonomy", "labelled_seconds", "clips")
    return Table("soundscapes", "Labelled soundscapes", columns, tuple(rows))


def _voices(survey: Survey) -> tuple[Table, ...]:
    groups: dict[tuple[str, str], list[ClipFacts]] = defaultdict(list)
    for each in survey.clips:
        groups[each.clip.collection, each.clip.primary_label].append(each)
    rows = []
    for (collection, label), clips in groups.items():
        speaking = [each for each in clips if each.sound is not None and each.sound.speech_seconds]
        if speaking:
            rows.append((collection or UNKNOWN, label, len(speaking), len(clips), _speech(speaking), _minutes(clips)))
    rows.sort(key=lambda row: -row[4])
    columns = ("collection", "label", "clips_with_speech", "clips", "speech_minutes", "minutes")
    return (Table("voices", "Human voices by collection and species", columns, tuple(rows)),)


def _clips(survey: Survey) -> Table:
    columns = (
        "filename", "primary_label", "secondary_labels", "author", "collection", "rating", "site", "date", "hour",
        "seconds", "sample_rate", "channels", "fold", "problem",
        *(("rms_dbfs", "clipped", "bandwidth_hz", "speech_seconds") if survey.is_decoded else ()),
    )  # fmt: skip
    rows = []
    for each in survey.clips:
        clip, sound = each.clip, each.sound
        measured: Sequence[Cell] = (None,) * 4 if survey.is_decoded else ()
        if sound is not None:
            measured = tuple(map(_rounded, (sound.rms_dbfs, sound.clipped, sound.bandwidth_hz, sound.speech_seconds)))
        rows.append((
            clip.filename, clip.primary_label, ";".join(clip.secondary_labels), clip.author, clip.collection,
            clip.rating, clip.site, each.listed.date, each.listed.hour, round(each.seconds, 3),
            each.file.sample_rate or None, each.file.channels or None, fold_name(each.fold),
            each.file.problem or (sound.problem if sound is not None else ""), *measured,
        ))  # fmt: skip
    return Table("clips", "Clips", columns, tuple(rows))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
