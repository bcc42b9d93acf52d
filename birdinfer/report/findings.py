"""Facts of the report -> what is wrong or worth knowing, the gravest first: how many, which, and which key helps."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from birdinfer.report.survey import ClipFacts, Pair, Survey

_NAMED = 5
"""Examples of a finding."""
_FEW_CLIPS = 5
_ONE_AUTHOR_SHARE, _ONE_AUTHOR_CLIPS = 0.8, 5
_IMBALANCED = 10.0
"""Times as many clips as the median species has."""
_LONG_SECONDS = 300.0
_SLACK_SECONDS = 0.1
"""An encoder's loss at a clip's end is no matter."""
_NARROW_SHARE = 0.8
"""Of the highest frequency that a network takes in: below it a clip is recognised by what it lacks."""
_UNKNOWN_SHARE = 0.05


class Severity(IntEnum):
    """How grave a finding is."""

    stops = 0
    """Training refuses to start."""
    misleads = 1
    """Validation scores flatter, or say nothing."""
    costs = 2
    """The model learns less, or something wrong."""
    note = 3
    """Good to know."""

    @property
    def text(self) -> str:
        """As it is shown."""
        return _TEXTS[self]


_TEXTS = {
    Severity.stops: "stops training",
    Severity.misleads: "misleads validation",
    Severity.costs: "costs quality",
    Severity.note: "good to know",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was found."""

    severity: Severity
    title: str
    """With its number: ``3 sound files are missing``."""
    count: int
    examples: tuple[str, ...] = ()
    advice: str = ""
    """What to do; keys of the recipe stand between backticks."""
    table: str = ""
    """The table that has all of them, "" for none."""


def find_all(survey: Survey) -> list[Finding]:
    """Find everything, the gravest first and of one severity the most frequent."""
    found = [finding for check in _CHECKS for finding in check(survey) if finding.count]
    return sorted(found, key=lambda each: (each.severity, -each.count))


def _of(
    severity: Severity, places: Sequence[str], what: str, advice: str, table: str = "", count: int | None = None
) -> Finding:
    """Make a finding of its places; ``{n}`` in ``what`` is their number, ``{s}`` its plural."""
    n = len(places) if count is None else count
    title = what.format(
        n=f"{n:,}", s="" if n == 1 else "s", are="is" if n == 1 else "are", have="has" if n == 1 else "have"
    )
    return Finding(
        severity=severity, title=title, count=n, examples=tuple(places[:_NAMED]), advice=advice, table=table
    )  # fmt: skip


def _tables(survey: Survey) -> Iterator[Finding]:
    """What stands in the tables."""
    faults, stops = survey.listing.faults, Severity.stops
    yield _of(
        stops, faults.get("refused rows", []), "{n} row{s} of the table cannot be used",
        "Mend the rows: training refuses the table at the first of them.",
    )  # fmt: skip
    if survey.listing.has_taxonomy:
        yield _of(
            stops, faults.get("labels outside the taxonomy", []), "{n} primary label{s} {are} not in taxonomy.csv",
            "Add the species to taxonomy.csv, write the label as it stands there, or take the rows out.",
        )  # fmt: skip
    yield _of(
        stops, faults.get("two labels", []), "{n} file{s} {have} two primary labels",
        "Keep one row; put the other species into secondary_labels.",
    )  # fmt: skip
    yield _of(
        stops, faults.get("taxonomy", []), "{n} row{s} of taxonomy.csv {have} no label, or one of another row",
        "Mend the rows.",
    )  # fmt: skip
    if survey.listing.audio is None:
        yield _of(stops, [str(survey.listing.data)], "There is no folder of clips", "Put the clips into train_audio/.")
    yield _of(
        Severity.costs, faults.get("secondary labels outside the taxonomy", []),
        "{n} secondary label{s} {are} not in taxonomy.csv",
        "Training leaves them out; add the species to taxonomy.csv if they shall be learned.", "secondary",
    )  # fmt: skip
    yield _of(
        Severity.costs, faults.get("ratings", []), "{n} rating{s} {are} no number from 0 to 5",
        "They count as unrated where `labels.rating_weight` is set; mend them.",
    )  # fmt: skip
    yield _of(
        Severity.note, faults.get("repeated rows", []), "{n} row{s} repeat a file with the same label",
        "Training takes the first of each.",
    )  # fmt: skip
    yield _of(
        Severity.note, faults.get("places", []), "{n} position{s} {are} nowhere on earth",
        "They are no site: `data.group_by` = [\"site\"] does not hold these clips together.",
    )  # fmt: skip
    yield _of(
        Severity.costs, faults.get("same species", []), "{n} species {have} several labels",
        "Decide on one label, or each is learned as the absence of the other.",
    )  # fmt: skip


