"""``birdinfer predict``: soundscapes -> submission.csv, with a bar while it runs and a report at its end."""

import contextlib
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
import typer
from rich.markup import escape

from birdinfer.audio.channels import MEAN, split_channel
from birdinfer.audio.status import Status
from birdinfer.audio.stream import AudioStream
from birdinfer.audio.windows import cut_batches, make_grid
from birdinfer.cli import STARTED
from birdinfer.cli.console import make_table, needing, shown, table_file
from birdinfer.cli.options import (
    BatchSize,
    BlendMembers,
    BundleFolder,
    Channel,
    EmbeddingsFolder,
    Engine,
    MergeOverlapping,
    Overlap,
    Post,
    Quiet,
    Recordings,
    Resume,
    ScoreFile,
    Smooth,
    StartAgain,
    VoiceOption,
    Workers,
    bundle_folder,
    with_scoring,
)
from birdinfer.cli.progress import StatusBar
from birdinfer.config import AggregationConfig, FrontEndConfig
from birdinfer.errors import ConfigError
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.run import PredictionCallback, PredictionOutcome, PredictionSettings, predict_to_csv
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.writer import MissingSpecies
from birdinfer.system.files import cache_path
from birdinfer.system.outputs import PICTURE, STDOUT, check_folder, check_outputs
from birdinfer.system.timing import parse_duration

EXIT_WITH_FAILURES = 3
EXIT_OVER_BUDGET = 4
_LISTED_PROBLEMS = 20
_PLOTTED_SECONDS = 600.0  # more would be unreadable, and a day of sound would fill the memory
_PROCESS_STATUS = Path("/proc/self/status")

if TYPE_CHECKING:  # what only --engine auto needs would cost every start 30 ms
    from rich.status import Status as Spinner
    from rich.table import Table

    from birdinfer.inference.autotune import AutotuneResult, Measurement


