"""One door to timm, because timm imports torchvision and torchvision can fail at import.

torchvision from PyPI is built against the CUDA torch. Beside a CPU torch its compiled operators do not load, and its
``_meta_registrations`` module raises ``RuntimeError: operator torchvision::nms does not exist`` while it describes
them. Declaring the two missing schemas before the import cures it; nothing here ever calls them. A torchvision that
imports is left alone.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

from birdinfer.errors import MissingExtraError

_SYMPTOM = "operator torchvision::nms does not exist"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_declared: list[Any] = []
"""Keeps the torch library alive: its schemas vanish with it."""


def import_timm(module: str = "timm") -> ModuleType:
    """Import timm or one of its modules ("timm.layers"), with torchvision made importable where it is not.

    Raises:
        MissingExtraError: timm is not installed.
    """
    _make_torchvision_importable()
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError("timm", "train") from error


def _make_torchvision_importable() -> None:
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return  # timm will say so itself if it needs it
    except RuntimeError as error:
        if _SYMPTOM not in str(error):
            raise
        _forget_half_imported()
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
        _declared.append(library)
        importlib.import_module("torchvision")


def _forget_half_imported() -> None:
    """Python keeps the submodules that did load; a second import would find them without their parent."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
