import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import AudioError, InputNotFoundError, OutputError
from birdinfer.training.data.sources import Bucket, Decoded, is_whole, to_counts, write_bucket


def decoded(name, seed, n_samples):
    counts = np.random.default_rng(seed).integers(-32_768, 32_768, n_samples).astype(np.int16)
    return Decoded(name, counts, 2.0**-15, note=f"note {seed}", voice_seconds=seed / 4)


def test_clips_come_out_as_they_went_in(tmp_path):
    clips = [
        decoded("a", 0, 100),
        Decoded("ä\udcff", np.zeros(0, np.int16), 1.0, failed="no such file"),
        decoded("c", 2, 7),
    ]
    write_bucket(tmp_path / "x.clips", clips)
    bucket = Bucket(tmp_path / "x.clips")
    assert list(bucket.entries) == ["a", "ä\udcff", "c"]
    for clip in clips:
        entry = bucket.entries[clip.name]
        assert np.array_equal(bucket.sound(entry)[0:1_000], clip.counts * np.float32(clip.step))
        assert (entry.failed, entry.note, entry.voice_seconds) == (clip.failed, clip.note, clip.voice_seconds)
    assert np.array_equal(bucket.sound(bucket.entries["c"])[2:5], clips[2].counts[2:5] * np.float32(2.0**-15))


def test_a_bucket_of_clips_that_all_failed(tmp_path):
    write_bucket(tmp_path / "x.clips", [Decoded("a", np.zeros(0, np.int16), 1.0, failed="is empty")])
    bucket = Bucket(tmp_path / "x.clips")
    assert len(bucket.sound(bucket.entries["a"])[0:10]) == 0


@pytest.mark.parametrize("kept", [0, 1, 23, 24, 200, -1])
def test_what_is_not_whole_is_not_read(tmp_path, kept):
    write_bucket(tmp_path / "x.clips", [decoded("a", 0, 100)])
    content = (tmp_path / "x.clips").read_bytes()
    assert is_whole(tmp_path / "x.clips")
    (tmp_path / "x.clips").write_bytes(content[:kept])
    assert not is_whole(tmp_path / "x.clips")
    with pytest.raises(InputNotFoundError, match="is no whole part of the cache"):
        Bucket(tmp_path / "x.clips")


def test_a_damaged_index_is_refused_in_one_line(tmp_path):
    write_bucket(tmp_path / "x.clips", [decoded("a", 0, 100)])
    content = bytearray((tmp_path / "x.clips").read_bytes())
    content[210] ^= 1
    (tmp_path / "x.clips").write_bytes(content)
    with pytest.raises(InputNotFoundError, match="is damaged: its index has changed - start again: it is made again"):
        Bucket(tmp_path / "x.clips")


def test_a_bucket_that_is_not_there_is_not_whole(tmp_path):
    assert not is_whole(tmp_path / "x.clips")


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Beyond this many bytes the system refuses to write, as it does when a disk is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_bucket(tmp_path / "x.clips", [decoded(str(seed), seed, 10_000) for seed in range(9)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@given(
    peak_db=st.floats(-200, 20),
    values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50),
)
def test_counts_are_within_half_a_step_and_use_the_range(peak_db, values):
    samples = (np.array(values) * 10 ** (peak_db / 20)).astype(np.float32)
    counts, step = to_counts(samples)
    assert np.abs(counts * step - samples.astype(np.float64)).max() <= step / 2 * (1 + 1e-6)
    loudest = np.abs(samples).max()
    assert loudest == 0 or step <= loudest / 16_383


@given(st.lists(st.integers(-32_768, 32_767), min_size=1))
def test_16_bit_sound_is_kept_bit_by_bit(values):
    samples = np.array(values, np.float32) / 32_768
    counts, step = to_counts(samples)
    assert np.array_equal(counts * np.float32(step), samples)


def test_vorbis_may_overshoot():
    counts, step = to_counts(np.array([1.3, -1.3], np.float32))
    np.testing.assert_allclose(counts * step, [1.3, -1.3], atol=2**-15)


def test_silence_is_silence():
    counts, _ = to_counts(np.zeros(5, np.float32))
    assert not counts.any()


@given(seed=st.integers(0, 2**32 - 1))
def test_flipped_bytes_of_sound_are_found_where_they_are_read(tmp_path, seed):
    rng, n_samples, block = np.random.default_rng(seed), 200_000, 1 << 16
    path = tmp_path / "x.clips"
    write_bucket(path, [decoded("a", 0, 70_000), decoded("b", 1, n_samples)])
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    place = int(rng.integers(2 * n_samples))
    content[2 * 70_000 + place] ^= rng.integers(1, 256, dtype=np.uint8)
    path.write_bytes(content.tobytes())
    bucket = Bucket(path)
    assert is_whole(path)
    assert len(bucket.sound(bucket.entries["a"])[0:70_000]) == 70_000
    sound, wrong = bucket.sound(bucket.entries["b"]), place // 2 // block
    with pytest.raises(AudioError, match=r"b: its sound in the cache is damaged: delete .*x\.clips, it is made again"):
        sound[wrong * block : wrong * block + 10]
    right = (wrong + 1) % 3
    assert len(sound[right * block : right * block + 10]) == 10


def test_a_bucket_of_an_older_birdinfer_is_read(tmp_path):
    """Without checksums: 200 samples, an index of eight columns, and the lengths."""
    counts = decoded("a", 0, 100).counts
    index = b'[["a", 0, 100, 1.0, "", "", 0.0]]'
    (tmp_path / "x.clips").write_bytes(counts.tobytes() + index + struct.pack("<QQ8s", 200, len(index), b"BIRDCLIP"))
    bucket = Bucket(tmp_path / "x.clips")
    assert np.array_equal(bucket.sound(bucket.entries["a"])[0:100], counts.astype(np.float32))
