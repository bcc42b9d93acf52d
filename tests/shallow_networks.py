"""timm's networks with few stages of few blocks: every kind of block is there, in a fraction of the time.

The profile ``ci`` (TEST_PROFILE, see tests/conftest.py) takes some of them as they are.
"""

import os

import pytest

from birdinfer.training.models.timm_import import import_timm

BLOCKS = (1, 2, 1, 1)
"""Blocks in each stage; the second block of a stage is the one whose input is added to its output."""
NFNET = {"depths": (1, 2), "channels": (64, 128), "stem_chs": 32, "group_size": 16}
SETTINGS = {
    "eca_nfnet_l0": NFNET,
    "eca_nfnet_l1": NFNET,
    "regnety_008": {"depth": 5, "wa": 150.0},  # steeper, so that there are four stages still
    "convnext_tiny": {"depths": BLOCKS},
    "resnet18": {"layers": BLOCKS},
    "vit_small_patch16_224": {"depth": 2},
}
"""What timm.create_model takes for it. Networks of the EfficientNet kind take nothing; see ``few_blocks``."""


def make_networks_shallow(monkeypatch: pytest.MonkeyPatch, *, whole_in_ci: bool = False) -> None:
    """Let timm build networks in use with few blocks; not with ``whole_in_ci``, where the profile is ``ci``."""
    if whole_in_ci and os.environ.get("TEST_PROFILE") == "ci":
        return
    timm = import_timm()
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **settings: create(name, **settings, **SETTINGS.get(name, {}))
    )
    for module in (timm.models.efficientnet, timm.models.mobilenetv3):
        monkeypatch.setattr(module, "decode_arch_def", few_blocks(module.decode_arch_def))


WIDTHS = {"out_chs", "exp_ratio"}
"""What may differ between two stages of the same kind."""


def few_blocks(decode):
    """Keep one stage of each kind, and of it one block; two of the second stage, whose input is added to its output."""

    def decoded(*arguments, **settings):
        kinds = {}
        for stage in decode(*arguments, **settings):
            kind = tuple((key, str(value)) for key, value in stage[0].items() if key not in WIDTHS)
            kinds.setdefault(kind, stage)
        return [stage[: 2 if index == 1 else 1] for index, stage in enumerate(kinds.values())]

    return decoded
