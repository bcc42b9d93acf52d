"""Pictures of soundscapes beside their scores, as ``birdinfer predict --plots`` draws them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from birdinfer.bundle import Bundle
    from birdinfer.config import FrontEndConfig
    from birdinfer.spool import ScoreSpool

_PLOTTED_SECONDS = 600.0
"""What a picture shows at most: more could not be told apart on it, and a day of sound would fill the memory."""


def plotter(bundle: "Bundle", folder: Path) -> "Callable[[Path, ScoreSpool], None]":
    """What draws one soundscape, its first ten minutes, into a folder; found missing before hours of work, not after.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from birdinfer.audio import AudioStream
    from birdinfer.config import TimelineConfig
    from birdinfer.errors import MissingExtraError
    from birdinfer.windows import cut_runs, place

    try:
        from birdinfer.report.plots import draw_soundscape
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "matplotlib", "report") from error

    rows = bundle.manifest.rows
    frontend = _picture_frontend(bundle)

    def draw(path: Path, spool: "ScoreSpool") -> None:
        scores = spool.scores(path.stem)
        if scores is None:
            return
        shown = scores[: max(1, int(_PLOTTED_SECONDS / rows.window_seconds))]
        with AudioStream(path, frontend.audio.sample_rate) as stream:
            run = next(cut_runs(stream.blocks(), len(shown), place(frontend, TimelineConfig(), rows)))
        samples = run.samples[frontend.margin_samples : -frontend.margin_samples]
        title = path.name + (f" (first {_PLOTTED_SECONDS / 60:g} min)" if len(shown) < len(scores) else "")
        draw_soundscape(folder / f"{path.stem}.png", title, samples, shown, bundle.labels, frontend)

    return draw


def _picture_frontend(bundle: "Bundle") -> "FrontEndConfig":
    """A log-mel to draw with, a row wide: that of the first member that hears one."""
    from birdinfer.config import FrontEndConfig

    heard = (member.frontend for member in bundle.manifest.members)
    frontend = next((one for one in heard if one is not None), FrontEndConfig())
    return FrontEndConfig(frontend.audio, bundle.manifest.rows, frontend.mel)
