import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.audio.decoder import ByteRange, ByteRanges


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "a.bin"
    path.write_bytes(bytes(range(200)))
    return path


@given(
    ranges=st.lists(st.builds(ByteRange, st.integers(0, 150), st.integers(0, 50)), max_size=5),
    steps=st.lists(st.tuples(st.integers(-20, 260), st.sampled_from([0, 1, 2]), st.integers(0, 120)), max_size=6),
)
def test_ranges_read_as_a_file_of_their_own(content, ranges, steps):
    raw = content.read_bytes()
    plain = io.BytesIO(b"".join(raw[begin : begin + length] for begin, length in ranges))
    with ByteRanges(content, ranges) as file:
        for offset, whence, count in steps:
            base = (0, plain.tell(), len(plain.getvalue()))[whence]
            plain.seek(max(0, base + offset))
            assert file.seek(offset, whence) == plain.tell() == file.tell()
            assert file.read(count) == plain.read(count)


def test_what_is_cut_off_meanwhile_gives_no_bytes_and_no_exception(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(100))
    file = ByteRanges(tmp_path / "a.bin", [ByteRange(50, 50)])
    (tmp_path / "a.bin").write_bytes(bytes(60))
    assert file.read(100) == bytes(10)
    buffer = bytearray(10)
    file._file.close()
    assert file.readinto(memoryview(buffer)) == 0
    file.close()


def test_ranges_of_a_missing_file_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        ByteRanges(tmp_path / "none.bin", [ByteRange(0, 1)])
