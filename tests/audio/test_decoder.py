import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer.audio import decoder
from birdinfer.audio.decoder import ByteRange, ByteRanges, Decoder
from birdinfer.audio.stream import AudioStream
from birdinfer.errors import AudioError, InputNotFoundError


def wav(channels, rate, data_bytes, payload=bytes(4_000), bits=16):
    """A WAV whose header may claim anything."""
    align = channels * bits // 8 & 0xFFFF
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * align & 0xFFFFFFFF, align, bits)
    body = b"WAVE" + fmt + struct.pack("<4sI", b"data", data_bytes) + payload
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + body


def peak_bytes(path):
    """Memory at its highest while a file is read, or refused."""
    tracemalloc.start()
    try:
        with AudioStream(path, SAMPLE_RATE) as stream:
            for _ in stream.blocks():
                pass
    except AudioError as error:
        assert "\n" not in str(error)  # noqa: PT017 - refused is as good as read
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


@pytest.mark.parametrize("channels", [1, 2, 8, 1_024, 65_535])
@pytest.mark.parametrize("rate", [100, 44_100, 1_000_000, 2**31 - 1])
@pytest.mark.parametrize("data_bytes", [4_000, 2**31, 2**32 - 1])
def test_no_header_claims_gigabytes(tmp_path, channels, rate, data_bytes):
    (tmp_path / "a.wav").write_bytes(wav(channels, rate, data_bytes))
    assert peak_bytes(tmp_path / "a.wav") < 150e6


def test_a_flac_that_claims_a_year_takes_the_memory_of_its_block(tmp_path):
    write_sound(tmp_path / "a.flac", tone(2.0))
    raw = bytearray((tmp_path / "a.flac").read_bytes())
    raw[21] |= 0x0F
    raw[22:26] = b"\xff" * 4
    (tmp_path / "a.flac").write_bytes(raw)
    assert peak_bytes(tmp_path / "a.flac") < 50e6
    with AudioStream(tmp_path / "a.flac", SAMPLE_RATE) as stream:
        assert sum(map(len, stream.blocks())) == 2 * SAMPLE_RATE
    assert stream.damage == "its header claims 2147483.6 s, the file holds 2.0 s"


def test_a_block_is_bounded_by_its_values(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((5_000, 1_000), np.int16), 48_000)
    with Decoder(tmp_path / "a.wav") as file:
        lengths = [len(block) for block in file.blocks()]
    assert max(lengths) * 1_000 <= decoder.MOST_BLOCK_VALUES
    assert sum(lengths) == 5_000


def test_a_decoder_that_never_ends_is_stopped(tmp_path, monkeypatch):
    write_sound(tmp_path / "a.flac", tone(1.0))
    monkeypatch.setattr(decoder, "_MOST_FRAMES_PER_BYTE", 100)
    monkeypatch.setattr(Decoder, "read", lambda self, count: np.ones((count, 1), np.float32))
    n_bytes = (tmp_path / "a.flac").stat().st_size
    with Decoder(tmp_path / "a.flac") as file:
        assert sum(map(len, file.blocks())) == 100 * n_bytes
        assert file.failure == "it gives more sound than its bytes can hold"


