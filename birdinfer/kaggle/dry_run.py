"""A packed submission, run as Kaggle runs it: for the author to see, and for the score; in both layouts of mounts.

Comes in: the folder that ``birdinfer kaggle pack`` made, and soundscapes. Goes out: for each run how long it took, the
memory it needed, how long the hidden run would take, and what would fail. Every run has a tree, an environment and a
log of its own; nothing of this machine's network, home or variables reaches it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from birdinfer.bundle import Bundle
from birdinfer.cores import available_cores
from birdinfer.errors import BirdinferError
from birdinfer.files import write_atomic
from birdinfer.kaggle.clean_python import cache_folder, clean_python, layer, version_of
from birdinfer.kaggle.competitions import Competition
from birdinfer.kaggle.fake_kaggle import KagglePlan, KaggleTree, Layout, Run, changes, state, write_tree
from birdinfer.kaggle.hidden_forecast import FileClock, forecast
from birdinfer.kaggle.image import kaggle_image
from birdinfer.kaggle.isolation import Limits, Ran, no_network, run_isolated
from birdinfer.kaggle.notebook import code_of
from birdinfer.kaggle.packed_faults import packed_faults, read_packed
from birdinfer.kaggle.run_faults import Finished, run_faults
from birdinfer.soundscapes import header_seconds
from birdinfer.synthetic_files import write_soundscapes

SYNTHETIC_FILES = 6
"""Different ones; they come round again."""
_RUNTIME = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}
_SCORED = {"KAGGLE_IS_COMPETITION_RERUN": "1"}
"""How Kaggle tells a notebook that this is the hidden run."""


class DryRunSettings(NamedTuple):
    """How Kaggle is played."""

    layouts: tuple[Layout, ...] = tuple(Layout)
    runs: tuple[Run, ...] = tuple(Run)
    n_files: int = 24
    """Test soundscapes of the hidden run; one more is corrupt."""
    memory_gb: float = 30.0
    cores: int = 4
    """At most; as many as there are."""
    limit_minutes: float | None = None
    """Of one run; the competition's if None."""
    seed: int = 0
    """Of synthetic soundscapes."""


USUAL = DryRunSettings()
"""Both layouts, with what Kaggle gives."""


class RunReport(NamedTuple):
    """One run."""

    run: Run
    layout: Layout
    seconds: float
    peak_mb: float | None
    """None where the system does not tell."""
    n_files: int
    """Soundscapes in its test folder."""
    forecast_seconds: float | None
    """For all hidden soundscapes, on these cores; None where it could not be told."""
    faults: tuple[str, ...]
    output: str


class DryRunReport(NamedTuple):
    """What a dry run found."""

    competition: str
    faults: tuple[str, ...]
    """Of the folder itself."""
    runs: tuple[RunReport, ...]
    python: str
    """Version of the Python that took Kaggle's place."""
    cores: int
    network: str
    """How it was taken away."""

    @property
    def is_good(self) -> bool:
        """Whether all of it would pass."""
        return bool(self.runs) and not self.faults and not any(run.faults for run in self.runs)


def dry_run(
    packed: Path,
    soundscapes: Sequence[Path] | None = None,
    python: Path | None = None,
    settings: DryRunSettings = USUAL,
    tell: Callable[[str], None] = lambda line: None,
) -> DryRunReport:
    """Play Kaggle.

    Args:
        packed: ``submission/NAME``.
        soundscapes: Ogg files for the test and training folders; synthetic ones are made if None.
        python: an interpreter whose environment takes the place of Kaggle's, as it stands; None: one of Kaggle's
            version with Kaggle's packages, made once and kept in the cache.
        settings: limits, layouts and sizes.
        tell: gets a line when a step begins.

    Raises:
        InputNotFoundError: there is no packed submission, or no soundscape.
        ConfigError: its metadata or notebook are damaged, or there is no such Python.
        OutputError: the temporary folder or the cache cannot be written.
    """
    submission = read_packed(packed)
    code, faults, labels = code_of(submission.notebook), tuple(packed_faults(submission)), _labels(submission.dataset)
    cores, slug = min(settings.cores, available_cores()), submission.competition.slug
    if not labels:  # nothing can be asked of it
        return DryRunReport(slug, faults, (), "", cores, "")
    tell("preparing Kaggle's Python")
    base = python or clean_python(kaggle_image())
    with tempfile.TemporaryDirectory(prefix="birdinfer-kaggle-") as folder:
        scratch = Path(folder)
        tell("preparing soundscapes")
        sounds = _made(scratch / "sound", submission.competition, settings) if soundscapes is None else soundscapes
        plan = KagglePlan(submission.competition, submission.dataset, labels, tuple(sounds), settings.n_files)
        player = _Player(scratch, code, base, plan, settings)
        runs = tuple(player.play(run, layout, tell) for layout in settings.layouts for run in settings.runs)
        return DryRunReport(slug, faults, runs, version_of(base), cores, player.network.told)


