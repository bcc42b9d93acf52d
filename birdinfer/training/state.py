"""What training changes: weights, their running average, the optimiser's moments and the scaler.

All of it becomes named tensors for a checkpoint and comes back bit for bit.
"""

import copy

import numpy as np
import torch

from birdinfer.errors import CheckpointError
from birdinfer.training.checkpoint import EMA, MODEL, Checkpoint, Progress, Tensors
from birdinfer.training.recipe_learning import OptimConfig

_OPTIM = "optim."


class TrainingState:
    """A model in training."""

    def __init__(self, model: torch.nn.Module, config: OptimConfig, scaler: torch.amp.GradScaler) -> None:
        """Begin with the model's weights as they are."""
        self.model = model
        self.average = copy.deepcopy(model).eval() if config.ema_decay else None
        self.optimiser = build_optimiser(model, config)
        self.scaler = scaler
        self._config = config

    @property
    def validated(self) -> torch.nn.Module:
        """The model that is validated and kept: the averaged one if there is one."""
        return self.model if self.average is None else self.average

    def step(self, loss: torch.Tensor, lr: float, n_steps_before: int) -> None:
        """One step down the gradient of ``loss``."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._config.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            # In the first steps a full decay would average in the random weights of the beginning.
            decay = min(self._config.ema_decay, (1 + n_steps_before) / (10 + n_steps_before))
            update_average(self.average, self.model, decay)

    def tensors(self) -> Tensors:
        """All of it, by name."""
        named = {MODEL + name: tensor for name, tensor in self.model.state_dict().items()}
        if self.average is not None:
            named |= {EMA + name: tensor for name, tensor in self.average.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                named[f"{_OPTIM}{key}.{name}"] = value
        return named

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take everything from a checkpoint of the same recipe.

        Raises:
            CheckpointError: its tensors do not fit.
        """
        try:
            self.model.load_state_dict(checkpoint.weights(MODEL))
            if self.average is not None:
                self.average.load_state_dict(checkpoint.weights(EMA))
        except RuntimeError as error:
            raise CheckpointError(checkpoint.path, f"does not fit the model ({str(error)[:120]})") from error
        moments = checkpoint.weights(_OPTIM)
        for name, parameter in self.model.named_parameters():
            found = {key: moments[f"{key}.{name}"] for key in _MOMENTS if f"{key}.{name}" in moments}
            if found:
                self.optimiser.state[parameter] = {
                    # AdamW keeps its step count on the CPU, and its moments in the parameter's memory layout.
                    key: value if key == "step" else torch.empty_like(parameter).copy_(value)
                    for key, value in found.items()
                }
        if checkpoint.header.progress.scaler:
            self.scaler.load_state_dict(dict(checkpoint.header.progress.scaler))


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def build_optimiser(model: torch.nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW; vectors (biases, norms) are not decayed, since pulling a norm's scale to 0 helps nobody."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [x for x in parameters if x.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [x for x in parameters if x.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr)


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """``average = decay * average + (1 - decay) * model`` for parameters; buffers (BatchNorm) are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mine, other in zip(average.buffers(), model.buffers(), strict=True):
        mine.copy_(other)


def learning_rate(step: int, n_steps: int, n_warmup: int, config: OptimConfig) -> float:
    """The rate at a step: linear warm-up to ``lr``, then a cosine down to ``final_lr_share`` of it."""
    if step < n_warmup:
        return config.lr * (step + 1) / n_warmup
    way = (step - n_warmup) / max(1, n_steps - n_warmup)
    share = config.final_lr_share + (1 - config.final_lr_share) * 0.5 * (1 + np.cos(np.pi * min(1.0, way)))
    return float(config.lr * share)


def scaler_state(scaler: torch.amp.GradScaler) -> dict[str, int | float]:
    """The scaler's few numbers, empty if it is not used; integers stay integers, for the scaler insists."""
    return {name: value if isinstance(value, int) else float(value) for name, value in scaler.state_dict().items()}


def new_progress(progress: Progress) -> Progress:
    """The same progress with one more epoch begun and nothing done in it."""
    return Progress(
        epoch=progress.epoch + 1,
        best_epoch=progress.best_epoch,
        best_auc=progress.best_auc,
        history=list(progress.history),
        scaler=progress.scaler,
    )
