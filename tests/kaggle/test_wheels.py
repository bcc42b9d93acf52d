import contextlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_wheels import write_wheel
from packaging.requirements import Requirement
from packaging.version import Version

from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.kaggle.competitions import Image, kaggle_image
from birdinfer.kaggle.wheels import (
    as_typed,
    download_command,
    incompatibility,
    read_wheel,
    select,
    unusable_wheels,
    wheels_in,
)

IMAGE = Image("2026-02", "3.12.12", "2.35", "x86_64", {"numpy": "2.0.2", "soxr": "1.0.0"})


def chosen(roots, folder):
    found = select([Requirement(root) for root in roots], wheels_in([folder]), IMAGE)
    return [wheel.path.name for wheel in found.wheels], {each.requirement: each for each in found.missing}


def test_kaggles_list_is_of_python_3_12_and_has_what_birdinfer_decodes_and_resamples_with():
    image = kaggle_image()
    assert image.python_minor == "3.12"
    assert {"numpy", "soundfile", "soxr"} <= set(image.distributions)
    assert not {"onnxruntime", "openvino", "msgspec", "birdinfer"} & set(image.distributions)


@pytest.mark.parametrize(
    "tag",
    [
        "py3-none-any",
        "py2.py3-none-any",
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp37-abi3-manylinux1_x86_64",
        "py3-none-linux_x86_64",
        "py3-none-manylinux_2_35_x86_64",
    ],
)
def test_a_wheel_for_kaggles_python_and_platform_runs(tmp_path, tag):
    assert incompatibility(read_wheel(write_wheel(tmp_path, "some-1.0", tag)), IMAGE) == ""


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("cp311-cp311-manylinux_2_28_x86_64", "is for Python 3.11, Kaggle runs 3.12"),
        ("cp313-cp313-manylinux_2_28_x86_64", "is for Python 3.13, Kaggle runs 3.12"),
        ("cp313-abi3-manylinux_2_28_x86_64", "is for Python 3.13, Kaggle runs 3.12"),
        ("py2-none-any", "is for Python 2, Kaggle runs 3.12"),
        ("cp312-cp312-win_amd64", "is for win_amd64, Kaggle runs Linux on x86_64"),
        ("cp312-cp312-macosx_11_0_arm64", "is for macosx_11_0_arm64, Kaggle runs Linux on x86_64"),
        ("cp312-cp312-manylinux_2_28_aarch64", "is for manylinux_2_28_aarch64, Kaggle runs Linux on x86_64"),
        ("cp312-cp312-musllinux_1_2_x86_64", "is for musllinux_1_2_x86_64, Kaggle runs Linux on x86_64"),
        ("cp312-cp312-manylinux_2_39_x86_64", "needs glibc 2.39, Kaggle has 2.35"),
    ],
)
def test_a_wheel_for_another_python_or_platform_is_refused_in_words(tmp_path, tag, words):
    path = write_wheel(tmp_path, "some-1.0", tag)
    assert incompatibility(read_wheel(path), IMAGE) == words
    assert unusable_wheels(tmp_path, IMAGE) == [(path, words)]


def test_a_wheel_that_asks_for_a_newer_python_than_its_tag_says_is_refused(tmp_path):
    wheel = read_wheel(write_wheel(tmp_path, "some-1.0", python=">=3.13"))
    assert incompatibility(wheel, IMAGE) == "is for Python >=3.13, Kaggle runs 3.12"


@pytest.mark.parametrize(
    ("library", "words"),
    [
        (b"\x7fELF GLIBC_2.2.5 GLIBC_2.14", ""),
        (b"\x7fELF GLIBC_2.2.5\0GLIBC_2.38", "was built for glibc 2.38, Kaggle has 2.35"),
    ],
)
def test_a_kernel_that_was_built_here_must_load_with_kaggles_glibc(tmp_path, library, words):
    wheel = read_wheel(write_wheel(tmp_path, "some-1.0", "py3-none-linux_x86_64", library=library))
    assert incompatibility(wheel, IMAGE) == words


def test_needs_are_followed_and_what_kaggle_has_is_left_out_with_its_needs(tmp_path):
    write_wheel(tmp_path, "top-1.0", needs=["numpy>=1.26", "middle>=2", "soxr"])
    write_wheel(tmp_path, "middle-2.0", needs=["bottom; python_version >= '3.12'", "backport; python_version < '3.12'"])
    write_wheel(tmp_path, "bottom-1.0")
    write_wheel(tmp_path, "numpy-2.3", needs=["never"])
    names, missing = chosen(["top"], tmp_path)
    assert names == ["bottom-1.0-py3-none-any.whl", "middle-2.0-py3-none-any.whl", "top-1.0-py3-none-any.whl"]
    assert missing == {}


def test_what_kaggle_has_in_too_old_a_version_is_packed(tmp_path):
    write_wheel(tmp_path, "soxr-1.2")
    assert chosen(["soxr>=1.1"], tmp_path)[0] == ["soxr-1.2-py3-none-any.whl"]
    assert chosen(["soxr>=0.5"], tmp_path)[0] == []


