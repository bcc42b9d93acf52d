"""What training changes: weights, their running average, the optimiser's memory and the scaler.

All of it becomes named tensors and a few numbers for a checkpoint, and comes back bit for bit, for any optimiser.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch

from birdinfer.errors import CheckpointError
from birdinfer.training.checkpoint import EMA, MODEL, Checkpoint, Tensors
from birdinfer.training.distributed import Distributed
from birdinfer.training.optim import build_optimiser, set_rate
from birdinfer.training.recipe.schema import OptimConfig

_OPTIM, _GROUP, _BESIDE = "optim.", "group.", "beside."
_NOT_KEPT = frozenset({"params", "lr"})
"""Of an optimiser's groups: parameters are the model's, the rate is set at each step."""

Numbers = dict[str, int | float]


class TrainingState:
    """A model in training."""

    def __init__(
        self,
        model: torch.nn.Module,
        config: OptimConfig,
        scaler: torch.amp.GradScaler,
        processes: Distributed,
        learner: torch.nn.Module | None = None,
        beside: torch.nn.Module | None = None,
    ) -> None:
        """Begin with the model's weights as they are.

        Args:
            model: what is averaged, validated and saved.
            config: how it learns.
            scaler: of the gradients.
            processes: who trains along.
            learner: another way to compute the same model, with the same parameters, for the gradients; None for
                the model's own.
            beside: what the learner has besides the model, and is left behind when the training ends; None: nothing.
        """
        self.model = model
        self.average = copy.deepcopy(model).eval() if config.ema_decay else None
        self.own_learner, self.beside = learner, beside
        self._trained = model if beside is None else torch.nn.ModuleList([model, beside])
        self.optimiser = build_optimiser(self._trained, config, model)
        self.scaler = scaler
        self._config = config
        self._parallel = processes.parallel(model if learner is None else learner)

    @property
    def learner(self) -> torch.nn.Module:
        """The model to compute gradients with: over several processes, one that averages them."""
        return self._parallel

    @property
    def validated(self) -> torch.nn.Module:
        """The model that is validated and kept: the averaged one if there is one."""
        return self.model if self.average is None else self.average

    def part(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Around a part of a batch: only after the last do processes exchange gradients."""
        if is_last or not hasattr(self._parallel, "no_sync"):
            return contextlib.nullcontext()
        quiet: contextlib.AbstractContextManager[None] = self._parallel.no_sync()  # type: ignore[operator]
        return quiet

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of ``loss``."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, lr: float, n_steps_before: int, is_backbone_frozen: bool = False) -> None:
        """One step down the gradients that have been added up."""
        set_rate(self.optimiser, lr, is_backbone_frozen)
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self._trained.parameters(), self._config.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            # In the first steps a full decay would average in the random weights of the beginning.
            decay = min(self._config.ema_decay, (1 + n_steps_before) / (10 + n_steps_before))
            update_average(self.average, self.model, decay)

    def tensors(self) -> Tensors:
        """All tensors, by name."""
        named = {MODEL + name: tensor for name, tensor in self.model.state_dict().items()}
        if self.average is not None:
            named |= {EMA + name: tensor for name, tensor in self.average.state_dict().items()}
        if self.beside is not None:
            named |= {_BESIDE + name: tensor for name, tensor in self.beside.state_dict().items()}
        return named | {key: x for key, x in self._memory().items() if isinstance(x, torch.Tensor)}

    def numbers(self) -> Numbers:
        """What is no tensor: counters that some optimisers keep, and the scaler's few numbers."""
        found = {key: x for key, x in self._memory().items() if _is_number(x)}
        return found | {f"scaler.{name}": value for name, value in self.scaler.state_dict().items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take everything from a checkpoint of the same recipe.

        Raises:
            CheckpointError: its tensors do not fit.
        """
        try:
            self.model.load_state_dict(checkpoint.weights(MODEL))
            if self.average is not None:
                self.average.load_state_dict(checkpoint.weights(EMA))
            if self.beside is not None:
                self.beside.load_state_dict(checkpoint.weights(_BESIDE))
            self._restore_optimiser(checkpoint)
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            raise CheckpointError(checkpoint.path, f"does not fit the model ({str(error)[:120]})") from error
        numbers = checkpoint.header.progress.numbers
        scaler = {name.removeprefix("scaler."): x for name, x in numbers.items() if name.startswith("scaler.")}
        if scaler:
            self.scaler.load_state_dict(scaler)

    def _memory(self) -> dict[str, Any]:
        """All that the optimiser keeps, of each parameter and of each of its groups (some count their steps there)."""
        state = self.optimiser.state_dict()
        found = {f"{_OPTIM}{n}.{key}": x for n, memory in state["state"].items() for key, x in memory.items()}
        for index, group in enumerate(state["param_groups"]):
            found |= {f"{_GROUP}{index}.{key}": value for key, value in group.items() if key not in _NOT_KEPT}
        return found

    def _restore_optimiser(self, checkpoint: Checkpoint) -> None:
        state = self.optimiser.state_dict()
        n_parameters = sum(len(group["params"]) for group in state["param_groups"])
        memory: dict[int, dict[str, Any]] = {}
        for index, key, value in _kept(checkpoint, _OPTIM):
            if index >= n_parameters:
                raise ValueError(f"it has {n_parameters} parameters, the checkpoint knows one with number {index}")
            memory.setdefault(index, {})[key] = value
        for index, key, value in _kept(checkpoint, _GROUP):
            state["param_groups"][index][key] = value
        self.optimiser.load_state_dict({"state": memory, "param_groups": state["param_groups"]})
        for parameter, its in self.optimiser.state.items():
            for key, value in its.items():
                # As a fresh optimiser would have them: in the memory layout of the parameter.
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.ndim:
                    its[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """``average = decay * average + (1 - decay) * model`` for parameters; buffers (BatchNorm) are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mine, other in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(other)


def _kept(checkpoint: Checkpoint, prefix: str) -> Iterator[tuple[int, str, Any]]:
    numbers = checkpoint.header.progress.numbers.items()
    kept = {name.removeprefix(prefix): x for name, x in numbers if name.startswith(prefix)}
    for name, value in {**checkpoint.weights(prefix), **kept}.items():
        index, _, key = name.partition(".")
        yield int(index), key, value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