def _files(survey: Survey) -> Iterator[Finding]:
    """What is wrong with files, by their headers."""
    gone = [each.clip.filename for each in survey.clips if each.file.is_missing]
    if survey.listing.audio is not None and gone:
        severity = Severity.stops if len(gone) == len(survey.clips) else Severity.costs
        yield _of(severity, gone, "{n} sound file{s} {are} missing", "Copy them, or take the rows out.", "clips")
    bad = [each for each in survey.clips if each.file.is_unreadable]
    yield _of(
        Severity.costs, _with_problem(bad), "{n} clip{s} cannot be decoded",
        "Copy or download them again; training leaves them out.", "clips",
    )  # fmt: skip
    cut = [each for each in survey.clips if each.is_usable and each.file.problem]
    yield _of(
        Severity.costs, _with_problem(cut), "{n} file{s} {are} truncated, or {have} a header that is wrong",
        "Copy or download them again; training decodes what is there.", "clips",
    )  # fmt: skip
    yield _of(
        Severity.note, survey.listing.not_listed, "{n} sound file{s} in the folder of clips {are} in no row",
        "Training does not use them; add rows, or remove them.",
    )  # fmt: skip
    rates = Counter(each.file.sample_rate for each in survey.clips if each.is_usable)
    own = survey.recipe.input_config.audio.sample_rate
    low = {rate: count for rate, count in rates.items() if rate < own}
    yield _of(
        Severity.costs, [f"{count} at {rate} Hz" for rate, count in sorted(low.items())],
        f"{{n}} clip{{s}} {{have}} a lower rate than the recipe's {own} Hz",
        "Above half their rate there is nothing, by which a species can be recognised without its call: lower "
        "`frontend.audio.sample_rate` or `frontend.mel.f_max_hz`.", "formats", count=sum(low.values()),
    )  # fmt: skip


def _with_problem(clips: Sequence[ClipFacts]) -> list[str]:
    return [f"{each.clip.filename} ({each.file.problem})" for each in clips]


