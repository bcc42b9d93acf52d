"""A network of fresh weights whose answers mean something: statistics from real windows, then a fitted classifier.

What an approximation (INT8, bf16) costs cannot be read from random logits: they rest on tiny differences of features
that all look alike. So BatchNorm's statistics are taken from real windows, residual branches that start closed are
opened, and the last layer is fitted by ridge regression on the frozen pooled features. Random features carry sound
well enough for a macro AUC far above chance on clips that were not fitted, in minutes of one core.
"""

import numpy as np
import numpy.typing as npt
import torch

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

WINDOWS_PER_BATCH = 8

TARGET_LOGIT = 3.0
"""A sure yes is fitted to +3 (0.95), a sure no to -3 (0.05): the range in which a trained network answers."""

RIDGES = 10.0 ** np.arange(-4.0, 2.0, 0.5)
"""Tried strengths, as parts of the features' mean variance; leave-one-out decides."""


def fit_classifier(model: torch.nn.Module, windows: Float32, targets: Float32) -> None:
    """Fit a timm model's last layer to targets, in place.

    Args:
        model: from ``timm.create_model``, its ``num_classes`` the columns of ``targets``; left in evaluation mode.
        windows: real log-mel [windows, 1, n_mels, frames].
        targets: probabilities [windows, classes] in [0, 1]; mixtures between 0 and 1 are welcome.
    """
    open_residuals(model)
    settle_batchnorm(model, windows)
    features = pooled_features(model, windows)
    logits = TARGET_LOGIT * (2.0 * targets.astype(np.float64) - 1.0)
    weights, bias = ridge(features, logits)
    classifier = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(weights.T))
        classifier.bias.copy_(torch.from_numpy(bias))


def targets_with_filler(classes: npt.NDArray[np.int64], n_columns: int, seed: int = 0) -> Float32:
    """Targets of real classes first, then columns that mix two or three of the real ones, to the width wanted.

    Args:
        classes: the class of each window [windows], from 0.
        n_columns: columns in all: the network's width.
        seed: of the mixtures.

    Returns:
        Targets [windows, n_columns] in [0, 1].
    """
    n_classes = int(classes.max()) + 1
    mixture = np.zeros((n_classes, n_columns), np.float32)
    mixture[:, :n_classes] = np.eye(n_classes)
    random = np.random.default_rng(seed)
    for column in range(n_classes, n_columns):
        chosen = random.choice(n_classes, random.integers(2, 4), replace=False)
        mixture[chosen, column] = random.uniform(0.2, 1.0, len(chosen))
    return mixture[classes]


def open_residuals(model: torch.nn.Module) -> None:
    """Set gains that start at 0 to 1: a fresh normaliser-free network is its shortcuts alone, a trained one is not."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2] in ("gain", "skipinit_gain") and not parameter.any():
                parameter.fill_(1.0)


def settle_batchnorm(model: torch.nn.Module, windows: Float32) -> None:
    """BatchNorm statistics as the plain mean over batches of real windows; evaluation mode afterwards."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # a plain mean over the batches
    if norms:
        model.train()
        with torch.no_grad():
            for batch in torch.split(torch.from_numpy(windows), WINDOWS_PER_BATCH):
                model(batch)
    model.eval()


def pooled_features(model: torch.nn.Module, windows: Float32) -> Float64:
    """What the last layer sees [windows, features]."""
    with torch.no_grad():
        batches = [
            model.forward_head(model.forward_features(batch), pre_logits=True)  # type: ignore[operator]
            for batch in torch.split(torch.from_numpy(windows), WINDOWS_PER_BATCH)
        ]
    return np.asarray(torch.cat(batches).numpy(), np.float64)


def ridge(features: Float64, wanted: Float64) -> tuple[Float64, Float64]:
    """Ridge regression with an intercept, its strength chosen by the leave-one-out error.

    The left-out residual of a linear smoother is residual / (1 - leverage) (Hastie, Tibshirani, Friedman: The Elements
    of Statistical Learning, eq. 7.64).

    Args:
        features: [windows, features].
        wanted: [windows, columns].

    Returns:
        Weights [features, columns] and bias [columns].
    """
    mean, goal = features.mean(axis=0), wanted.mean(axis=0)
    left, singular, right = np.linalg.svd(features - mean, full_matrices=False)
    projected = left.T @ (wanted - goal)
    best_error, best = np.inf, np.zeros_like(singular)
    for strength in RIDGES * float(np.square(singular).mean()):
        shrinkage = singular**2 / (singular**2 + strength)
        leverage = np.square(left) @ shrinkage + 1.0 / len(features)
        residual = wanted - goal - left @ (shrinkage[:, None] * projected)
        error = float(np.square(residual / (1.0 - leverage)[:, None]).mean())
        if error < best_error:
            best_error, best = error, shrinkage / singular.clip(1e-12)
    weights = right.T @ (best[:, None] * projected)
    return weights, goal - mean @ weights
