"""What an export is asked for, and who is told."""

from pathlib import Path

import msgspec
import pytest

from birdinfer.errors import ConfigError
from birdinfer.export.int8.number_format import find_format
from birdinfer.export.options import ExportOptions, Silent


def test_by_default_nothing_but_fp32_is_made():
    assert not ExportOptions().has_variants
    assert not ExportOptions(with_frontend=True, fuse=True, soup=True).has_variants


@pytest.mark.parametrize("wish", [{"quantize": ("dynamic",)}, {"halves": ("bf16",)}, {"measure": True}])
def test_whatever_is_held_against_fp32_is_a_variant(wish):
    assert ExportOptions(**wish).has_variants


def test_a_soup_is_judged_on_labels_as_variants_are():
    assert ExportOptions(soup=True).needs_labels
    assert ExportOptions(measure=True).needs_labels
    assert not ExportOptions(with_frontend=True, fuse=True).needs_labels


@pytest.mark.parametrize("half", [{"soundscapes": Path("soundscapes")}, {"truth": Path("truth.csv")}])
def test_soundscapes_and_their_truth_come_together(half):
    with pytest.raises(ConfigError, match="--judge-on: needs --truth, and --truth needs it"):
        ExportOptions(**half)


def test_the_default_target_is_known():
    assert find_format(ExportOptions().target).name


def test_unknown_wishes_are_refused():
    with pytest.raises(msgspec.ValidationError, match="quantise"):
        msgspec.convert({"quantise": ["static"]}, ExportOptions)
    with pytest.raises(msgspec.ValidationError, match="'int4'"):
        msgspec.convert({"quantize": ["int4"]}, ExportOptions)


def test_silence_prints_nothing(capsys):
    Silent().line("a line")
    Silent().step("a step", 1, 2)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""