class _Player:
    """Runs one notebook several times."""

    def __init__(self, scratch: Path, code: str, base: Path, plan: KagglePlan, settings: DryRunSettings) -> None:
        self.network = no_network(scratch)
        self._scratch, self._base, self._plan, self._settings = scratch, base, plan, settings
        self._script = scratch / "source" / "script.py"
        write_atomic(self._script, code)

    def play(self, run: Run, layout: Layout, tell: Callable[[str], None]) -> RunReport:
        """One run, from an empty tree to its faults."""
        tell(f"the {run} run, mounts of {layout}")
        place = self._scratch / f"{layout}-{run}"
        tree = write_tree(place / "kaggle", layout, run, self._plan)
        before = state(tree)
        with FileClock(tree.working) as clock:
            ran = self._run(place, tree, run)
        told = self._forecast(clock, ran, tree)
        finished = Finished(run, tree, ran, self._limits(), changes(tree, before), told)
        faults = tuple(run_faults(finished, self._plan.competition))
        shutil.rmtree(place)  # environments and bundles are large
        return RunReport(run, layout, ran.seconds, ran.peak_mb, tree.n_files, told, faults, ran.output)

    def _run(self, place: Path, tree: KaggleTree, run: Run) -> Ran:
        home = place / "home"
        home.mkdir()
        variables = {
            **_RUNTIME,
            **(_SCORED if run is Run.hidden else {}),
            "BIRDINFER_KAGGLE_ROOT": str(tree.root),
            "PATH": os.defpath,
            "HOME": str(home),
            "TMPDIR": str(home),
            "MPLCONFIGDIR": str(cache_folder() / "matplotlib"),  # fonts are listed once, not in every run
            "PIP_CONFIG_FILE": os.devnull,
        }
        python = layer(place / "python", self._base)
        return run_isolated([python, self._script], tree.working, variables, self._limits(), self.network)

    def _limits(self) -> Limits:
        minutes = self._settings.limit_minutes or self._plan.competition.minutes_limit
        return Limits(60 * minutes, self._settings.memory_gb, self._settings.cores)

    def _forecast(self, clock: FileClock, ran: Ran, tree: KaggleTree) -> float | None:
        """A corrupt file is done at once: it counts as one without sound."""
        competition, heard = self._plan.competition, _lengths(tree, self._plan)
        mean_seconds = sum(heard) / max(1, len(heard))
        if ran.exit_code != 0 or not mean_seconds:
            return None
        ratio = competition.hidden_file_seconds / mean_seconds
        lanes = min(self._settings.cores, available_cores())
        return forecast(clock.done, ran.seconds, competition.n_hidden_files, ratio, lanes)


def _labels(dataset: Path) -> tuple[str, ...]:
    """The bundle's; none if it cannot be loaded, which :func:`packed_faults` tells."""
    try:
        return Bundle.load(dataset).labels
    except BirdinferError:
        return ()


def _made(folder: Path, competition: Competition, settings: DryRunSettings) -> list[Path]:
    """Synthetic soundscapes as long as the competition's."""
    n_files = min(SYNTHETIC_FILES, settings.n_files)
    write_soundscapes(folder, n_files, competition.hidden_file_seconds, settings.seed)
    return sorted(folder.glob("*.ogg"))


def _lengths(tree: KaggleTree, plan: KagglePlan) -> list[float]:
    """Seconds of sound in each file that the run predicted: those of the test folder, or else the training ones."""
    competition = tree.sample.parent
    tests = sorted((competition / plan.competition.test_folder).glob("*.ogg"))
    heard = tests or sorted((competition / plan.competition.train_folder).glob("*.ogg"))
    return [0.0 if path == tree.corrupt else header_seconds(path) or 0.0 for path in heard]