@pytest.mark.parametrize("n_bytes", [20_000, 33_333, 50_000])
def test_samples_before_a_failure_are_those_of_the_whole_file(tmp_path, n_bytes):
    write_sound(tmp_path / "a.flac", tone(4.0))
    with Decoder(tmp_path / "a.flac") as file:
        whole = np.concatenate(list(file.blocks()))
        assert not file.failure
    (tmp_path / "cut.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:n_bytes])
    with Decoder(tmp_path / "cut.flac") as file:
        cut = np.concatenate(list(file.blocks()))
        assert file.failure == "flac decoder lost sync"
    assert len(cut) % 4_096 == 0
    np.testing.assert_array_equal(cut, whole[: len(cut)])
    assert len(cut) > 0.9 * len(whole) * n_bytes / (tmp_path / "a.flac").stat().st_size - 4_096


def test_bytes_of_a_file_are_decoded_as_the_file_is(tmp_path):
    write_sound(tmp_path / "a.ogg", tone(3.0))
    n_bytes = (tmp_path / "a.ogg").stat().st_size
    (tmp_path / "b.bin").write_bytes(b"before" + (tmp_path / "a.ogg").read_bytes() + b"behind")
    with (
        Decoder(tmp_path / "a.ogg") as file,
        Decoder(tmp_path / "b.bin", ByteRanges(tmp_path / "b.bin", [ByteRange(6, n_bytes)])) as inner,
    ):
        np.testing.assert_array_equal(np.concatenate(list(file.blocks())), np.concatenate(list(inner.blocks())))


class TestWhatIsNoFile:
    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.wav")
        with pytest.raises(AudioError, match="is not a file"):
            Decoder(tmp_path / "a.wav")

    @pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom"])
    def test_a_device_is_not_read(self, tmp_path, device):
        (tmp_path / "a.wav").symlink_to(device)
        with pytest.raises(AudioError, match="is not a file"):
            Decoder(tmp_path / "a.wav")

    def test_a_link_to_itself_is_no_file(self, tmp_path):
        (tmp_path / "a.wav").symlink_to(tmp_path / "a.wav")
        with pytest.raises((AudioError, InputNotFoundError)):
            Decoder(tmp_path / "a.wav")

    @pytest.mark.parametrize("name", ["a" * 300 + ".wav", "a\0b.wav"])
    def test_a_name_that_no_file_can_have(self, tmp_path, name):
        with pytest.raises((AudioError, InputNotFoundError)) as caught:
            Decoder(tmp_path / name)
        assert "\n" not in str(caught.value)

    def test_a_file_that_may_not_be_read(self, tmp_path, monkeypatch):
        write_sound(tmp_path / "a.wav", tone(0.1))

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)  # a test may run as root, who may read everything
        with pytest.raises(AudioError, match=r"cannot be opened \(Permission denied\)"):
            Decoder(tmp_path / "a.wav")

    def test_a_file_that_is_gone_before_it_is_opened(self, tmp_path, monkeypatch):
        write_sound(tmp_path / "a.wav", tone(0.1))
        monkeypatch.setattr(decoder, "_check", lambda path: (path.unlink() or 1, b""))
        with pytest.raises(AudioError, match="cannot be decoded"):
            Decoder(tmp_path / "a.wav")


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.wav", b"new\nline.wav", b"-x.wav", b"a: b.wav", "ä 🐦.wav".encode(), b"\x1b[31m.wav", b"a.raw"]
)
def test_names_of_all_kinds_are_opened_or_refused_in_one_line(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    write_sound(tmp_path / "a.wav", tone(0.5))
    (tmp_path / "a.wav").rename(path)
    with Decoder(path) as file:
        assert sum(map(len, file.blocks())) == SAMPLE_RATE // 2
    path.write_bytes(b"no sound")
    with pytest.raises(AudioError, match="Format not recognised") as caught:
        Decoder(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "error",
    [OSError("disk"), RuntimeError("x"), OverflowError("y"), MemoryError(), UnicodeDecodeError("a", b"", 0, 0, "z")],
)  # fmt: skip
def test_whatever_the_decoder_raises_is_a_refusal_or_an_end(tmp_path, monkeypatch, error):
    write_sound(tmp_path / "a.wav", tone(0.5), subtype="FLOAT")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    with Decoder(tmp_path / "a.wav") as file:
        assert not list(file.blocks())
        assert file.failure
    monkeypatch.setattr(soundfile.SoundFile, "__init__", fail)
    monkeypatch.setattr(soundfile.SoundFile, "__del__", lambda self: None)
    with pytest.raises(AudioError, match="cannot be decoded"):
        Decoder(tmp_path / "a.wav")
