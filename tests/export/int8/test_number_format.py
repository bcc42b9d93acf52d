"""Which 8-bit numbers a processor multiplies."""

import platform
from pathlib import Path

import numpy as np
import pytest

from birdinfer.errors import ConfigError
from birdinfer.export.int8.qdq import FORMATS, TARGETS, find_format, native_target


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_a_format(target):
    assert find_format(target) == FORMATS[target]


def test_two_products_of_7_bit_weights_fit_16_bits_and_of_8_bits_do_not():
    def most(target):
        return 2 * 255 * FORMATS[target].largest_weight

    assert most("any-x86") <= np.iinfo(np.int16).max < most("vnni")


def test_a_signed_activation_stands_for_the_same_step():
    for unsigned in (0, 1, 127, 128, 255):
        assert FORMATS["vnni"].activation_of(np.uint8(unsigned)) == unsigned
        signed = FORMATS["arm"].activation_of(np.uint8(unsigned))
        assert signed.dtype == np.int8
        assert int(signed) - np.iinfo(np.int8).min == unsigned


@pytest.mark.parametrize(
    ("machine", "flags", "target"),
    [
        ("aarch64", "", "arm"),
        ("arm64", "", "arm"),
        ("x86_64", "flags : avx2 avx512f avx512_vnni", "vnni"),
        ("x86_64", "flags : avx2 avx_vnni", "vnni"),
        ("AMD64", "flags : sse4_2 avx2", "any-x86"),
    ],
)
def test_native_is_what_the_machine_says_of_itself(monkeypatch, machine, flags, target):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda path: flags)
    assert native_target() == target
    assert find_format("native") == FORMATS[target]


def test_a_machine_that_does_not_say_gets_what_is_safe_on_every_x86(monkeypatch):
    def refuse(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(Path, "read_text", refuse)
    assert native_target() == "any-x86"


def test_an_unknown_target_is_refused_with_those_that_are_known():
    with pytest.raises(ConfigError, match=r"--target: 'avx9' is not known - choose one of native, any-x86, vnni, arm"):
        find_format("avx9")
