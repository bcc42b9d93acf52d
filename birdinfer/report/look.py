"""``birdinfer look``: sound files, or clips of a label -> one page of spectrograms with players.

With a recipe beside each clip stands what the network gets of it: its window as it is, and several as training draws
them, augmented and mixed, which can be played, too. The page needs no other file; a notebook shows it as it is.
"""

import base64
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from birdinfer.audio.find import find_recordings
from birdinfer.audio.stream import read_segment
from birdinfer.audio.windows import read_window
from birdinfer.callbacks import Callback
from birdinfer.config import FrontEndConfig
from birdinfer.detections.page import encode_sound
from birdinfer.detections.spectrogram import draw_input, draw_spectrogram, khz_marks
from birdinfer.errors import AudioError, BirdinferError, ConfigError
from birdinfer.features.log_mel import windows_to_input
from birdinfer.report.files import read_facts
from birdinfer.report.listing import Listing, read_listing
from birdinfer.report.page import html_page
from birdinfer.species import Species
from birdinfer.tables.cells import near_miss
from birdinfer.training.data.clip import Clip
from birdinfer.training.recipe.schema import Recipe
from birdinfer.training.recipe.toml import load_recipe
from birdinfer.typing import Float32

if TYPE_CHECKING:
    from birdinfer.training.preview import Draw

_SAMPLE_RATE = 32_000
"""Of sound and spectrogram, in Hz."""
_LONG_SECONDS = 20.0
"""A longer spectrogram is wider than its card, and is moved sideways."""
_LEAST_SECONDS = 0.05
_OTHERS = 24
"""Clips of other species in the batch of the clips that are shown, of which the recipe mixes some into them."""
_TARGETS = 3
"""That stand below a draw."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LookSettings:
    """What is on the page."""

    inputs: tuple[Path, ...] = ()
    """Sound files and folders of them; or else ``data``."""
    data: Path | None = None
    """A folder in the layout of BirdCLEF, whose clips are shown with what its table says of them."""
    label: str = ""
    """Clips with this label, the primary one first; "" takes any."""
    n: int = 24
    """Most clips; of more a random choice."""
    seconds: float = 15.0
    """Of each clip, from its beginning."""
    recipe: Recipe | None = None
    """Show each clip as its network gets it, too."""
    draws: int = 4
    """Windows of each clip as training draws them."""
    seed: int = 0
    """Of the choice of clips."""


@dataclass(frozen=True, slots=True)
class Look:
    """A page of clips. The last value of a notebook's cell is shown."""

    html: str
    """The page, which needs no other file."""
    n: int
    """Clips on it."""
    failed: tuple[str, ...]
    """Those that cannot be decoded, and why."""

    def _repr_html_(self) -> str:
        # A frame keeps the page's style and the notebook's apart.
        return (
            f'<iframe srcdoc="{escape(self.html)}" title="birdinfer look" '
            'style="width:100%;height:720px;border:0"></iframe>'
        )  # fmt: skip


def look_at(settings: LookSettings, callback: Callback | None = None) -> Look:
    """Make a page of clips.

    Example::

        page = look_at(LookSettings(data=Path("birdclef-2025"), label="comcuc", n=12))
        Path("look.html").write_text(page.html)

    Raises:
        ConfigError: neither files nor a data folder are named, or both; no clip has the label.
        InputNotFoundError, MetadataError: there are no such files, or the folder's table cannot be read.
    """
    report = callback or Callback()
    shown, others, species = _choose(settings)
    recipe, cards, failed = settings.recipe, [], []
    drawn = _draws(settings, recipe, shown, others, species) if recipe is not None else [""] * len(shown)
    for number, (clip, draws) in enumerate(zip(shown, drawn, strict=True), start=1):
        try:
            card = _card(clip, settings, draws)
        except (BirdinferError, OSError) as error:
            reason = error.what if isinstance(error, BirdinferError) else str(error.strerror)
            failed.append(f"{clip.filename} ({reason})")
            card = _frame(clip, f'<p class="problem">{escape(reason)}</p>', "")
        cards.append(card)
        report.on_progress("clips", number, len(shown))
    title = _title(settings, len(shown))
    body = f'<header><h1>{escape(title)}</h1></header><main class="cards">{"".join(cards)}</main>'
    return Look(html_page(title, body, "report.css", "look.js"), len(shown), tuple(failed))


