"""``python benchmarks/simulate_archive.py``: an archive of a million hours on 2,000 cores, as discrete events.

In: core seconds that an hour of sound takes (measured, docs/measured.md), an archive, a cluster, and how often what
fails. Out: duration, core time lost to retries, calls of the store. A unit is begun by a free core, ends, or is lost
with its worker, its node or its driver, and then waits at the head of the queue. ``--picture FILE.png`` draws time and
cost over cores: lines are the model of docs/scale.md, dots are simulated.
"""

import argparse
import heapq
import math
import random
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

CORE_SECONDS = {
    "efficientnet_b0, bf16": 9.96,
    "efficientnet_b0, AVX2 (fp32)": 12.7,
    "eca_nfnet_l0, INT8": 34.7,
    "five efficientnet_b0, bf16": 38.9,
    "BirdNET 2.4": 43.7,
}
"""Of an hour of sound, with decoding; ms a minute in docs/measured.md x 2 cores x 60 / 1,000."""
KEYS_A_LIST, LIST_SECONDS = 1_000, 0.15
"""Of S3's protocol, and a call's usual latency."""
PRICE_GETS, PRICE_PUTS = 0.4e-6, 5e-6
"""Dollars a call, as large stores publish them; a listing costs as much as a PUT."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """An archive, a cluster, and how often what fails; times in seconds."""

    hours: float = 1_000_000
    file_hours: float = 1.0
    hour_bytes: float = 150e6  # of FLAC, 48 kHz, mono
    core_seconds: float = CORE_SECONDS["efficientnet_b0, bf16"]
    unit_seconds: float = 90.0
    spread: float = 0.15  # of a unit's time: standard deviation over mean
    cores: int = 2_000
    node_cores: int = 16
    node_bytes: float = 1.25e9  # a second, of a node's network: 10 Gbit/s
    start: float = 6.0  # of a worker: imports, and the bundle from the disk
    losses: float = 1.0  # nodes lost an hour, of all
    unreachable: float = 0.2  # of these the share that works on unseen: its units are finished twice
    noticed: float = 30.0  # until a lost node is missed
    replaced: float = 300.0  # until another one is there
    crashes: float = 1e-3  # of units, by a worker's memory, say
    poison: float = 1e-5  # of files, which kill their worker each time
    driver_kills: tuple[float, ...] = (0.5,)  # when, as shares of the undisturbed duration
    driver_back: float = 120.0  # until the command is typed again
    refused: float = 0.001  # share of calls that the store answers with 503
    price: float = 0.05  # dollars a core-hour

    @property
    def files_a_unit(self) -> int:
        """Whole files, at least one."""
        return max(1, round(self.unit_seconds / (self.core_seconds * self.file_hours)))

    @property
    def n_files(self) -> int:
        """Of the archive."""
        return math.ceil(self.hours / self.file_hours)

    @property
    def n_units(self) -> int:
        """Of the archive."""
        return math.ceil(self.n_files / self.files_a_unit)

    @property
    def mean_unit(self) -> float:
        """Core seconds of a unit."""
        return self.files_a_unit * self.file_hours * self.core_seconds

    @property
    def staging(self) -> float:
        """Seconds that a unit's bytes take while every core of its node fetches as much."""
        return self.files_a_unit * self.file_hours * self.hour_bytes / (self.node_bytes / self.node_cores)


