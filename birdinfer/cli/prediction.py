"""A prediction from its first look at the disk to its last line: table, side table, progress, budget, stop and resume.

What is on the disk is good at every moment: rows go to the journal as they are finished, a table is written whole or
not at all, and with a time budget one is there from the beginning and renewed as the run goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

from birdinfer.cli.prediction_plots import plotter
from birdinfer.cli.prediction_report import engine_told, list_problems, report_path, say_what_was_done
from birdinfer.cli.progress import Progress

if TYPE_CHECKING:
    from birdinfer.bundle import Bundle
    from birdinfer.engines import EnginePlan, EngineSpec
    from birdinfer.interrupt import StopRequest
    from birdinfer.journal import Journal
    from birdinfer.pace.budget import Budget
    from birdinfer.predictor import Predictor
    from birdinfer.soundscapes import SoundscapeResult
    from birdinfer.submission import SubmissionWriter, Written

EXIT_WITH_FAILURES = 3
EXIT_OVER_BUDGET = 4

_LEAVING_SECONDS = 0.5
"""From the last byte of the table until the process is gone: engines let go of their memory."""


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
    from birdinfer.files import check_writable
    from birdinfer.interrupt import StopRequest
    from birdinfer.journal import Journal
    from birdinfer.submission import SubmissionWriter, read_sample

    manifest = bundle.manifest
    sample = read_sample(wanted.sample_submission) if wanted.sample_submission else None
    writer = SubmissionWriter(
        bundle.labels, manifest.fallback_probabilities, manifest.rows, wanted.year, sample, wanted.threshold
    )
    check_writable(wanted.output)
    with Journal(wanted.output, len(bundle.labels)) as journal, StopRequest() as stop:
        _refuse_to_lose(journal, wanted)
        return _Prediction(bundle, paths, wanted, writer, journal, stop).run(choose)


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


class _Table:
    """The table under the result's name: whose it is, how old, and how long it takes to write."""

    _RENEWAL_SECONDS = 30.0
    """A table that grows is written anew this often at most"""
    _RENEWAL_TIMES = 50
    """and after so many times the time that it takes."""

    def __init__(self) -> None:
        self.is_own = False
        """Whether this run has written it."""
        self.write_seconds = 0.0
        self._written = perf_counter()

    def write(self, write: "Callable[[], Written]") -> "Written":
        began = perf_counter()
        written = write()
        self._written = perf_counter()
        self.is_own, self.write_seconds = True, self._written - began
        return written

    def is_stale(self) -> bool:
        age = perf_counter() - self._written
        return age > max(self._RENEWAL_SECONDS, self._RENEWAL_TIMES * self.write_seconds)


class _Prediction:
    """One run; its methods in the order in which they come."""

    def __init__(
        self,
        bundle: "Bundle",
        paths: "Sequence[Path]",
        wanted: Wanted,
        writer: "SubmissionWriter",
        journal: "Journal",
        stop: "StopRequest",
    ) -> None:
        self._bundle, self._paths, self._wanted = bundle, paths, wanted
        self._writer, self._journal, self._stop = writer, journal, stop
        self._results: dict[Path, SoundscapeResult] = {}
        self._lengths: dict[Path, float | None] = {}
        self._table = _Table()

    def run(self, choose: "Callable[[EngineSpec | None], EnginePlan]") -> Outcome:
        """From an empty table to a full one."""
        draw = plotter(self._bundle, self._wanted.plots) if self._wanted.plots else None
        if self._wanted.budget_seconds is not None:
            self._lay_an_empty_table()
        plan = choose(self._spec_before())
        self._open_journal(plan.spec)
        self._predict(plan)
        if self._stop.requested:
            self._leave()
        results = self._all_results()
        written = self._write()
        report = report_path(self._wanted.output)
        list_problems(results, report)
        if not self._wanted.quiet:
            n_windows = sum(self._journal.spool.n_windows(path.stem) or 0 for path in self._paths)
            seconds = perf_counter() - self._wanted.began
            say_what_was_done(
                results, n_windows, seconds, engine_told(self._bundle, plan), self._wanted.output, written
            )
        if draw is not None:  # last: the tables are safe, whatever becomes of a picture
            for path in self._paths:
                draw(path, self._journal.spool)
        outcome = Outcome(results)
        if outcome.exit_code != EXIT_OVER_BUDGET:
            self._journal.discard()
        return outcome

    def _lay_an_empty_table(self) -> None:
        """All rows, filled with the prior; not over the table of the run that is to go on."""
        from birdinfer.soundscapes import header_seconds
        from birdinfer.spool import ScoreSpool

        self._lengths = {path: header_seconds(path) for path in self._paths}
        if self._wanted.resume and self._wanted.output.is_file():
            return
        with ScoreSpool(self._wanted.output.parent, len(self._bundle.labels)) as nothing:
            self._table.write(lambda: self._writer.write(self._wanted.output, nothing, self._all_results()))

    def _spec_before(self) -> "EngineSpec | None":
        """What computed the run that is to go on."""
        from birdinfer.engines import parse_spec

        before = self._journal.identity() if self._wanted.resume else None
        return parse_spec(before.engine) if before else None

    def _open_journal(self, spec: "EngineSpec") -> None:
        from birdinfer.cli.console import stderr
        from birdinfer.journal import RunIdentity

        identity = RunIdentity.of(self._bundle, spec)
        if not self._wanted.resume:
            self._journal.begin(identity)
            return
        self._results = self._journal.resume(identity, self._paths)
        if not self._wanted.quiet:
            stderr().print(f"{len(self._results)} of {len(self._paths)} files are done already")

    def _predict(self, plan: "EnginePlan") -> None:
        """Hear the files that are not done yet."""
        from birdinfer.soundscapes import predict_soundscapes

        paths = [path for path in self._paths if path not in self._results]
        if not paths:
            return
        hearing, news = self._hearing(plan, paths)
        with Progress(len(paths), self._wanted.quiet) as progress:

            def look_up() -> bool:
                for line in news():
                    progress.say(line)
                self._renew()
                return self._stop.requested

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
            lambda: self._table.write_seconds + _LEAVING_SECONDS,
            plan.lanes,
        )
        return budget, budget.news

    def _renew(self) -> None:
        """With a budget, write what is known by now, every now and then."""
        if self._wanted.budget_seconds is not None and self._table.is_stale():
            self._write()

    def _write(self) -> "Written":
        from birdinfer.submission import write_file_report

        results = self._all_results()
        written = self._table.write(lambda: self._writer.write(self._wanted.output, self._journal.spool, results))
        write_file_report(report_path(self._wanted.output), results)
        return written

    def _all_results(self) -> "list[SoundscapeResult]":
        """In the order asked for; what is not done is ``stopped``."""
        from birdinfer.soundscapes import SoundscapeResult
        from birdinfer.status import Status

        return [
            self._results.get(path)
            or SoundscapeResult(path, Status.stopped, expected_seconds=self._lengths.get(path), problem="not reached")
            for path in self._paths
        ]

    def _leave(self) -> NoReturn:
        """Told to stop: what is done goes into a table where no older one would be lost."""
        from birdinfer.cli.console import shown, stderr

        n_done = len(self._results)
        self._journal.sync()
        keeps_older = not self._table.is_own and self._wanted.output.exists()
        if n_done and not keeps_older:
            self._write()
        if n_done:
            told = f"{n_done} of {len(self._paths)} files are done; --resume goes on"
            older = f" ({self._wanted.output} is as it was)" if keeps_older else ""
            stderr().print(shown(told + older))
        self._stop.leave()