def _sound(survey: Survey) -> Iterator[Finding]:
    """What decoding has shown."""
    decoded = [(each, each.sound) for each in survey.clips if each.sound is not None]
    damaged = [
        f"{each.clip.filename} ({sound.problem})"
        for each, sound in decoded
        if sound.is_damaged and not each.file.problem  # else its header has shown it
    ]
    yield _of(
        Severity.costs, damaged, "{n} clip{s} {are} damaged, or cannot be decoded to the end",
        "Copy or download them again.", "clips",
    )  # fmt: skip
    silent = [each.clip.filename for each, sound in decoded if sound.is_silent and not sound.is_damaged]
    yield _of(Severity.costs, silent, "{n} clip{s} {are} silent", "Take the rows out: the label is wrong.", "clips")
    clipped = [f"{each.clip.filename} ({sound.clipped:.1%})" for each, sound in decoded if sound.is_clipped]
    yield _of(
        Severity.note, clipped, "{n} clip{s} {are} clipped: samples lie at full scale",
        "Nothing helps but another recording; a low rating can weigh less with `labels.rating_weight`.", "clips",
    )  # fmt: skip
    highest = _highest_hz(survey)
    narrow = [
        f"{each.clip.filename} (up to {sound.bandwidth_hz / 1000:.1f} kHz)"
        for each, sound in decoded
        if 0 < sound.bandwidth_hz < _NARROW_SHARE * min(highest, each.file.sample_rate / 2)
    ]
    yield _of(
        Severity.costs, narrow, f"{{n}} clip{{s}} end far below the {highest / 1000:g} kHz that the recipe takes in",
        "They were recorded or encoded with less: lower `frontend.mel.f_max_hz`, or let `augment.filter_probability` "
        "teach the network that the highest bands may be quiet.", "clips",
    )  # fmt: skip
    spoken = [(each, sound.speech_seconds) for each, sound in decoded if sound.speech_seconds and not sound.is_silent]
    spoken.sort(key=lambda one: -one[1])
    yield _of(
        Severity.costs, [f"{each.clip.filename} ({seconds:.0f} of {each.seconds:.0f} s)" for each, seconds in spoken],
        "{n} clip{s} {have} human voices", "Set `data.remove_voice` = true with `data.cache` = true: the species must "
        "not be recognised by its announcer.", "voices",
    )  # fmt: skip


def _highest_hz(survey: Survey) -> float:
    config = survey.recipe.frontend
    return min(config.mel.f_max_hz, config.audio.sample_rate / 2)


def _balance(survey: Survey) -> Iterator[Finding]:
    """How clips are spread over species, and how long they are."""
    counts = Counter(each.clip.primary_label for each in survey.clips if each.is_usable)
    labels = [one.label for one in survey.listing.species]
    scapes = survey.listing.soundscapes.labels
    none = [label for label in labels if not counts[label]]
    only = [label for label in none if scapes[label]]
    yield _of(
        Severity.costs, [label for label in none if not scapes[label]], "{n} species {have} no clip that can be used",
        "They keep their columns and are never learned: add recordings of them as `data.sources`, or another model.",
        "species",
    )  # fmt: skip
    yield _of(
        Severity.costs, only, "{n} species {are} in labelled soundscapes alone",
        "No clip teaches them: train on the soundscapes, too, a table `data.sources` with kind = \"soundscapes\".",
        "soundscapes",
    )  # fmt: skip
    few = sorted((counts[label], label) for label in labels if 0 < counts[label] < _FEW_CLIPS)
    yield _of(
        Severity.costs, [f"{label} ({count})" for count, label in few],
        f"{{n}} species {{have}} fewer than {_FEW_CLIPS} clips",
        f"Repeat them with `data.upsample_to` = {2 * _FEW_CLIPS}, draw them more often with `data.sampling_power` = "
        "-0.5, or leave out those below `data.min_clips_per_species`.", "species",
    )  # fmt: skip
    there = [count for count in counts.values() if count]
    median = statistics.median(there) if there else 0
    many = [(count, label) for label, count in counts.most_common() if count > _IMBALANCED * median]
    yield _of(
        Severity.costs, [f"{label} ({count})" for count, label in many],
        f"{{n}} species {{have}} more than {_IMBALANCED:g} times the clips of the median one ({median:g})",
        "Draw by `data.sampling_power` = -0.5, or draw at most `data.cap_at` of a species in an epoch.", "species",
    )  # fmt: skip
    window = survey.recipe.input_config.window.window_seconds
    short = [
        f"{each.clip.filename} ({each.seconds:.1f} s)"
        for each in survey.clips
        if each.is_usable and each.seconds < window - _SLACK_SECONDS
    ]
    yield _of(
        Severity.note, short, f"{{n}} clip{{s}} {{are}} shorter than the recipe's window of {window:g} s",
        "They are padded at their end; `augment.roll_probability` = 0.5 moves them within the window.", "durations",
    )  # fmt: skip
    long = [
        f"{each.clip.filename} ({each.seconds / 60:.0f} min)" for each in survey.clips if each.seconds > _LONG_SECONDS
    ]
    yield _of(
        Severity.note, long, f"{{n}} clip{{s}} {{are}} longer than {_LONG_SECONDS / 60:g} minutes",
        "A random window of them rarely holds the call: use their beginning, `data.max_seconds` = 60.", "durations",
    )  # fmt: skip


