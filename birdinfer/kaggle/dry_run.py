"""Run a packed submission as Kaggle does: the public run and the hidden run, in both layouts of mounts.

In: the folder that :func:`~birdinfer.kaggle.pack.pack` made, and soundscapes. Out: for each run its time and memory, a
forecast for the hidden run of full size, and what would fail. Every run has folders, an environment and a log of its
own; it sees nothing of this machine's network, home or variables.
"""

import csv
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from birdinfer.callbacks import Callback
from birdinfer.errors import BirdinferError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.soundscapes import header_seconds
from birdinfer.kaggle.competitions import Competition, kaggle_image
from birdinfer.kaggle.fake_kaggle import KagglePlan, KaggleTree, Layout, Run, changes, state, write_tree
from birdinfer.kaggle.faults import Finished, packed_faults, read_packed, run_faults
from birdinfer.kaggle.notebook import code_of
from birdinfer.kaggle.pack import MISSING_SPECIES, SAMPLE, lacking_species
from birdinfer.kaggle.sandbox import (
    Limits,
    Ran,
    cache_folder,
    clean_python,
    layer,
    no_network,
    run_isolated,
    version_of,
)
from birdinfer.prediction.store import FOLDER_ENDING, count_done
from birdinfer.submission.formats import read_sample
from birdinfer.synthetic.soundscapes import write_soundscapes
from birdinfer.system.cpu import available_cores
from birdinfer.system.files import write_atomic
from birdinfer.tables.row_ids import parse_row_id

# ---- Forecast: when files were done in a short run -> seconds for all hidden files

_LOOK_SECONDS = 0.05


class Done(NamedTuple):
    """A moment at which files were done."""

    seconds: float  # since the clock was started
    n_files: int  # done until then


class FileClock:
    """Records when and how many files a prediction has committed to ``NAME.csv.progress/`` in ``working``."""

    def __init__(self, working: Path) -> None:
        self.done: list[Done] = []
        self._working = working
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "FileClock":
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            n_files = max(map(count_done, self._working.glob(f"*{FOLDER_ENDING}")), default=0)
            if n_files > (self.done[-1].n_files if self.done else 0):
                self.done.append(Done(time.monotonic() - self._began, n_files))


def forecast(
    done: Sequence[Done], run_seconds: float, n_hidden_files: int, length_ratio: float = 1.0, workers: int | None = None
) -> float | None:
    """Estimate the seconds that a run over all hidden files will take; None with too few files, or too short ones.

    ``done`` comes from a :class:`FileClock` of a run of ``run_seconds`` over equally long files; ``length_ratio`` is
    the length of a hidden file divided by theirs. ``workers`` are the files processed at a time; None: one for each
    core that this process may use.
    """
    file_seconds = seconds_per_file(done, workers or len(os.sched_getaffinity(0)))
    if file_seconds is None:
        return None
    return run_seconds + (n_hidden_files * length_ratio - done[-1].n_files) * file_seconds


