"""The files that a run writes: checked before it starts, renewed while it continues, written whole at its end."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from types import MappingProxyType

from birdinfer.callbacks import Callback
from birdinfer.inference.bundle import Bundle
from birdinfer.inference.ensemble import Blend
from birdinfer.inference.predictor import Predictor
from birdinfer.inference.results import Scheduler, SoundscapeResult
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.writer import SubmissionWriter, Written, write_file_report
from birdinfer.system.files import remove_leftovers
from birdinfer.system.outputs import FILES, SCORE_FILES, SCORES, check_folder, check_outputs, side_table
from birdinfer.typing import Float32


class Tables:
    """What a run writes, repeatedly while it continues and at its end: its result, and a side table of its files."""

    _RENEWAL_SECONDS = 30.0  # a growing table is rewritten at most this often
    _RENEWAL_TIMES = 50  # and only after this many times the seconds that writing it takes

    def __init__(self, output: Path, side_table: Path, kept_from: Float32 | None = None) -> None:
        """State what is written; a score that is less than ``kept_from`` [species] is not needed for it."""
        self.output, self.side_table, self.kept_from = output, side_table, kept_from
        self.is_own = False  # whether this run has written them
        self.write_seconds = 0.0  # what writing took the last time
        self._written_at = perf_counter()

    def make_scheduler(self, bundle: Bundle, make_predictor: Callable[[Bundle], Predictor]) -> Scheduler:
        """Decide which predictor takes which file: the whole bundle's takes all."""
        return Scheduler(make_predictor(bundle))

    def remove_leftovers(self) -> None:
        """Remove temporary files of runs that were killed while they wrote; only for the run that holds the lock."""
        for table in (self.output, self.side_table):
            remove_leftovers(table)

    def write_result(self, scores: ScoreStore, results: Sequence[SoundscapeResult]) -> Written:
        """Write the result, each file of it whole or not at all."""
        raise NotImplementedError

    def write(self, scores: ScoreStore, results: Sequence[SoundscapeResult]) -> Written:
        """Write everything, each file whole or not at all; raise OutputError if the disk does not accept it."""
        began = perf_counter()
        written = self.write_result(scores, results)
        write_file_report(self.side_table, results)
        self._written_at = perf_counter()
        self.is_own, self.write_seconds = True, self._written_at - began
        return written

    def finish(self, scores: ScoreStore, results: Sequence[SoundscapeResult], callback: Callback) -> None:
        """Write what is made once, at the end, and may take long; a run that is stopped here has its tables."""

    def add_seconds(self, written: Written) -> None:
        """Add to ``write_seconds``, those of tables without any score, what scores will cost."""

    def is_stale(self) -> bool:
        """Return whether it is time to write the tables again."""
        age = perf_counter() - self._written_at
        return age > max(self._RENEWAL_SECONDS, self._RENEWAL_TIMES * self.write_seconds)


class SubmissionTables(Tables):
    """The table of scores, and the side table beside it."""

    def __init__(
        self,
        output: Path,
        writer: SubmissionWriter,
        inputs: Sequence[Path] = (),
        force: bool = False,
        groups: Mapping[int, Path] = MappingProxyType({}),
    ) -> None:
        """Check before hours of work, not after, that all tables can be written; raise OutputError if not.

        ``inputs`` are never replaced, with ``force`` a file that birdinfer has not written is. ``groups``: tables of
        groups of a blend by rank, by their number.
        """
        check_outputs([(output, SCORE_FILES)], inputs, force=force)  # first: a folder has no side table
        writer.check_format(output)
        super().__init__(output, side_table(output))
        of_groups = [(path, SCORES) for path in groups.values()]
        check_outputs([(output, SCORE_FILES), (self.side_table, FILES), *of_groups], inputs, force=force)
        self._writer, self._groups = writer, groups

    def write_result(self, scores: ScoreStore, results: Sequence[SoundscapeResult]) -> Written:
        """Write the table of scores."""
        return self._writer.write(self.output, scores, results)

    def finish(self, scores: ScoreStore, results: Sequence[SoundscapeResult], callback: Callback) -> None:
        """Write the tables of the groups."""
        for group, path in self._groups.items():
            self._writer.write(path, scores, results, group=group)
            callback.on_message(f"{path}: scores of this group, before they are ranked")

    def add_seconds(self, written: Written) -> None:
        """Add what ranking takes, which is quicker where all scores are alike."""
        self.write_seconds += self._writer.ranking_seconds(written.rows)


def group_tables(folder: Path, blend: Blend) -> dict[int, Path]:
    """Name the table of each group of a blend by rank, by the group's number; OutputError if this can be no folder."""
    check_folder(folder)
    return {number: folder / f"{name}.csv" for number, name in enumerate(blend.groups)}