def look(
    inputs: str | Path | Sequence[str | Path] = (),
    *,
    data: str | Path | None = None,
    label: str = "",
    n: int = 24,
    recipe: Recipe | str | Path | None = None,
    **options: Any,
) -> Look:
    """Make a page of clips, which a notebook shows as the last value of its cell.

    Args:
        inputs: sound files and folders; or else ``data``.
        data: a folder in the layout of BirdCLEF.
        label: of the clips to show: a label or a name of a species.
        n: most clips.
        recipe: a recipe, its name or its file: show each clip as its network gets it, too.
        options: ``seconds``, ``draws`` and ``seed`` of :class:`LookSettings`.

    Raises:
        BirdinferError: as of :func:`look_at`; the recipe cannot be read.
    """
    paths = [inputs] if isinstance(inputs, str | Path) else inputs
    chosen = recipe if recipe is None or isinstance(recipe, Recipe) else load_recipe(Path(recipe))
    return look_at(
        LookSettings(
            inputs=tuple(map(Path, paths)), data=None if data is None else Path(data), label=label, n=n, recipe=chosen,
            **options,
        )
    )  # fmt: skip


def _title(settings: LookSettings, n: int) -> str:
    of = f" of {settings.label}" if settings.label else ""
    where = f" in {settings.data.resolve().name}" if settings.data is not None else ""
    as_network = f", and as {settings.recipe.name} gets them" if settings.recipe is not None else ""
    return f"{n} clip{'' if n == 1 else 's'}{of}{where}{as_network}"


def _choose(settings: LookSettings) -> tuple[list[Clip], list[Clip], list[Species]]:
    """Choose the clips to show, others that may be mixed into them, and the columns of the scores."""
    rng = Random(settings.seed)  # noqa: S311 - a choice, no secret
    if settings.data is not None and settings.inputs:
        raise ConfigError("look", "files and --data are both named", "name one of them")
    if settings.data is None:
        if not settings.inputs:
            raise ConfigError("look", "nothing is named to look at", "name sound files, or a folder with --data")
        if settings.label:
            raise ConfigError("--label", "is a column of train.csv", "name its folder with --data")
        found = find_recordings(settings.inputs)
        found.require()
        clips = [Clip(name, path, name) for path, name in found.names.items()]
        return _some(clips, settings.n, rng), [], [Species(clip.primary_label) for clip in clips]
    listing = read_listing(settings.data)
    clips = [_known(each.clip, listing) for each in listing.clips]
    unknown = sorted({clip.primary_label for clip in clips} - listing.labels)
    wanted = clips if not settings.label else _with_label(clips, settings.label, listing)
    shown = _some(wanted, settings.n, rng)
    names = {clip.filename for clip in shown}
    return (
        shown,
        _some([clip for clip in clips if clip.filename not in names], _OTHERS, rng),
        [
            *listing.species,
            *map(Species, unknown),
        ],
    )


def _known(clip: Clip, listing: Listing) -> Clip:
    return clip._replace(secondary_labels=tuple(one for one in clip.secondary_labels if one in listing.labels))


def _with_label(clips: Sequence[Clip], label: str, listing: Listing) -> list[Clip]:
    names = {
        name.casefold(): one.label for one in listing.species for name in (one.scientific_name, one.common_name) if name
    }
    wanted = names.get(label.casefold(), label)
    primary = [clip for clip in clips if clip.primary_label == wanted]
    found = primary or [clip for clip in clips if wanted in clip.secondary_labels]
    if not found:
        near = difflib.get_close_matches(label.casefold(), [*names, *listing.labels], 1)
        meant = f"did you mean {names.get(near[0], near[0])}?" if near else "birdinfer data lists the labels"
        same = near_miss(label, sorted(listing.labels))
        hint = f"it may be {same}" if same else meant
        raise ConfigError("--label", f"no clip of {listing.data} has the label {label!r}", hint)
    return found


def _some(clips: Sequence[Clip], n: int, rng: Random) -> list[Clip]:
    """Choose at most ``n`` clips, in their own order."""
    chosen = sorted(rng.sample(range(len(clips)), min(n, len(clips))))
    return [clips[index] for index in chosen]