def predict(
    inputs: Recordings,
    output: ScoreFile = Path("submission.csv"),
    bundle: BundleFolder = None,
    sample_submission: Annotated[Path | None, typer.Option(
        help="Write exactly the rows and columns of this file, in its order.")] = None,
    missing_species: Annotated[str, typer.Option(
        metavar="error|prior|zero|genus|NUMBER", help="Species of the sample that the bundle lacks: refuse, or fill "
        "their columns with the bundle's mean fallback, 0, the highest score of their genus (by taxonomy.csv beside "
        "the sample), or a probability.")] = "error",
    year: Annotated[int, typer.Option(help="Format of the BirdCLEF year, 2021 to 2026.")] = 2026,
    threshold: Annotated[float, typer.Option(
        min=0, max=1, help="2021 and 2022 only: a species is present from this probability on.")] = 0.5,
    smooth: Smooth = None,
    engine: Engine = None,
    workers: Workers = None,
    batch_size: BatchSize = None,
    overlap: Overlap = None,
    merge: MergeOverlapping = None,
    plots: Annotated[Path | None, typer.Option(
        help="Draw each soundscape (at most 10 min of it) and its scores into this folder (extra report).")] = None,
    post: Post = None,
    blend: BlendMembers = None,
    group_tables: Annotated[Path | None, typer.Option(
        help="Also write the scores of each group of a blend by rank into this folder, as they are before ranking.")
    ] = None,
    voice: VoiceOption = None,
    time_budget: Annotated[str | None, typer.Option(
        help="Finish in this time, as 85m or 1h25m, counted from the start of this command: forecasts the end, gives "
        "up overlap, then shifts, then members if it would be too late, and at last files, whose rows a sample "
        "submission gets from the prior.")] = None,
    channel: Channel = MEAN,
    embeddings: EmbeddingsFolder = None,
    resume: Resume = False,
    force: StartAgain = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Predict soundscapes of any number and length and write submission.csv.

    A recording is named by its path within the input, without the ending: siteA/20250227_060000 has the rows
    siteA/20250227_060000_5 and so on. With --sample-submission the file's own name is enough.

    Beside the table stands NAME.files.csv: every file, how much of it was processed, and what is wrong with it (not
    with -o -, where all problems are listed on standard error). During the run NAME.csv.progress/ keeps what is done:
    after a kill, --resume repeats only the files that were in work. It stays while any file is not well, and --resume
    repeats those.

    Exit code 0: all files were processed. 2: refused; or the run had to end, since no model works or the disk of the
    inputs is gone, with the table of what is done. 3: the table is written, some files failed, are damaged or
    cannot be opened, or the sample asks for recordings that are not there. 4: the table is written, the time budget
    left some files out. 129, 130 and 143: stopped; --resume continues.
    """
    seconds = None if time_budget is None else parse_duration(time_budget)
    loaded = Bundle.load(bundle_folder(bundle, quiet)).with_overlap(overlap, merge.value if merge else None)
    loaded = with_scoring(loaded, smooth, post, blend)
    if resume and output == STDOUT:
        raise ConfigError("--resume", "continues a run with a file as output", "name the file: -o submission.csv")
    settings = PredictionSettings(
        sample_submission=sample_submission, missing_species=parse_missing_species(missing_species), year=year,
        threshold=threshold, resume=resume, force=force, budget_seconds=seconds, started=STARTED, engine=engine,
        workers=workers, batch_size=batch_size, keeps_progress=output != STDOUT, channel=channel,
        voice=None if voice is None else voice.value, embeddings=embeddings,
        group_tables=group_tables,
    )  # fmt: skip
    draw = SoundscapePlots(loaded, plots) if plots else None
    with table_file(output) as table, PredictionProgress(quiet, draw, output) as progress:
        outcome = predict_to_csv(loaded, inputs, replace(settings, output=table), progress)
    if outcome.n_left_out or outcome.n_damaged or outcome.n_unanswered:
        raise typer.Exit(EXIT_OVER_BUDGET if outcome.n_left_out else EXIT_WITH_FAILURES)


def parse_missing_species(text: str) -> MissingSpecies:
    """``"error"``, ``"prior"``, ``"genus"``, or ``"0.01"`` -> 0.01."""
    ways: dict[str, MissingSpecies] = {"error": "error", "prior": "prior", "zero": 0.0, "genus": "genus"}
    if text in ways:
        return ways[text]
    with contextlib.suppress(ValueError):
        if 0 <= (probability := float(text)) <= 1:
            return probability
    raise ConfigError(
        "--missing-species", f"is {text!r}, allowed are error, prior, zero, genus and numbers from 0 to 1"
    )


class PredictionProgress(PredictionCallback):
    """Show a prediction on standard error: engines, a bar of files, what is wrong with them, rows and speed."""

    def __init__(self, quiet: bool = False, plots: "SoundscapePlots | None" = None, output: Path | None = None) -> None:
        self._status, self._plots, self._is_stdout = StatusBar(quiet), plots, output == STDOUT
        self._spinner: Spinner | None = None
        self._lock = Lock()
        self._n_files = self._n_done = self._n_failed = 0
        self._share = self._seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_spinner()
        self._status.stop()

    def on_message(self, line: str) -> None:
        self._status.line(line)

    def on_warning(self, line: str) -> None:
        self._stop_spinner()
        self._status.warn(line)

    def on_engine_trial(self, trial: "Measurement") -> None:
        if self._status.quiet:
            return
        found = escape(trial.refused) if trial.refused else f"{trial.rows_per_second:.1f} rows/s"
        text = f"measuring engines: {trial.plan}: {found}"  # fits a line of 80 columns
        if self._spinner is None:
            self._spinner = self._status.console.status(text)
            self._spinner.start()
        self._spinner.update(text)

    def on_engine_choice(self, choice: "AutotuneResult") -> None:
        self._stop_spinner()
        if self._status.quiet:
            return
        if not choice.is_from_cache:
            self._status.console.print(_trials_table(choice))
        cached = f" (measured before, kept in {cache_path()}; remove it to measure again)"
        reason = choice.reason + (cached if choice.is_from_cache else "")
        self._status.console.print(f"[bold]{choice.plan}[/]: {escape(reason)}")

    def on_start(self, n_files: int) -> None:
        self._n_files, self._began = n_files, perf_counter()
        self._show()

    def on_sound(self, share: float, seconds: float) -> None:
        with self._lock:
            self._share += share
            self._seconds += seconds
        self._show()

    def on_file(self, result: SoundscapeResult) -> None:
        self._n_done += 1
        self._n_failed += not result.n_rows
        self._show()

    def on_tables(self, outcome: PredictionOutcome) -> None:
        self._status.stop()
        self._list_problems(outcome)
        peak_mb = peak_memory_mb()
        memory = "" if peak_mb is None else f", peak memory {peak_mb:.0f} MB"
        if not self._status.quiet:
            written = "standard output" if self._is_stdout else str(outcome.output)
            self._status.console.print(f"[bold]{shown(written)}[/]: {self.describe(outcome)}")
        self._status.line(
            f"{len(outcome.results)} files ({_counts(outcome)}), {outcome.n_windows} windows, {outcome.seconds:.1f} s, "
            f"{outcome.sound_seconds / outcome.seconds:.0f} x real time ({outcome.engine}){memory}"
        )
        self._name_microphones(outcome)
        if not outcome.is_complete and not self._is_stdout:
            self._status.line("--resume repeats the files with which something is wrong, and adds new ones")

    def describe(self, outcome: PredictionOutcome) -> str:
        """What was written, in a line."""
        notes = [f"{outcome.written.rows} rows"]
        if outcome.written.fallback_rows:
            notes.append(f"{outcome.written.fallback_rows} of them filled with the fallback")
        if outcome.written.unused_labels:
            notes.append(f"{outcome.written.unused_labels} of the bundle's labels were not asked for")
        return ", ".join(notes)

    def on_end(self, outcome: PredictionOutcome, scores: ScoreStore) -> None:
        if self._plots is not None:
            for result in outcome.results:
                if result.path in outcome.names:
                    self._plots.draw(result, outcome.names[result.path], scores)

    def _show(self) -> None:
        speed = self._seconds / max(1e-9, perf_counter() - self._began)
        failures = f", {self._n_failed} failed" if self._n_failed else ""
        state = f"{self._n_done}/{self._n_files} recordings, {speed:.0f} x real time{failures}"
        self._status.show("recordings", state, self._share, 1.0)

    def _list_problems(self, outcome: PredictionOutcome) -> None:
        """Name the files that are not ok, those without any row first; the side table names all of them."""
        # Files for which there was no time may be hundreds, and nothing is wrong with them.
        problems = [each for each in outcome.results if each.status is not Status.ok and each.problem]
        problems.sort(key=lambda result: result.n_rows > 0)
        n_listed = len(problems) if self._is_stdout else _LISTED_PROBLEMS  # there is no side table beside it
        for result in problems[:n_listed]:
            colour = "yellow" if result.n_rows else "red"
            problem = result.problem.removeprefix(f"{result.status}: ")
            path = shown(str(result.path))
            self._status.console.print(f"[{colour}]{result.status:>10}[/]  {path}: {shown(problem)}")
        if len(problems) > n_listed:
            n_more = len(problems) - n_listed
            self._status.warn(f"            and {n_more} more, all listed in {outcome.side_table}")

    def _name_microphones(self, outcome: PredictionOutcome) -> None:
        """Count the recordings with a bad channel, by what is wrong; the side table says it of each."""
        findings = {split_channel(result.path)[0]: result.findings for result in outcome.results}  # once for a file
        kinds = Counter(finding for each in findings.values() for finding in each)
        if kinds:
            counts = ", ".join(f"{kind} in {n} file{'s' if n > 1 else ''}" for kind, n in sorted(kinds.items()))
            where = "" if self._is_stdout else f", see {outcome.side_table}"
            self._status.line(f"microphones: {counts}{where}")

    def _stop_spinner(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


class SoundscapePlots:
    """Draw each soundscape, its first ten minutes, beside its scores into a folder."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        """Load what draws before hours of work, not after; OutputError if this cannot be a folder."""
        check_folder(folder)
        with needing("report", "matplotlib"):
            from birdinfer.plots.soundscape import draw_soundscape
        from birdinfer.detections.formats.cells import shown_names

        self._draw, self._folder = draw_soundscape, folder
        self._names = list(shown_names(bundle.manifest.species).values())
        self._n_groups = max(1, len(bundle.manifest.blend.groups))
        # A spectrogram as the first member with a log-mel has it, a row wide.
        frontends = [member.frontend for member in bundle.manifest.members if member.frontend is not None]
        frontend = frontends[0] if frontends else FrontEndConfig()
        self._frontend = FrontEndConfig(frontend.audio, bundle.manifest.rows, frontend.mel)

    def draw(self, result: SoundscapeResult, name: str, scores: ScoreStore) -> None:
        """Draw a soundscape under its recording's name; nothing if it has no scores."""
        path, rows = result.path, scores.scores(result.path)
        if rows is None:
            return
        window, frontend = self._frontend.window, self._frontend
        drawn = rows[: max(1, int(_PLOTTED_SECONDS / window.window_seconds))]
        # Ranks compare recordings; within one, the mean of the groups shows more.
        drawn = np.nanmean(drawn.reshape(len(drawn), self._n_groups, -1), axis=1) if self._n_groups > 1 else drawn
        with AudioStream(path, frontend.audio.sample_rate, result.channel or MEAN) as stream:
            run = next(cut_batches(stream.blocks(), len(drawn), make_grid(frontend, AggregationConfig(), window)))
        samples = run.samples[frontend.margin_samples : -frontend.margin_samples]
        title = path.name + (f" (first {_PLOTTED_SECONDS / 60:g} min)" if len(drawn) < len(rows) else "")
        picture = self._folder / f"{name}.png"
        check_outputs([(picture, PICTURE)])
        self._draw(picture, title, samples, drawn, self._names, frontend=frontend)


def _trials_table(choice: "AutotuneResult") -> "Table":
    numbers = ("rows/s", "largest |dp|")
    table = make_table(("engine", *numbers), numbers)
    table.add_column()
    for trial in sorted(choice.measurements, key=lambda trial: -trial.rows_per_second):
        difference = f"{trial.max_probability_difference:.1e}"
        if trial.refused:
            table.add_row(f"[dim]{trial.plan}[/]", "-", difference, f"[yellow]{escape(trial.refused)}[/]")
        else:
            mark = "[green]taken[/]" if trial.plan == choice.plan else ""
            table.add_row(str(trial.plan), f"{trial.rows_per_second:.1f}", difference, mark)
    return table


def _counts(outcome: PredictionOutcome) -> str:
    """``all ok``, or ``9 ok, 2 unreadable, 1 truncated``."""
    counts = Counter(result.status for result in outcome.results)
    if set(counts) <= {Status.ok}:
        return "all ok" if counts else "none"
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda item: -item[1]))


def peak_memory_mb() -> float | None:
    """Return the most memory this process has held, in MB (10^6 bytes); None where it is unknown (Windows)."""
    try:
        # Not getrusage on Linux: its maximum is inherited from the process that started this one.
        line = next(line for line in _PROCESS_STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
