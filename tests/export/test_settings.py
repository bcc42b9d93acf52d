"""Settings of an export."""

from pathlib import Path

import pytest

from birdinfer.errors import ConfigError
from birdinfer.export.settings import ExportSettings


def test_by_default_nothing_but_fp32_is_made():
    assert not ExportSettings().has_variants
    assert not ExportSettings(with_frontend=True, fuse=True, soup=True).has_variants


@pytest.mark.parametrize("wish", [{"quantize": ("dynamic",)}, {"halves": ("bf16",)}, {"measure": True}])
def test_whatever_is_held_against_fp32_is_a_variant(wish):
    assert ExportSettings(**wish).has_variants


def test_a_soup_is_evaluated_on_labels_as_variants_are():
    assert ExportSettings(soup=True).needs_labels
    assert ExportSettings(measure=True).needs_labels
    assert not ExportSettings(with_frontend=True, fuse=True).needs_labels


@pytest.mark.parametrize("half", [{"soundscapes": Path("soundscapes")}, {"truth": Path("truth.csv")}])
def test_soundscapes_and_their_truth_come_together(half):
    with pytest.raises(ConfigError, match="--judge-on: needs --truth, and --truth needs it"):
        ExportSettings(**half)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"quantize": ("int4",)}, "--quantize: 'int4' is not known - choose one of static, dynamic, nncf"),
        ({"halves": ("fp8",)}, "--half: 'fp8' is not known - choose one of fp16, bf16"),
        ({"target": "z80"}, "--target: 'z80' is not known"),
    ],
)
def test_unknown_names_are_refused(wish, message):
    with pytest.raises(ConfigError, match=message):
        ExportSettings(**wish)