def _card(clip: Clip, settings: LookSettings, draws: str) -> str:
    seconds = clip.seconds_of(clip.begin_seconds + settings.seconds)
    samples = read_segment(clip.path, clip.begin_seconds, round(seconds * _SAMPLE_RATE), _SAMPLE_RATE)
    if len(samples) < _LEAST_SECONDS * _SAMPLE_RATE:
        raise AudioError(clip.path, "holds no sound")
    kind = "picture long" if len(samples) > _LONG_SECONDS * _SAMPLE_RATE else "picture"
    marks = "".join(
        f'<span class="hz" style="bottom:{100 * height:.1f}%">{khz} kHz</span>'
        for khz, height in khz_marks(_SAMPLE_RATE)
    )
    picture = _image(draw_spectrogram(samples, _SAMPLE_RATE), f"Spectrogram of {clip.filename}")
    head = f'<div class="{kind}">{picture}{marks}</div>{_player(samples, _SAMPLE_RATE)}'
    return _frame(clip, head, draws)


def _frame(clip: Clip, head: str, draws: str) -> str:
    wide = " wide" if draws else ""
    return f'<article class="card{wide}">{head}<div class="facts">{_facts(clip)}</div>{draws}</article>'


def _facts(clip: Clip) -> str:
    others = ", ".join(clip.secondary_labels)
    rating = f"rated {clip.rating:g}" if clip.rating is not None else ""
    label = "" if clip.primary_label == clip.filename else f"<b>{escape(clip.primary_label)}</b> "
    quiet = " · ".join(filter(None, (clip.author, clip.collection, rating, clip.site)))
    return (
        f"{label}{escape(clip.filename)}"
        + (f"<br>also: {escape(others)}" if others else "")
        + (f'<br><span class="quiet">{escape(quiet)}</span>' if quiet else "")
    )


def _draws(
    settings: LookSettings, recipe: Recipe, shown: Sequence[Clip], others: Sequence[Clip], species: Sequence[Species]
) -> list[str]:
    """Draw of each clip what the network gets; nothing of one that cannot be decoded."""
    from birdinfer.training.preview import draw_windows  # torch: only where it is asked for

    able = [clip for clip in map(_with_duration, shown) if clip.duration_seconds > 0]
    mates = [clip for clip in map(_with_duration, others) if clip.duration_seconds > 0]
    drawn = draw_windows(able, mates, species, recipe, settings.draws, settings.data) if able else []
    of_clip: dict[str, list[Draw]] = {clip.filename: [draw[index] for draw in drawn] for index, clip in enumerate(able)}
    found = []
    for clip in shown:
        figures = [_draw(draw, recipe, number) for number, draw in enumerate(of_clip.get(clip.filename, []), start=1)]
        plain = [_plain(clip, recipe)] if figures else []
        found.append(f'<div class="draws">{"".join([*plain, *figures])}</div>' if figures else "")
    return found


def _with_duration(clip: Clip) -> Clip:
    facts = read_facts(clip.path)
    return clip._replace(duration_seconds=0.0 if facts.is_unreadable else clip.seconds_of(facts.seconds))


def _plain(clip: Clip, recipe: Recipe) -> str:
    """Draw the clip's first window as the network gets it in prediction."""
    config = recipe.input_config
    try:
        samples = read_window(clip.path, 0.0, config, clip.end_seconds, clip.begin_seconds)
    except (BirdinferError, OSError):
        return ""
    margin = config.margin_samples
    window = samples[margin : len(samples) - margin]
    from birdinfer.training.preview import picture_of

    picture = picture_of(windows_to_input(samples, 1, config)[0]) if isinstance(config, FrontEndConfig) else None
    return _figure(window, picture, recipe, "its first window, as it is")


def _draw(draw: "Draw", recipe: Recipe, number: int) -> str:
    targets = ", ".join(f"{label} {value:.2g}" for label, value in draw.targets[:_TARGETS])
    return _figure(draw.waveform, draw.picture, recipe, f"draw {number}: {draw.problem or targets}")


def _figure(waveform: Float32, picture: Float32 | None, recipe: Recipe, caption: str) -> str:
    rate = recipe.input_config.audio.sample_rate
    drawn = draw_spectrogram(waveform, rate) if picture is None else draw_input(picture)
    return (
        f"<figure>{_image(drawn, caption)}{_player(waveform, rate)}<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _player(samples: Float32, sample_rate: int) -> str:
    sound, kind = encode_sound(samples, sample_rate)
    data = base64.b64encode(sound).decode()
    return f'<audio controls preload="none" src="data:audio/{kind};base64,{data}"></audio>'
