"""What is said of a prediction when it is done: files that are not well, how much was done and how fast."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from birdinfer.bundle import Bundle
    from birdinfer.engines import EnginePlan
    from birdinfer.soundscapes import SoundscapeResult
    from birdinfer.submission import Written

_LISTED_PROBLEMS = 20
_PROCESS_STATUS = Path("/proc/self/status")


def report_path(output: Path) -> Path:
    """Where the side table of a result stands: ``submission.files.csv`` beside ``submission.csv``."""
    return output.with_suffix(".files.csv")


def list_problems(results: "Sequence[SoundscapeResult]", report: Path) -> None:
    """Name the files that are not well, the first of them at least; the report names all."""
    from birdinfer.cli.console import shown, stderr
    from birdinfer.status import Status

    console = stderr()
    # Files that were left out for want of time may be hundreds, and nothing is wrong with them.
    troubled = [result for result in results if result.status is not Status.ok and result.problem]
    troubled.sort(key=lambda result: result.n_rows > 0)
    for result in troubled[:_LISTED_PROBLEMS]:
        colour = "yellow" if result.n_rows else "red"
        problem = result.problem.removeprefix(f"{result.status}: ")
        console.print(f"[{colour}]{result.status:>10}[/]  {shown(str(result.path))}: {shown(problem)}")
    if len(troubled) > _LISTED_PROBLEMS:
        console.print(f"            and {len(troubled) - _LISTED_PROBLEMS} more, all listed in {shown(str(report))}")


def engine_told(bundle: "Bundle", plan: "EnginePlan") -> str:
    """``onnxruntime:int8, 2 lanes, batch 3; 4 of 5 members in int8, the others in fp32``."""
    from birdinfer.predictor import share_in

    share = share_in(bundle, plan.spec.precision)
    return f"{plan}; {share}" if share else str(plan)


def say_what_was_done(
    results: "Sequence[SoundscapeResult]",
    n_windows: int,
    heard_seconds: float,
    seconds: float,
    engine: str,
    output: Path,
    written: "Written",
) -> None:
    """The last lines: rows, files by status, speed, memory.

    Args:
        results: of all files.
        n_windows: of all files.
        heard_seconds: sound that was heard by this run, not by one that it went on with.
        seconds: that this run took.
        engine: what ran it.
        output: the table.
        written: what it holds.
    """
    from birdinfer.cli.console import shown, stderr

    peak_mb = peak_memory_mb()
    memory = f", peak memory {peak_mb:.0f} MB" if peak_mb is not None else ""
    console = stderr()
    notes = [f"{written.rows} rows"]
    if written.fallback_rows:
        notes.append(f"{written.fallback_rows} of them filled with the fallback")
    if written.unused_labels:
        notes.append(f"{written.unused_labels} of the bundle's labels were not asked for")
    console.print(f"[bold]{shown(str(output))}[/]: {', '.join(notes)}")
    console.print(
        f"{len(results)} files ({_counted(results)}), {n_windows} windows, {seconds:.1f} s, "
        f"{heard_seconds / seconds:.0f} x real time ({engine}){memory}"
    )


def _counted(results: "Sequence[SoundscapeResult]") -> str:
    """``all ok``, or ``9 ok, 2 unreadable, 1 truncated``."""
    counts = Counter(result.status for result in results)
    if set(counts) == {"ok"}:
        return "all ok"
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda item: -item[1]))


def peak_memory_mb() -> float | None:
    """The most memory this process has held, in MB (10^6 bytes); None where the system does not say (Windows)."""
    import sys

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