def test_extras_bring_their_needs_and_only_theirs(tmp_path):
    write_wheel(tmp_path, "top-1.0", needs=["one; extra == 'cpu'", "two; extra == 'gpu'", "top[cpu]; extra == 'all'"])
    write_wheel(tmp_path, "one-1.0")
    write_wheel(tmp_path, "two-1.0")
    for extra in ("cpu", "all"):
        assert chosen([f"top[{extra}]"], tmp_path)[0] == ["one-1.0-py3-none-any.whl", "top-1.0-py3-none-any.whl"]


def test_of_several_wheels_the_newest_that_all_can_do_with_is_taken(tmp_path):
    for version in ("1.9", "1.10", "2.0"):
        write_wheel(tmp_path, f"shared-{version}")
    write_wheel(tmp_path, "shared-1.99", "cp311-cp311-manylinux_2_28_x86_64")
    write_wheel(tmp_path, "one-1.0", needs=["shared>=1.9"])
    write_wheel(tmp_path, "two-1.0", needs=["shared<2"])
    assert "shared-1.10-py3-none-any.whl" in chosen(["one", "two"], tmp_path)[0]


def test_packages_that_need_each_other_come_to_an_end(tmp_path):
    write_wheel(tmp_path, "one-1.0", needs=["two"])
    write_wheel(tmp_path, "two-1.0", needs=["one"])
    assert len(chosen(["one"], tmp_path)[0]) == 2


def test_a_missing_wheel_says_who_needs_it_and_what_is_wrong_with_those_that_are_there(tmp_path):
    write_wheel(tmp_path, "top-1.0", needs=["onnxruntime>=1.20", "onnxruntime<2", "absent"])
    write_wheel(tmp_path, "onnxruntime-1.23", "cp311-cp311-manylinux_2_28_x86_64")
    write_wheel(tmp_path, "onnxruntime-1.9")
    names, missing = chosen(["top"], tmp_path)
    assert names == ["top-1.0-py3-none-any.whl"]
    assert set(missing) == {"absent", "onnxruntime<2,>=1.20"}
    needed = missing["onnxruntime<2,>=1.20"]
    assert needed.needed_by == "top"
    assert (
        "onnxruntime-1.23-cp311-cp311-manylinux_2_28_x86_64.whl is for Python 3.11, Kaggle runs 3.12" in needed.reason
    )
    assert "onnxruntime-1.9-py3-none-any.whl is version 1.9" in needed.reason
    assert missing["absent"].reason == ""


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=6, unique=True), st.data())
def test_the_order_in_which_wheels_are_found_decides_nothing(tmp_path_factory, versions, data):
    folder = tmp_path_factory.mktemp("wheels")
    for major, minor in versions:
        write_wheel(folder, f"some-{major}.{minor}")
    found = data.draw(st.permutations(wheels_in([folder])))
    (taken,) = select([Requirement("some")], found, IMAGE).wheels
    assert taken.version == max(Version(f"{major}.{minor}") for major, minor in versions)


class TestWhatIsNoWheel:
    @pytest.mark.parametrize("name", ["some.whl", "some-1.0.whl", "some-x.y-py3-none-any.whl"])
    def test_a_name_that_says_nothing_is_refused(self, tmp_path, name):
        path = tmp_path / name
        path.write_bytes(b"")
        with pytest.raises(ConfigError, match="is not a whole wheel"):
            read_wheel(path)

    def test_a_wheel_that_was_cut_off_is_refused(self, tmp_path):
        path = write_wheel(tmp_path, "some-1.0")
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(ConfigError, match=r"some-1.0-py3-none-any.whl: is not a whole wheel .* - download"):
            wheels_in([tmp_path])

    def test_a_zip_without_metadata_is_refused(self, tmp_path):
        path = write_wheel(tmp_path, "some-1.0")
        path.write_bytes(b"PK\x05\x06" + bytes(18))
        with pytest.raises(ConfigError, match="it has no METADATA"):
            read_wheel(path)

    @pytest.mark.parametrize("change", [1, 255])
    def test_read_wheel_with_one_wrong_byte_reads_it_or_refuses(self, tmp_path, change):
        """Wherever it is: zipfile raises seven kinds of exceptions, EOFError among them."""
        path = write_wheel(tmp_path, "some-1.0", "py3-none-linux_x86_64", library=b"GLIBC_2.14")
        whole = path.read_bytes()
        for place, value in enumerate(whole):
            path.write_bytes(whole[:place] + bytes([value ^ change]) + whole[place + 1 :])
            with contextlib.suppress(ConfigError):
                incompatibility(read_wheel(path), IMAGE)

    def test_a_folder_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(InputNotFoundError, match="no such folder of wheels"):
            wheels_in([tmp_path / "none"])


def test_the_command_that_gets_wheels_names_kaggles_python_and_not_this_one(tmp_path):
    line = as_typed(download_command(["onnxruntime>=1.20"], tmp_path, IMAGE))
    assert line.startswith("python -m pip download --only-binary=:all: ")
    assert line.endswith(f"--dest={tmp_path} 'onnxruntime>=1.20'")
    assert "--python-version=3.12" in line
    assert "--platform=manylinux_2_28_x86_64" in line
    assert sys.executable not in line
