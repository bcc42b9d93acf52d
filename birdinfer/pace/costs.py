"""What hearing costs at each level of a ladder: measured where it was heard, foretold below.

In: seconds that lanes spent on runs of windows. Out: lane-seconds for windows that are still to be heard. A level that
was not heard yet is foretold from the last one that was, by what each of its members and front ends took there; what
it takes itself counts as soon as it is known.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from birdinfer.bundle import Bundle
from birdinfer.listener import listening
from birdinfer.stopwatch import Stopwatch
from birdinfer.windows import Placement

_MEMORY = 200
"""Additions after which one counts a third of a new one: speeds drift."""
_TRUSTED_RUNS = 5
"""What was foretold weighs as much as so many runs that were measured."""
_LEAST_RUNS = 2
"""Of each listener, before anything is said."""


class Rate:
    """Seconds that a unit of work takes: a ratio of sums in which what is long ago fades."""

    def __init__(self) -> None:
        """Begin without knowledge."""
        self.n = 0
        """Additions."""
        self.units = self.seconds = 0.0
        self._units_squared = self._products = self._seconds_squared = 0.0

    def add(self, units: float, seconds: float) -> None:
        """Take note of some work."""
        fade = 1 - 1 / _MEMORY
        self.n += 1
        self.units, self.seconds = fade * self.units + units, fade * self.seconds + seconds
        self._units_squared = fade * self._units_squared + units * units
        self._products = fade * self._products + units * seconds
        self._seconds_squared = fade * self._seconds_squared + seconds * seconds

    def per_unit(self, foretold: float | None = None) -> float:
        """Seconds for a unit: a ratio of sums.

        Args:
            foretold: what was expected before anything was measured; weighs as a few additions. None: nothing was.
        """
        if foretold is None:
            return self.seconds / self.units if self.units else 0.0
        if not self.units:
            return foretold
        trusted = _TRUSTED_RUNS * self.units / self.n
        return (self.seconds + trusted * foretold) / (self.units + trusted)

    def variance(self, units: float) -> float:
        """Squared seconds by which work to come may miss the rate: that of the ratio, and its own.

        With residuals e of what was measured, S their sum of squares and U all units, the ratio's variance is S / U^2
        (the ratio estimator of Cochran, Sampling Techniques, 1977, chapter 6), and that of each unit S / U.
        """
        if not self.units:
            return 0.0
        rate = self.seconds / self.units
        squares = self._seconds_squared - 2 * rate * self._products + rate * rate * self._units_squared
        return max(0.0, squares) * ((units / self.units) ** 2 + units / self.units)


class Prices(NamedTuple):
    """What is paid at a level, in lane-seconds."""

    reading: float
    """For a second of sound to be read, and all that is done around it."""
    windows: list[float]
    """For a window, of each listener."""


class LevelCosts:
    """One level: who listens there, and what it was measured to take."""

    def __init__(self, bundle: Bundle, n_windows_of: Callable[[Placement], float]) -> None:
        """Nothing is measured yet.

        Args:
            bundle: who listens.
            n_windows_of: windows of all files, as they are placed.
        """
        alike = listening(bundle)
        self.placements: list[Placement] = [placement for _, placement in alike]
        self._hearings = [hearing for hearing, _ in alike]
        members = bundle.manifest.members
        self._members = [[members[index].name for index in indices] for indices in alike.values()]
        self.watches: Sequence[Stopwatch] = ()
        """Of the listeners, once they are loaded."""
        self._reading = Rate()
        self._windows = [Rate() for _ in alike]
        self._whole = sum(self.sound_seconds(each, n_windows_of(place)) for each, place in enumerate(self.placements))

    @property
    def is_measured(self) -> bool:
        """Whether each listener has heard enough to tell."""
        return all(rate.n >= _LEAST_RUNS for rate in self._windows)

    def add(self, listener: int, n_windows: int, score_seconds: float, other_seconds: float) -> None:
        """Take note of a run: what scoring it took a lane, and what all else did."""
        self._windows[listener].add(n_windows, score_seconds)
        self._reading.add(self.sound_seconds(listener, n_windows), other_seconds)

    def sound_seconds(self, listener: int, n_windows: float) -> float:
        """Sound that windows stand for; over all listeners they add up to about a file's length."""
        place = self.placements[listener]
        return n_windows * place.stride_samples / place.sample_rate / len(self.placements)

    def prices(self, foretold: Prices | None = None) -> Prices:
        """As measured, and where little is, as foretold."""
        if foretold is None:
            return Prices(self._reading.per_unit(), [rate.per_unit() for rate in self._windows])
        pairs = zip(self._windows, foretold.windows, strict=True)
        return Prices(self._reading.per_unit(foretold.reading), [rate.per_unit(before) for rate, before in pairs])

    def foretell(self, measured: "LevelCosts", prices: Prices) -> Prices:
        """What this level will take, from what another took that hears all that it does.

        Log-mels are taken to cost what they did however far apart windows are: windows that overlap share theirs.
        """
        parts = measured._parts(prices)
        windows = []
        for hearing, placement, members in zip(self._hearings, self.placements, self._members, strict=True):
            front_end = parts.get(hearing, 0.0) * placement.stride_samples / placement.sample_rate
            windows.append(front_end + sum(parts.get(name, 0.0) for name in members))
        # All files are read at either level, though the windows of short ones may stand for less than their sound.
        return Prices(prices.reading * measured._whole / self._whole, windows)

    def _parts(self, prices: Prices) -> dict[Hashable, float]:
        """Lane-seconds of each front end for a second of stride, of each member for a window."""
        parts: dict[Hashable, float] = {}
        for hearing, placement, watch, price in zip(
            self._hearings, self.placements, self.watches, prices.windows, strict=True
        ):
            for part, share in watch.shares().items():
                per = placement.stride_samples / placement.sample_rate if part == hearing else 1.0
                parts[part] = max(parts.get(part, 0.0), price * share / per)
        return parts

    def lane_seconds(self, prices: Prices, n_windows: Sequence[float]) -> float:
        """What windows [listeners] will take."""
        reading = sum(self.sound_seconds(listener, n) for listener, n in enumerate(n_windows))
        return reading * prices.reading + sum(n * price for n, price in zip(n_windows, prices.windows, strict=True))

    def relative_error(self, n_windows: Sequence[float]) -> float:
        """Standard error of what so many windows will take, as a share of it; of what was measured."""
        expected = sum(rate.per_unit() * n for rate, n in zip(self._windows, n_windows, strict=True))
        variance = sum(rate.variance(n) for rate, n in zip(self._windows, n_windows, strict=True))
        return math.sqrt(variance) / expected if expected else 0.0
