"""What a look at a packed folder finds: all of it at once, and nothing in a good one."""

import pytest
from made_wheels import write_wheel
from packed_submission import COMPETITION, write_packed

from birdinfer.kaggle.faults import packed_faults, read_packed


@pytest.fixture
def packed(tmp_path, bundle):
    return write_packed(tmp_path / "packed", bundle)


def faults_of(packed):
    return packed_faults(read_packed(packed))


def test_a_good_folder_has_none(packed):
    write_wheel(packed / "dataset", "birdinfer-0.1.0")
    found = read_packed(packed)
    assert packed_faults(found) == []
    assert found.competition == COMPETITION
    assert found.notebook == packed / "kernel" / "birdinfer.ipynb"


def test_all_faults_are_listed_at_once(packed):
    (packed / "dataset" / "more").mkdir()
    write_wheel(packed / "dataset", "soxr-1.0", "cp311-cp311-manylinux_2_17_x86_64")
    (packed / "dataset" / "manifest.json").write_text("{}")
    metadata = packed / "kernel" / "kernel-metadata.json"
    metadata.write_text(metadata.read_text().replace('"enable_internet": false', '"enable_internet": true'))
    assert [fault.partition(":")[0] for fault in faults_of(packed)] == [
        "nested",
        "a wheel",
        "the bundle",
        "the internet",
    ]


@pytest.mark.parametrize("name", ["a&b.onnx", "@PaxHeader", "\u00fc.csv", "x" * 151])
def test_a_name_that_kaggle_may_refuse_is_a_fault(packed, name):
    (packed / "dataset" / name).write_bytes(b"")
    (fault,) = faults_of(packed)
    assert fault.startswith(f"a name: dataset/{name} has a name that Kaggle may refuse")


def test_a_damaged_wheel_is_a_fault_and_no_error(packed):
    (packed / "dataset" / "soxr-1.0-py3-none-any.whl").write_bytes(b"half of it")
    (fault,) = faults_of(packed)
    assert "soxr-1.0-py3-none-any.whl: is not a whole wheel" in fault


@pytest.mark.parametrize("name", ["fold0.onnx", "manifest.json"])
def test_a_bundle_that_lacks_a_file_is_reported_by_its_name(packed, name):
    (packed / "dataset" / name).unlink()
    (fault,) = faults_of(packed)
    assert fault.startswith("the bundle: ")
    assert name in fault
