"""A search by several workers of one machine, each a process of its own; this one watches and tells."""

from typing import TYPE_CHECKING

import typer

from birdinfer.cli.cluster_options import CLUSTER_PARAMETERS
from birdinfer.cli.same_command import command_again
from birdinfer.cli.tuning_progress import Lookout, TuningProgress

if TYPE_CHECKING:
    from birdinfer.training.tuning.search import Search
    from birdinfer.training.tuning.worker import Outcome

_OWN = CLUSTER_PARAMETERS | {"workers", "devices", "then_train", "quiet"}
"""What a worker is not told."""


def search_side_by_side(
    context: typer.Context, search: "Search", workers: int | None, devices: str | None, progress: TuningProgress
) -> "Outcome":
    """Search with several workers.

    Args:
        context: of the running command, which each worker repeats without ``--workers`` and ``--devices``.
        search: what they search.
        workers: how many; None: one for each device.
        devices: as ``--devices`` has it; None: the GPUs in turns, or shares of the cores where there is none.
        progress: is told of each trial as it ends.

    Returns:
        What the study has come to.

    Raises:
        ConfigError: the study or the devices cannot be used.
        KeyboardInterrupt, SystemExit: a stop was requested; the workers have put their trials back.
    """
    from birdinfer.training.side_by_side import Job, run_side_by_side
    from birdinfer.training.tuning.folder import LOGS_DIR
    from birdinfer.training.tuning.places import places
    from birdinfer.training.tuning.trial_reporter import Passing
    from birdinfer.training.tuning.worker import look, open_ledger

    where = places(workers, devices, search.device)
    ledger = open_ledger(search, Passing(progress))
    if not ledger.is_done():
        command = tuple(command_again(context, _OWN))
        logs = search.study_dir / LOGS_DIR
        jobs = [Job(f"worker {n}", command, logs / f"worker{n}.log") for n in range(len(where))]

        def tell(line: str) -> None:
            if _worth_telling(line):
                progress.message(line)

        with Lookout(ledger.records, progress):
            codes = run_side_by_side(jobs, where, tell)
        for name, code in codes.items():
            if code and ledger.is_done():
                progress.message(f"{name} has failed, the others have done its work")
    return look(search, ledger)


def _worth_telling(line: str) -> bool:
    """Whether a line of a worker is for the screen: all that its trials tell is in its log, and the study tells it."""
    return any(sign in line for sign in (": on ", ": failed (", ": birdinfer: "))