def _independence(survey: Survey) -> Iterator[Finding]:
    """What makes a validation score flatter, or say nothing."""
    config = survey.recipe.data
    if survey.fold_problem:
        yield _of(
            Severity.stops, [survey.fold_problem], "The recipe's folds cannot be assigned",
            "Change the key that the message names.", count=1,
        )  # fmt: skip
    yield from _copies(survey)
    parted = [part for part in survey.cuts if _is_parted([survey.clips[index] for index in part])]
    named = [", ".join(survey.clips[index].clip.filename for index in part[:3]) for part in parted]
    yield _of(
        Severity.misleads, named, "{n} set{s} of clips that may be one recording {are} on both sides of a fold",
        "Give them the same text in a column `group` of the table: \"recording\" in `data.group_by` keeps it together.",
        "cut_recordings",
    )  # fmt: skip
    whole = [part for part in survey.cuts if part not in parted]
    yield _of(
        Severity.note, [", ".join(survey.clips[index].clip.filename for index in part[:3]) for part in whole],
        "{n} set{s} of clips may be cut from one recording each, and stay on one side of each fold",
        f"Keep `data.group_by` = {list(config.group_by)}: it holds their authors together.", "cut_recordings",
    )  # fmt: skip
    once = [label for label, n in survey.n_alone.items() if n == 1]
    yield _of(
        Severity.misleads, sorted(once),
        "{n} species {have} a single independent set of clips, and {are} never validated",
        "Nothing is known of how well they are recognised: find recordings of other authors. `data.group_by` = "
        "[\"recording\"] validates more of them, with scores that flatter.", "species",
    )  # fmt: skip
    if not config.complete_fold0 and not config.all_data and not survey.fold_problem:
        validated = {each.clip.primary_label for each in survey.clips if each.fold is not None and each.fold >= 0}
        missing = [label for label, n in survey.n_alone.items() if n > 1 and label not in validated]
        yield _of(
            Severity.misleads, sorted(missing), "{n} species could be validated, and no fold does",
            "Set `data.complete_fold0` = true, or fewer folds with `data.n_folds`.", "folds",
        )  # fmt: skip
    yield from _authors(survey)
    if config.fold_column or config.folds_file:
        yield _of(
            Severity.misleads, list(survey.leaks),
            "{n} kind{s} of clips that belong together {are} on both sides of a fold", "Mend the given folds, or let "
            "birdinfer assign them: without `data.fold_column` and `data.folds_file`.", "folds",
        )  # fmt: skip


def _copies(survey: Survey) -> Iterator[Finding]:
    def named(pair: Pair) -> str:
        one, other = survey.clips[pair.one].clip, survey.clips[pair.other].clip
        return f"{one.filename} = {other.filename}" + ("" if pair.is_copy else f" ({pair.overlap_seconds:.0f} s)")

    def labels(pair: Pair) -> tuple[str, str]:
        return survey.clips[pair.one].clip.primary_label, survey.clips[pair.other].clip.primary_label

    how = "have the same sound" if survey.is_decoded else "have the same bytes"
    same = [pair for pair in survey.pairs if len(set(labels(pair))) == 1]
    yield _of(
        Severity.misleads if survey.recipe.data.duplicates == "keep" else Severity.note, list(map(named, same)),
        f"{{n}} pair{{s}} of clips {how}",
        "Set `data.duplicates` = \"remove\", or \"group\" to keep both on one side of each fold.", "duplicates",
    )  # fmt: skip
    other = [pair for pair in survey.pairs if len(set(labels(pair))) > 1]
    yield _of(
        Severity.misleads, [f"{named(pair)}: {' and '.join(labels(pair))}" for pair in other],
        f"{{n}} pair{{s}} of clips {how} and other primary labels",
        "Give both all species, in secondary_labels; `data.duplicates` = \"group\" keeps them on one side.",
        "duplicates",
    )  # fmt: skip


