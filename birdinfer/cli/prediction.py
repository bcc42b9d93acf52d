"""A prediction from its first look at the disk to its last line: table, side table, progress, budget, stop and resume.

What is on the disk is good at every moment: rows go to the journal as they are finished, a table is written whole or
not at all, and with a time budget one is there from the beginning and renewed as the run goes on. A signal ends at once
what comes before the first file and after the last table, and is put off while there are rows to be saved.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

from birdinfer.cli.prediction_plots import plotter
from birdinfer.cli.prediction_report import engine_told, list_problems, say_what_was_done
from birdinfer.cli.prediction_tables import Tables
from birdinfer.cli.progress import Progress

if TYPE_CHECKING:
    from birdinfer.bundle import Bundle
    from birdinfer.engines import EnginePlan, EngineSpec
    from birdinfer.interrupt import StopRequest
    from birdinfer.journal import Journal
    from birdinfer.pace.budget import Budget
    from birdinfer.predictor import Predictor
    from birdinfer.soundscapes import SoundscapeResult
    from birdinfer.submission import Written

EXIT_WITH_FAILURES = 3
EXIT_OVER_BUDGET = 4

_LEAVING_SECONDS = 0.5
"""From the last byte of the tables until the process is gone: engines let go of their memory."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a prediction is to write, and how it goes about it."""

    output: Path
    sample_submission: Path | None = None
    year: int = 2026
    threshold: float = 0.5
    plots: Path | None = None
    resume: bool = False
    force: bool = False
    """Whether what a run that was stopped has done may be lost."""
    budget_seconds: float | None = None
    began: float = field(default_factory=perf_counter)
    """When the budget's clock began to run."""
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a prediction."""

    results: "list[SoundscapeResult]"
    """In the order of the files asked for."""

    @property
    def exit_code(self) -> int:
        """0: all files were heard as they are; 3: some failed or are damaged; 4: there was no time for some."""
        from birdinfer.status import Status

        statuses = {result.status for result in self.results}
        if Status.skipped_by_budget in statuses:
            return EXIT_OVER_BUDGET
        return EXIT_WITH_FAILURES if statuses - {Status.ok, Status.silent, Status.too_short} else 0


def predict_to_submission(
    bundle: "Bundle", paths: "Sequence[Path]", wanted: Wanted, choose: "Callable[[EngineSpec | None], EnginePlan]"
) -> Outcome:
    """Predict files, show how far it is, write the table and its side table.

    Args:
        bundle: what predicts, with the overlap, blend and post-processing wanted.
        paths: the sound files.
        wanted: all else.
        choose: says what runs it, once a table is safe; gets the engine of the run that is to go on.

    Raises:
        BirdinferError: it cannot be done as asked; nothing was touched, but with a budget an older table.
        KeyboardInterrupt: stopped with Ctrl-C; what is done is kept.
        SystemExit: 143, stopped with SIGTERM; as above.
    """
    from birdinfer.interrupt import leaving_at_sigterm
    from birdinfer.journal import Journal
    from birdinfer.submission import SubmissionWriter, read_sample

    manifest = bundle.manifest
    sample = read_sample(wanted.sample_submission) if wanted.sample_submission else None
    writer = SubmissionWriter(
        bundle.labels, manifest.fallback_probabilities, manifest.rows, wanted.year, sample, wanted.threshold
    )
    writer.check_names(paths)
    tables = Tables(wanted.output, writer)
    with leaving_at_sigterm(), Journal(wanted.output, len(bundle.labels)) as journal:
        _refuse_to_lose(journal, wanted)
        tables.tidy()
        return _Prediction(bundle, paths, wanted, tables, journal).run(choose)


def _refuse_to_lose(journal: "Journal", wanted: Wanted) -> None:
    """Hours of work are not thrown away because an option was forgotten."""
    from birdinfer.errors import OutputError

    n_done = 0 if wanted.resume or wanted.force else journal.n_done()
    if n_done:
        raise OutputError(
            wanted.output,
            f"a run that was stopped has left {n_done} finished files in {journal.folder}",
            "go on with --resume, or begin anew with --force",
        )


class _Prediction:
    """One run; its methods in the order in which they come."""

    def __init__(
        self,
        bundle: "Bundle",
        paths: "Sequence[Path]",
        wanted: Wanted,
        tables: Tables,
        journal: "Journal",
    ) -> None:
        self._bundle, self._paths, self._wanted = bundle, paths, wanted
        self._tables, self._journal = tables, journal
        self._results: dict[Path, SoundscapeResult] = {}
        self._done_before: frozenset[Path] = frozenset()
        self._lengths: dict[Path, float | None] = {}

    def run(self, choose: "Callable[[EngineSpec | None], EnginePlan]") -> Outcome:
        """From an empty table to a full one."""
        from birdinfer.interrupt import StopRequest

        stop = StopRequest()
        draw = plotter(self._bundle, self._wanted.plots) if self._wanted.plots else None
        if self._wanted.budget_seconds is not None:
            self._lay_an_empty_table()
        plan = choose(self._spec_before())
        self._open_journal(plan.spec)
        written = self._hear_and_write(plan, stop)
        outcome = Outcome(self._all_results())
        self._tell(outcome.results, written, engine_told(self._bundle, plan))
        if draw is not None:  # last: the tables are safe, whatever becomes of a picture
            stop.check()
            for path in self._paths:
                draw(path, self._journal.spool)
        if outcome.exit_code != EXIT_OVER_BUDGET:
            self._journal.discard()
        return outcome

    def _lay_an_empty_table(self) -> None:
        """All rows, filled with the prior; not over the table of a run that perhaps does not go on."""
        from birdinfer.soundscapes import header_seconds
        from birdinfer.spool import ScoreSpool

        self._lengths = {path: header_seconds(path) for path in self._paths}
        if self._wanted.resume and self._wanted.output.is_file():
            return
        with ScoreSpool(self._wanted.output.parent, len(self._bundle.labels)) as nothing:
            self._tables.write(nothing, self._all_results())

    def _spec_before(self) -> "EngineSpec | None":
        """What computed the run that is to go on."""
        from birdinfer.engines import parse_spec

        before = self._journal.identity() if self._wanted.resume else None
        return parse_spec(before.engine) if before else None

    def _open_journal(self, spec: "EngineSpec") -> None:
        from birdinfer.cli.console import stderr
        from birdinfer.run_identity import RunIdentity

        identity = RunIdentity.of(self._bundle, spec)
        if not self._wanted.resume:
            self._journal.begin(identity)
            return
        self._results = self._journal.resume(identity, self._paths)
        self._done_before = frozenset(self._results)
        if not self._wanted.quiet:
            stderr().print(f"{len(self._results)} of {len(self._paths)} files are done already")
        if self._wanted.budget_seconds is not None and not self._tables.is_own:
            self._write()  # how long that takes is a part of the budget

    def _hear_and_write(self, plan: "EnginePlan", stop: "StopRequest") -> "Written":
        """Hear the files that are not done yet; from the first of them to the last table a signal is put off."""
        paths = [path for path in self._paths if path not in self._results]
        hearing, news = self._hearing(plan, paths) if paths else (None, list)
        with stop:
            if hearing is not None:
                self._predict(hearing, paths, news, stop)
            if stop.requested:
                self._leave(stop)
            return self._write()

    def _predict(
        self,
        hearing: "Predictor | Budget",
        paths: "Sequence[Path]",
        news: "Callable[[], list[str]]",
        stop: "StopRequest",
    ) -> None:
        from birdinfer.soundscapes import predict_soundscapes

        with Progress(len(paths), self._wanted.quiet) as progress:

            def look_up() -> bool:
                for line in news():
                    progress.say(line)
                self._renew()
                return stop.requested

            for result in predict_soundscapes(hearing, paths, progress.advance, self._journal, look_up):
                self._results[result.path] = result
                progress.file_done(failed=not result.n_rows)

    def _hearing(
        self, plan: "EnginePlan", paths: "Sequence[Path]"
    ) -> "tuple[Predictor | Budget, Callable[[], list[str]]]":
        """Who hears, and what there is to be told of it."""
        from birdinfer.predictor import Predictor

        if self._wanted.budget_seconds is None:
            return Predictor(self._bundle, plan), list
        from birdinfer.pace.budget import Budget
        from birdinfer.pace.ladder import ladder

        budget = Budget(
            lambda bundle: Predictor(bundle, plan),
            ladder(self._bundle),
            {path: self._lengths[path] for path in paths},
            self._wanted.budget_seconds,
            self._wanted.began,
            lambda: self._tables.write_seconds + _LEAVING_SECONDS,
            plan.lanes,
        )
        return budget, budget.news

    def _renew(self) -> None:
        """With a budget, write what is known by now, every now and then."""
        if self._wanted.budget_seconds is not None and self._tables.is_stale():
            self._write()

    def _write(self) -> "Written":
        return self._tables.write(self._journal.spool, self._all_results())

    def _tell(self, results: "list[SoundscapeResult]", written: "Written", engine: str) -> None:
        """The last lines."""
        list_problems(results, self._tables.report)
        if self._wanted.quiet:
            return
        n_windows = sum(self._journal.spool.n_windows(path.stem) or 0 for path in self._paths)
        heard_seconds = sum(result.seconds for result in results if result.path not in self._done_before)
        seconds = perf_counter() - self._wanted.began
        say_what_was_done(results, n_windows, heard_seconds, seconds, engine, self._wanted.output, written)

    def _all_results(self) -> "list[SoundscapeResult]":
        """In the order asked for; what is not done is ``stopped``."""
        from birdinfer.soundscapes import SoundscapeResult
        from birdinfer.status import Status

        return [
            self._results.get(path)
            or SoundscapeResult(path, Status.stopped, expected_seconds=self._lengths.get(path), problem="not reached")
            for path in self._paths
        ]

    def _leave(self, stop: "StopRequest") -> NoReturn:
        """Told to stop: what is done goes into a table where no older one would be lost."""
        from birdinfer.cli.console import shown, stderr

        n_done = len(self._results)
        self._journal.sync()
        keeps_older = not self._tables.is_own and self._wanted.output.exists()
        if n_done and not keeps_older:
            self._write()
        if n_done:
            told = f"{n_done} of {len(self._paths)} files are done; --resume goes on"
            older = f" ({self._wanted.output} is as it was)" if keeps_older else ""
            stderr().print(shown(told + older))
        stop.leave()
