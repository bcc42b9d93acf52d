"""Run a plan to its end, or say how far it is: what is done has a marker, and the rest is run by a launcher."""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from birdinfer.audio.status import Status
from birdinfer.callbacks import Callback
from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.scale.launchers import Launcher, Report
from birdinfer.scale.marker import Marker
from birdinfer.scale.plan import TRIES, OpenPlan
from birdinfer.system.signals import leaving_at_sigterm

_READERS = 32
"""Markers that are read at a time: an object store takes 20 to 100 ms for each."""


class ScaleCallback(Callback):
    """Receive what a run over an archive reports."""

    def on_units(self, n_left: int, n_units: int, sound_seconds: float) -> None:
        """Report how many units are to be run, and how much sound they hold."""

    def on_unit(self, report: Report, sound_seconds: float) -> None:
        """Report a unit that has ended, and how much sound was expected of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """What a run has done."""

    n_done: int
    n_problems: int
    """Files of these units with which something is wrong."""
    sound_seconds: float
    core_seconds: float
    failed: tuple[Report, ...]
    """Units that have no marker."""


def run_plan(
    opened: OpenPlan, launcher: Launcher, callback: ScaleCallback | None = None, share: tuple[int, int] = (0, 1)
) -> RunOutcome:
    """Run the units that have no marker; BirdinferError if all of it has to end, after which it can be run again.

    ``share`` (2, 40) are every 40th unit from the third on.
    """
    callback = callback or ScaleCallback()
    units = [unit for unit in opened.missing() if unit % share[1] == share[0]]
    callback.on_units(len(units), opened.plan.n_units, sum(opened.units[unit].sound_seconds for unit in units))
    reports: list[Report] = []

    def report(each: Report) -> None:
        reports.append(each)
        callback.on_unit(each, opened.units[each.unit].sound_seconds)

    if units:
        with leaving_at_sigterm():
            launcher.run(opened, units, report, callback.on_warning)
    done = [each for each in reports if not each.error]
    return RunOutcome(
        n_done=len(done), n_problems=sum(each.n_problems for each in done),
        sound_seconds=sum(each.sound_seconds for each in done), core_seconds=sum(each.core_seconds for each in done),
        failed=tuple(each for each in reports if each.error),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanStatus:
    """How far a plan is."""

    n_done: int
    n_units: int
    n_begun: int
    """Units that were begun and have no marker: they are being predicted, or were lost."""
    n_files: int
    """Of the units that are done."""
    sound_seconds: float
    core_seconds: float
    left_seconds: float
    """Sound that is left, as it is expected."""
    statuses: Counter[Status]
    problems: tuple[tuple[str, str], ...]
    """Names of files with what is wrong, the first of them."""


def status_of(opened: OpenPlan, n_problems: int = 10) -> PlanStatus:
    """Read all markers."""
    done = opened.done()
    begun = {name.partition("-")[0] for name in opened.place.names(f"{opened.plan.run}/{TRIES}")}
    statuses, problems = Counter[Status](), list[tuple[str, str]]()
    sound = core = 0.0
    for marker in read_markers(opened, done):
        sound, core = sound + marker.sound_seconds, core + marker.core_seconds
        for file in marker.files:
            statuses[file.status] += 1
            if file.problem and len(problems) < n_problems:
                problems.append((file.name, f"{file.status}: {file.problem}"))
    expected = sum(opened.units[unit].sound_seconds for unit in done)
    return PlanStatus(
        n_done=len(done), n_units=opened.plan.n_units,
        n_begun=len(begun - {opened.units[unit].digest for unit in done}), n_files=statuses.total(),
        sound_seconds=sound, core_seconds=core, left_seconds=max(0.0, opened.plan.sound_seconds - expected),
        statuses=statuses, problems=tuple(problems),
    )  # fmt: skip


def read_markers(opened: OpenPlan, units: Iterable[int]) -> Iterator[Marker]:
    """Read the markers of units, in order; ConfigError if one is damaged."""
    units = list(units)
    with ThreadPoolExecutor(_READERS) as pool:
        for first in range(0, len(units), _READERS):  # not all at once: they wait in memory
            yield from pool.map(lambda unit: read_marker(opened, unit), units[first : first + _READERS])


def read_marker(opened: OpenPlan, unit: int) -> Marker:
    """Read the marker of a unit."""
    name = opened.marker_name(unit)
    try:
        return Marker.decode(opened.place.read(name))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "remove it, and run the plan again"
        raise ConfigError(opened.place.at(name), f"is damaged ({error})", hint) from error


def check_complete(opened: OpenPlan) -> None:
    """Raise a BirdinferError unless all units are done."""
    if n_left := len(opened.missing()):
        what = f"{n_left} of {opened.plan.n_units} units are not done"
        raise BirdinferError(opened.place.uri, what, "birdinfer scale run continues; --partial takes what is there")