def _is_parted(clips: Sequence[ClipFacts]) -> bool:
    """Whether one is validated by a model that has learned from another."""
    folds = {each.fold for each in clips if each.fold is not None}
    return len(folds) > 1 and any(fold >= 0 for fold in folds)


def _authors(survey: Survey) -> Iterator[Finding]:
    hanging, authors_of = [], defaultdict[str, Counter[str]](Counter)
    for each in survey.clips:
        authors_of[each.clip.primary_label][each.clip.author] += 1
    for label, authors in authors_of.items():
        (author, n_most), n_clips = authors.most_common(1)[0], authors.total()
        if author and n_clips >= _ONE_AUTHOR_CLIPS and n_most >= _ONE_AUTHOR_SHARE * n_clips:
            hanging.append((n_most / n_clips, f"{label} ({n_most} of {n_clips} by {author})"))
    yield _of(
        Severity.misleads, [text for _, text in sorted(hanging, key=lambda one: -one[0])],
        f"Of {{n}} species one author made {_ONE_AUTHOR_SHARE:.0%} or more of the clips",
        "Their score is that of one microphone and place: find others' recordings; keep \"author\" in `data.group_by`.",
        "species",
    )  # fmt: skip


def _absent(survey: Survey) -> Iterator[Finding]:
    """Which columns the recipe asks for and clips have none of."""
    config, clips = survey.recipe.data, [each.clip for each in survey.clips]
    for kind, none in (
        ("author", [clip.filename for clip in clips if not clip.author]),
        ("site", [clip.filename for clip in clips if not clip.site]),
    ):
        if kind in config.group_by and len(none) > _UNKNOWN_SHARE * len(clips):
            yield _of(
                Severity.misleads, none, f"{{n}} clip{{s}} {{have}} no {kind}",
                "`data.group_by` cannot keep them together there; a column `group` of the table can.", "clips",
            )  # fmt: skip
    unrated = [clip.filename for clip in clips if clip.rating is None]
    if survey.recipe.labels.rating_weight and len(unrated) > _UNKNOWN_SHARE * len(clips):
        yield _of(
            Severity.note, unrated, "{n} clip{s} {have} no rating",
            "With `labels.rating_weight` they count as the mean of the others.", "clips",
        )  # fmt: skip


def _soundscapes(survey: Survey) -> Iterator[Finding]:
    scapes, known = survey.listing.soundscapes, survey.listing.labels
    if scapes.problem:
        yield _of(Severity.costs, [scapes.problem], "The table of soundscapes cannot be read", "Mend it.", count=1)
    outside = [(label, seconds) for label, seconds in scapes.labels.most_common() if label not in known]
    yield _of(
        Severity.costs, [f"{label} ({seconds} s)" for label, seconds in outside],
        "{n} label{s} of soundscapes {are} not in the taxonomy", "Add them to taxonomy.csv, or take them out.",
        "soundscapes",
    )  # fmt: skip
    if scapes.files:
        yield _of(
            Severity.costs, list(scapes.missing), "{n} labelled soundscape{s} {are} missing", "Copy the files again.",
        )  # fmt: skip
    yield _of(
        Severity.note, [], "{n} row{s} of the table of soundscapes stand there before", "They count once.",
        count=scapes.n_repeated,
    )  # fmt: skip
    broken = [f"{each.path.name} ({each.problem})" for each in survey.soundscapes if each.problem]
    yield _of(Severity.costs, broken, "{n} soundscape{s} {are} damaged", "Copy or download them again.")


_CHECKS: tuple[Callable[[Survey], Iterator[Finding]], ...] = (
    _tables,
    _files,
    _sound,
    _balance,
    _independence,
    _absent,
    _soundscapes,
)
