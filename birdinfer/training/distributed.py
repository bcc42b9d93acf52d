"""Several processes that train one model: started by torchrun or accelerate launch, each with a device of its own.

Both say by environment variables (RANK, WORLD_SIZE, LOCAL_RANK) who is who; without them there is one process, and
everything here does nothing. Every process goes the same way through the loop: what one decides, all do.
"""

import contextlib
import gc
import os
import re
import signal
import threading
import traceback
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed import distributed_c10d
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from birdinfer.errors import BirdinferError, ConfigError
from birdinfer.system.signals import StopRequest
from birdinfer.training.models.batch_norm import sync_norms
from birdinfer.training.recipe.schema import LoopConfig

T = TypeVar("T")


class Distributed:
    """Who trains along."""

    def __init__(self, rank: int = 0, n: int = 1, local_rank: int = 0) -> None:
        """Process ``rank`` of ``n``, the ``local_rank``-th of its machine."""
        self.rank, self.n, self.local_rank = rank, n, local_rank

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0

    def all_gather(self, value: T) -> list[T]:
        """The value of each process, by rank; all must call this together."""
        if self.n == 1:
            return [value]
        values: list[Any] = [None] * self.n
        distributed.all_gather_object(values, value)
        return values

    def stop_signal(self, stop: StopRequest) -> int | None:
        """The signal that has asked one of the processes to end, or several; all must call this together."""
        return next((received for received in self.all_gather(stop.received) if received), None)

    def exit_together(self, stop: StopRequest) -> None:
        """Leave if any process was asked to, all by the same signal; all must call this together.

        Raises:
            KeyboardInterrupt, SystemExit: one was.
        """
        if received := self.stop_signal(stop):
            stop.leave(received)

    def wait(self) -> None:
        """Until all are here."""
        if self.n > 1:
            self.all_gather(None)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of all processes' values, of any shape; without gradients."""
        if self.n == 1:
            return values
        values = values.detach().clone()
        distributed.all_reduce(values)
        return values

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of all processes' values, of any shape; without gradients."""
        return self.total(values) / self.n

    def parallel(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model, its norms those of the whole batch, its gradients averaged over all processes in backward."""
        return DistributedDataParallel(sync_norms(model, self.n)) if self.n > 1 else model

    def share_buffers(self, model: torch.nn.Module) -> None:
        """BatchNorm's statistics of the first process become everyone's, so that all validate the same model."""
        if self.n > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def check_batch(self, config: LoopConfig) -> None:
        """Refuse a batch that cannot be dealt out evenly.

        Raises:
            ConfigError: its parts are no multiple of the processes.
        """
        if config.batch_size % (self.n * config.accumulate):
            raise ConfigError(
                "loop.batch_size",
                f"is {config.batch_size}, {self.n} processes with accumulate = {config.accumulate} cannot share it",
                f"make it a multiple of {self.n * config.accumulate}",
            )


def from_environment() -> Distributed:
    """As torchrun or accelerate launch have set it."""
    return Distributed(*(int(os.environ.get(name, default)) for name, default in _VARIABLES.items()))


@contextlib.contextmanager
def process_group(processes: Distributed, device: torch.device, what: str) -> Iterator[None]:
    """While entered, the processes can talk: over NCCL about GPU tensors, over gloo about all else.

    Args:
        processes: who.
        device: where their model is.
        what: they train; another name each time they join, for torch finds those of the last time under the same one.
    """
    if processes.n == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # The others wait while the first one searches 50,000 clips for duplicates; who dies is noticed by torchrun.
    limit = timedelta(hours=6)
    store, rank, n = next(rendezvous("env://", timeout=limit))
    store.set_timeout(limit)
    distributed.init_process_group(
        backend, store=distributed_c10d.PrefixStore(what, store), rank=rank, world_size=n, timeout=limit
    )
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
            # torchrun asks those that are left to end, at once: what went wrong is reported first.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _forget_locals(error)
        raise
    finally:
        # First what was trained: the last of a group's holders waits for its threads, and a model does so while it
        # keeps Python from running, which they may be waiting for.
        gc.collect()
        distributed.destroy_process_group()


def _forget_locals(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def exit_if_one_is_lost(processes: Distributed, stop: StopRequest) -> Iterator[None]:
    """While entered, a process that finds another one gone ends, too, in one line, or as it was itself asked to.

    Raises:
        BirdinferError: another process has ended; none can continue without it.
        KeyboardInterrupt, SystemExit: a stop was requested; the other one was only quicker.
    """
    try:
        yield
    except RuntimeError as error:
        if processes.n == 1 or not _LOST.search(str(error)):
            raise
        stop.check()
        reason = " ".join(str(error).split())[:_REASON_CHARACTERS]
        lost = f"process {processes.rank} of {processes.n} has lost another and cannot continue without it ({reason})"
        raise BirdinferError("torchrun", lost, "see what that one reported; continue with --resume") from error


_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe")
"""What torch's errors say where a process has gone."""
_REASON_CHARACTERS = 200
_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