def seconds_per_file(done: Sequence[Done], workers: int) -> float | None:
    """Measure the seconds from one file to the next over all workers, without the first round; None if unknown.

    With less than two rounds the first half of the files is left out.
    """
    if not done:
        return None
    last = done[-1]
    n_first = min(workers, last.n_files // 2)
    first = next(one for one in done if one.n_files >= n_first)
    if first.n_files == last.n_files:
        return None
    return (last.seconds - first.seconds) / (last.n_files - first.n_files)


def mean_seconds(side_table: Path, otherwise: float) -> float:
    """Read the mean length of the files (seconds) from the side table; ``otherwise`` if there was no sound at all.

    A file without sound counts as well, as it does for a :class:`FileClock`.
    """
    with side_table.open(newline="", encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return sum(seconds) / len(seconds) if sum(seconds) > 0 else otherwise


# ---- The dry run

_SILENT = Callback()
SYNTHETIC_FILES = 6  # different ones, which are repeated
_RUNTIME = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
_FILLS_SPECIES = re.compile(rf'^OPTIONS = .*"{MISSING_SPECIES}', re.MULTILINE)  # in the notebook's settings
_SCORED = {"KAGGLE_IS_COMPETITION_RERUN": "1"}  # the variable that marks the hidden run


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRunSettings:
    """What :func:`dry_run` runs, and with which limits."""

    packed: Path  # the packed submission, ``submission/NAME``
    sample: Path | None = None
    """The competition's sample_submission.csv, whose species are asked for; None: the one that was packed. Without any,
    as many species as the competition has, those of the bundle first."""
    soundscapes: tuple[Path, ...] | None = None  # Ogg files for the test and training folders; None: synthetic ones
    python: Path | None = None
    """An interpreter whose environment stands for Kaggle's; None: one of Kaggle's version with Kaggle's packages, made
    once and kept in the cache."""
    layouts: tuple[Layout, ...] = tuple(Layout)
    runs: tuple[Run, ...] = tuple(Run)
    n_files: int = 24  # test soundscapes of the hidden run; one more is corrupt
    memory_gb: float = 30.0
    cores: int = 4  # at most; fewer if the machine has fewer
    limit_minutes: float | None = None  # of one run; None: the competition's
    seed: int = 0  # of synthetic soundscapes


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """One run."""

    run: Run
    layout: Layout
    seconds: float
    peak_mb: float | None  # 10^6 bytes; None if the system does not report it
    n_files: int  # soundscapes in its test folder
    forecast_seconds: float | None  # for all hidden soundscapes, on these cores; None if unknown
    faults: tuple[str, ...]
    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRunReport:
    """What a dry run found."""

    competition: str
    faults: tuple[str, ...]  # of the folder itself
    lacking: str  # which species of the competition the bundle lacks; "" if none is known, or the notebook fills them
    has_sample: bool  # whether the species were compared by name
    runs: tuple[RunReport, ...]
    python: str  # version of the Python that stood for Kaggle's
    cores: int
    network: str  # how it was removed

    @property
    def ok(self) -> bool:
        """Whether all of it would pass, with every species."""
        return self.runs_through and not self.lacking

    @property
    def runs_through(self) -> bool:
        """Whether Kaggle would score it, be it with columns that hold a constant."""
        return bool(self.runs) and not self.faults and not any(run.faults for run in self.runs)


def dry_run(settings: DryRunSettings, callback: Callback = _SILENT) -> DryRunReport:
    """Run a packed submission as Kaggle does; ``callback`` gets a message when a step begins.

    ::

        report = dry_run(DryRunSettings(packed=Path("submission/x")))
        report.ok, [run.faults for run in report.runs]

    Raises:
        InputNotFoundError: there is no packed submission, or no soundscape.
        ConfigError: its metadata or notebook are damaged, or there is no such Python.
        MetadataError: the sample is damaged, of another year, or asks for none of the bundle's species.
        OutputError: the temporary folder or the cache cannot be written.
    """
    submission = read_packed(settings.packed)
    code, bundle = code_of(submission.notebook), _bundle(submission.dataset)
    runs: tuple[RunReport, ...] = ()
    python = network = lacking = ""
    kept = settings.packed / SAMPLE
    sample = settings.sample or (kept if kept.is_file() else None)
    if bundle is not None:  # else nothing can be run
        lacking = lacking_species(bundle, submission.competition, sample)
        lacking = "" if _FILLS_SPECIES.search(code) else lacking
        callback.on_message("preparing Kaggle's Python")
        base = settings.python or clean_python(kaggle_image())
        with tempfile.TemporaryDirectory(prefix="birdinfer-kaggle-") as folder:
            scratch = Path(folder)
            callback.on_message("preparing soundscapes")
            plan = KagglePlan(
                competition=submission.competition,
                dataset=submission.dataset,
                labels=_asked_species(bundle, submission.competition, sample),
                soundscapes=_soundscapes(scratch / "sound", submission.competition, settings),
                n_test_files=settings.n_files,
            )
            runner = _Runner(scratch, base, plan, settings)
            write_atomic(runner.script, code)
            runs = tuple(runner.run(run, layout, callback) for layout in settings.layouts for run in settings.runs)
            python, network = version_of(base), runner.network.description
    return DryRunReport(
        competition=submission.competition.slug,
        faults=tuple(packed_faults(submission)),
        lacking=lacking,
        has_sample=sample is not None,
        runs=runs,
        python=python,
        cores=min(settings.cores, available_cores()),
        network=network,
    )


class _Runner:
    def __init__(self, scratch: Path, base: Path, plan: KagglePlan, settings: DryRunSettings) -> None:
        self.network = no_network(scratch)
        self.script = scratch / "source" / "script.py"
        self._scratch, self._base, self._plan, self._settings = scratch, base, plan, settings

    def run(self, run: Run, layout: Layout, callback: Callback) -> RunReport:
        callback.on_message(f"the {run} run, mounts of {layout}")
        folder = self._scratch / f"{layout}-{run}"
        tree = write_tree(folder / "kaggle", layout, run, self._plan)
        before = state(tree)
        with FileClock(tree.working) as clock:
            ran = self._isolated(folder, tree, run)
        seconds = self._forecast(clock, ran, tree)
        limits, changed = self._limits(), changes(tree, before)
        finished = Finished(run=run, tree=tree, ran=ran, limits=limits, changed=changed, forecast_seconds=seconds)
        faults = tuple(run_faults(finished, self._plan.competition))
        shutil.rmtree(folder)  # environments and bundles are large
        return RunReport(
            run=run,
            layout=layout,
            seconds=ran.seconds,
            peak_mb=ran.peak_mb,
            n_files=tree.n_files,
            forecast_seconds=seconds,
            faults=faults,
            output=ran.output,
        )

    def _isolated(self, folder: Path, tree: KaggleTree, run: Run) -> Ran:
        home = folder / "home"
        home.mkdir()
        variables = {
            **_RUNTIME,
            **(_SCORED if run is Run.hidden else {}),
            "BIRDINFER_KAGGLE_ROOT": str(tree.root),
            "PATH": os.defpath,
            "HOME": str(home),
            "TMPDIR": str(home),
            "MPLCONFIGDIR": str(cache_folder() / "matplotlib"),  # lists fonts once, not in every run
            "PIP_CONFIG_FILE": os.devnull,
        }
        python = layer(folder / "python", self._base)
        return run_isolated([python, self.script], tree.working, variables, self._limits(), self.network)

    def _limits(self) -> Limits:
        minutes = self._settings.limit_minutes or self._plan.competition.minutes_limit
        return Limits(60 * minutes, self._settings.memory_gb, self._settings.cores)

    def _forecast(self, clock: FileClock, ran: Ran, tree: KaggleTree) -> float | None:
        """A corrupt file is done at once: it counts as one without sound."""
        competition, lengths = self._plan.competition, _lengths(tree, self._plan)
        mean_seconds = sum(lengths) / max(1, len(lengths))
        if ran.exit_code != 0 or not mean_seconds:
            return None
        ratio = competition.hidden_file_seconds / mean_seconds
        workers = min(self._settings.cores, available_cores())
        return forecast(clock.done, ran.seconds, competition.n_hidden_files, ratio, workers)


def _bundle(dataset: Path) -> Bundle | None:
    """None if it cannot be loaded, which :func:`packed_faults` reports."""
    try:
        return Bundle.load(dataset)
    except BirdinferError:
        return None


def _asked_species(bundle: Bundle, competition: Competition, sample: Path | None) -> tuple[str, ...]:
    """Those of the sample in its order; else the year's number of them, of which only the bundle's names are known."""
    if sample is None:
        invented = (f"unknown_{number}" for number in range(1, competition.n_species + 1))
        return tuple(reversed([*bundle.labels, *invented][: competition.n_species]))
    found = read_sample(sample)
    if competition.year == 2022:  # a row for each
        labels = (parse_row_id(row_id, competition.year, sample).label for row_id in found.row_ids)
        return tuple(dict.fromkeys(labels))
    return found.columns


def _soundscapes(folder: Path, competition: Competition, settings: DryRunSettings) -> tuple[Path, ...]:
    if settings.soundscapes is not None:
        return settings.soundscapes
    n_files = min(SYNTHETIC_FILES, settings.n_files)
    write_soundscapes(folder, n_files, competition.hidden_file_seconds, settings.seed)
    return tuple(sorted(folder.glob("*.ogg")))


def _lengths(tree: KaggleTree, plan: KagglePlan) -> list[float]:
    competition = tree.sample.parent
    tests = sorted((competition / plan.competition.test_folder).glob("*.ogg"))
    files = tests or sorted((competition / plan.competition.train_folder).glob("*.ogg"))
    return [0.0 if path == tree.corrupt else header_seconds(path) or 0.0 for path in files]