class Archive:
    """The run of a scenario; ``run()`` first, then its figures."""

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        self.given, self.random = scenario, random.Random(seed)
        self.now, self.order = 0.0, 0
        self.events: list[tuple[float, int, str, int, int]] = []  # time, order, kind, core or node, its generation
        self.fresh, self.returned = 0, deque[int]()
        self.done, self.n_done = bytearray(scenario.n_units), 0
        self.unit, self.began = [-1] * scenario.cores, [0.0] * scenario.cores
        self.generation, self.down = [0] * scenario.cores, [False] * scenario.cores
        self.crashed = Counter[int]()
        self.free = list[int]()
        self.useful = self.lost = self.twice = self.starting = self.restarting = self.waiting = 0.0
        self.calls, self.happened = Counter[str](), Counter[str]()
        self.calls_of_minute = Counter[int]()
        self.sigma = math.sqrt(math.log(1 + scenario.spread**2))
        has_poison = 1 - (1 - scenario.poison) ** scenario.files_a_unit
        self.poisoned = {unit for unit in range(scenario.n_units) if self.random.random() < has_poison}

    def run(self) -> "Archive":
        """Let everything happen."""
        given = self.given
        self._list("archive", given.n_files)
        ideal = given.n_units * given.mean_unit / given.cores
        for share in given.driver_kills:
            self._at(self.now + share * ideal, "driver", 0)
        if given.losses:
            self._at(self.now + self._until_loss(), "node", 0)
        self._start(list(range(given.cores)))
        while self.n_done < given.n_units:
            self.now, _, kind, which, generation = heapq.heappop(self.events)
            if kind in ("end", "crash", "ready") and generation != self.generation[which]:
                continue  # of a core that was lost in between
            getattr(self, f"_{kind}")(which)
        return self

    # ---- What happens

    def _at(self, time: float, kind: str, which: int) -> None:
        self.order += 1
        heapq.heappush(self.events, (time, self.order, kind, which, self.generation[which] if self.generation else 0))

    def _start(self, cores: list[int], because: str = "") -> None:
        """Workers start: those of the beginning, or again because something was lost."""
        seconds = self.given.start * len(cores)
        self.starting += 0 if because else seconds
        self.restarting += seconds if because else 0
        for core in cores:
            self._at(self.now + self.given.start, "ready", core)

    def _ready(self, core: int) -> None:
        """A core takes a unit: one that came back, else the next."""
        given = self.given
        self.unit[core] = -1
        while self.returned and self.done[self.returned[0]]:
            self.returned.popleft()
        if self.returned:
            unit = self.returned.popleft()
        elif self.fresh < given.n_units:
            unit, self.fresh = self.fresh, self.fresh + 1
        else:
            self.free.append(core)
            return
        seconds = given.mean_unit * self.random.lognormvariate(-(self.sigma**2) / 2, self.sigma)
        self._count_calls(unit)
        # The next unit's sound is fetched while this one is processed: only what takes longer is waited for.
        self.waiting += max(0.0, given.staging - seconds)
        self.unit[core], self.began[core] = unit, self.now
        is_poisoned = unit in self.poisoned
        if (is_poisoned or self.random.random() < given.crashes) and self.crashed[unit] < 3:
            self._at(self.now + seconds * self.random.random(), "crash", core)
        else:
            if is_poisoned:  # file by file, in a process that dies twice at the guilty one
                self.restarting += 3 * given.start
                self.happened["units run file by file"] += 1
                seconds += 3 * given.start
            self._at(self.now + max(seconds, given.staging), "end", core)

    def _end(self, core: int) -> None:
        unit, seconds = self.unit[core], self.now - self.began[core]
        if self.done[unit]:
            self.twice += seconds
        else:
            self.done[unit], self.n_done = 1, self.n_done + 1
            self.useful += seconds
        self._ready(core)

    def _crash(self, core: int) -> None:
        self.crashed[self.unit[core]] += 1
        self.happened["worker crashes"] += 1
        self._lose(core)
        self._start([core], "crash")

    def _node(self, _: int) -> None:
        given, n_nodes = self.given, -(-self.given.cores // self.given.node_cores)
        self._at(self.now + self._until_loss(), "node", 0)
        first = self.random.randrange(n_nodes) * given.node_cores
        cores = [core for core in range(first, min(first + given.node_cores, given.cores)) if not self.down[core]]
        still_works = self.random.random() < given.unreachable
        self.happened["nodes lost"] += 1
        for core in cores:
            if still_works and self.unit[core] >= 0:  # its units end, and are given out again: half as waste
                self.twice += given.mean_unit
            self._lose(core, delay=given.noticed)
            self.down[core] = True
            self._at(self.now + given.replaced, "replace", core)
        self.free = [core for core in self.free if not self.down[core]]

    def _replace(self, core: int) -> None:
        self.down[core] = False
        self._start([core], "node")

    def _back(self, unit: int) -> None:
        """A unit of a node that is missed by now."""
        self.returned.append(unit)
        self._wake()

    def _driver(self, _: int) -> None:
        """The driver is killed and its workers end with it; the command is typed again and lists the markers."""
        self.happened["driver kills"] += 1
        cores = [core for core in range(self.given.cores) if not self.down[core]]
        for core in cores:
            self._lose(core)
        self.free = []
        began, self.now = self.now, self.now + self.given.driver_back
        self._list("markers", self.n_done)
        self._start(cores, "driver")
        self.now = began

    def _lose(self, core: int, delay: float = 0.0) -> None:
        unit = self.unit[core]
        self.generation[core] += 1
        self.unit[core] = -1
        if unit < 0:
            return
        self.lost += self.now - self.began[core]
        if delay:
            self.order += 1
            heapq.heappush(self.events, (self.now + delay, self.order, "back", unit, 0))
        else:
            self.returned.append(unit)
            self._wake()

    def _wake(self) -> None:
        if self.free:
            self._ready(self.free.pop())

    def _until_loss(self) -> float:
        return self.random.expovariate(self.given.losses / 3_600)

    # ---- Calls of the store

    def _list(self, what: str, n_keys: int) -> None:
        pages = -(-n_keys // KEYS_A_LIST)
        self.calls[f"LIST ({what})"] += pages
        self.now += pages * LIST_SECONDS

    def _count_calls(self, unit: int) -> None:
        given = self.given
        begun = sum(unit >= 0 for unit in self.unit[:: max(1, given.cores // 100)]) * max(1, given.cores // 100)
        calls = {
            "GET": given.files_a_unit,
            "HEAD": 1 + 2 * given.files_a_unit,  # a unit's marker; a file's size before, its checksum after
            "PUT": 3,  # that it is begun, the part, the marker
            "DELETE": 1,
            "LIST (begun units)": 1 + begun // KEYS_A_LIST,
        }
        again = sum(self.random.random() < given.refused for _ in range(calls["GET"] + calls["HEAD"]))
        self.calls.update({**calls, "GET": calls["GET"] + again})
        self.calls_of_minute[int(self.now // 60)] += sum(calls.values()) + again

    # ---- Figures

    @property
    def waste(self) -> float:
        """Core time of attempts that came to nothing, of second ones, and of starting again, over the useful."""
        return (self.lost + self.twice + self.restarting) / self.useful

    @property
    def dollars(self) -> float:
        """Of the cores, from the beginning to the end, and of the store's calls."""
        puts = sum(n for name, n in self.calls.items() if name.startswith(("PUT", "LIST")))
        gets = sum(self.calls.values()) - puts
        return self.given.cores * self.now / 3_600 * self.given.price + gets * PRICE_GETS + puts * PRICE_PUTS

    def lines(self) -> Iterator[tuple[str, str]]:
        """What the run took."""
        given, core_seconds = self.given, self.given.cores * self.now
        ideal = given.n_units * given.mean_unit / given.cores
        yield "units", f"{given.n_units:,} of {given.files_a_unit} files, {given.mean_unit:.0f} core seconds each"
        yield "duration", f"{self.now / 3_600:.2f} h; {ideal / 3_600:.2f} h if nothing were lost, listed or started"
        yield "cores busy with what counts", f"{self.useful / core_seconds:.1%}"
        parts = {"attempts lost": self.lost, "done twice": self.twice, "started again": self.restarting}
        detail = ", ".join(f"{name} {seconds / self.useful:.2%}" for name, seconds in parts.items())
        yield "waste by retries", f"{self.waste:.2%} of the useful core time ({detail})"
        yield "what happened", ", ".join(f"{n:,} {name}" for name, n in self.happened.items()) or "nothing"
        yield "calls of the store", ", ".join(f"{n:,} {name}" for name, n in sorted(self.calls.items()))
        yield "calls a second, highest minute", f"{max(self.calls_of_minute.values()) / 60:,.0f}"
        rate = self.given.hours * self.given.hour_bytes / self.now
        yield "bytes in", f"{self.given.hours * self.given.hour_bytes / 1e12:,.0f} TB, {rate / 1e9:,.1f} GB/s"
        yield "waiting for the network", f"{self.waiting / self.useful:.2%} of the useful core time"
        yield "cost", f"${self.dollars:,.0f} at ${given.price:g} a core-hour and what stores ask for calls"


def modelled_seconds(given: Scenario) -> float:
    """The duration by the formula of docs/scale.md: listing, a start, the work with its losses, the last unit."""
    work = given.n_units * max(given.mean_unit, given.staging)
    loss_rate = given.losses / 3_600 / given.cores  # of a core second, in core seconds:
    loss = given.node_cores * (given.mean_unit * (0.5 + given.unreachable) + given.replaced)
    listing = given.n_files / KEYS_A_LIST * LIST_SECONDS
    return listing + given.start + work / given.cores * (1 + loss_rate * loss) + given.mean_unit * (1 + given.spread)


def driver_megabytes(n_units: int) -> float:
    """Memory of a process that holds what a driver does: units as they are read, names of markers, Ray."""
    code = (
        "import sys, tempfile, resource, pyarrow, pyarrow.parquet as parquet\n"
        "from birdinfer.scale.places import Place\n"
        "from birdinfer.scale.plan import UNITS, OpenPlan, Unit\n"
        "n = int(sys.argv[1])\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    columns = [[f'{i:020x}' for i in range(n)], [9] * n, [10**9] * n, [3e4] * n]\n"
        "    names = Unit.__struct_fields__\n"
        "    parquet.write_table(pyarrow.table(dict(zip(names, columns))), f'{folder}/{UNITS}')\n"
        "    units = OpenPlan(Place(folder), None).units\n"
        "    there = {f'part-{unit.digest}.json' for unit in units}\n"
        "    missing = sorted(set(range(n)))\n"
        "import ray\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
    )
    command = [sys.executable, "-c", code, str(n_units)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def draw(path: Path, given: Scenario) -> None:
    """Time and cost over cores for each of ``CORE_SECONDS``."""
    from matplotlib.figure import Figure

    from birdinfer.plots.style import PALETTE, save

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    times, costs = figure.subplots(1, 2, sharex=True)
    quiet = replace(given, driver_kills=())
    for (name, seconds), colour in zip(CORE_SECONDS.items(), PALETTE, strict=False):
        # A node is lost as often, however many there are.
        each_loses, its = given.losses / given.cores, replace(quiet, core_seconds=seconds)
        every = [replace(its, cores=2**power, losses=each_loses * 2**power) for power in range(4, 16)]
        cores = [each.cores for each in every]
        durations = [modelled_seconds(each) for each in every]
        times.plot(cores, [duration / 3_600 for duration in durations], color=colour, label=name)
        dollars = [n * duration / 3_600 * given.price for n, duration in zip(cores, durations, strict=True)]
        costs.plot(cores, dollars, color=colour)
        for n in (256, 2_048, 16_384):
            ran = Archive(replace(its, cores=n, losses=each_loses * n)).run()
            times.plot(n, ran.now / 3_600, "o", color=colour, markersize=4)
            costs.plot(n, n * ran.now / 3_600 * given.price, "o", color=colour, markersize=4)
    for axes in (times, costs):
        axes.set(xscale="log", xlabel="cores")
        axes.grid(alpha=0.3)
    times.set(yscale="log", title=f"hours for {given.hours:,.0f} hours of sound")
    costs.set(ylim=(0, None), title=f"dollars, at ${given.price:g} a core-hour")
    times.legend(frameon=False, fontsize="small")
    save(figure, path)


def main() -> None:
    """Print the run's figures, or draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("hours", "file_hours", "core_seconds", "losses", "price", "unit_seconds", "crashes", "node_bytes"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float)
    parser.add_argument("--cores", type=int)
    parser.add_argument("--picture", type=Path)
    asked = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    picture = asked.pop("picture", None)
    given = Scenario(**asked)
    if picture:
        draw(picture, given)
        return
    archive = Archive(given).run()
    for name, text in archive.lines():
        print(f"{name:32}{text}")
    model = modelled_seconds(replace(given, driver_kills=()))
    print(f"{'the formula, without the driver':32}{model / 3_600:.2f} h")
    megabytes = driver_megabytes(given.n_units)
    print(f"{'memory of a driver':32}{megabytes:,.0f} MB")
    sys.exit(archive.waste >= 0.02 or megabytes >= 2_000)


if __name__ == "__main__":
    main()
