import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.audio.metadata import FileMetadata, Position, is_clock_set, parse_clock, parse_offset, read_metadata

CASES = Path(__file__).parents[3] / "shared" / "cases" / "formats" / "metadata"
MOMENT = datetime(2025, 2, 27, 1, 0, 2)
FMT = (b"fmt ", struct.pack("<HHIIHH", 1, 1, 32_000, 64_000, 2, 16))
SOUND = (b"data", bytes(range(1, 101)))
GUANO = (
    b"GUANO|Version:1.0\nMake:Open Acoustic Devices\nModel: AudioMoth\nSerial:24F3\nTimestamp:2025-02-27T01:00:02Z\n"
)
COMMENT = (
    b"Recorded at 01:00:02 27/02/2025 (UTC+5:30) by AudioMoth 24526B065D325963 at medium gain while battery was 3.8V."
)


def hours(number):
    return timezone(timedelta(hours=number))


def chunk(name, body):
    return struct.pack("<4sI", name, len(body)) + body + bytes(len(body) % 2)


def riff(*chunks, kind=b"RIFF"):
    body = b"WAVE" + b"".join(chunk(*each) for each in chunks)
    return struct.pack("<4sI", kind, len(body)) + body


def info(comment):
    return (b"LIST", b"INFO" + chunk(b"IART", b"AudioMoth") + chunk(b"ICMT", comment))


def wamd(**fields):
    numbers = {"version": 0, "model": 1, "serial": 2, "time": 5, "first": 6, "last": 0x14}
    body = b"".join(struct.pack("<HI", numbers[key], len(text)) + text for key, text in fields.items())
    return (b"wamd", body + struct.pack("<HI", 0xFFFF, 1) + b"\0")


def bext(date, time, originator=b"ZOOM Handy Recorder H4n"):
    return (b"bext", bytes(256) + originator.ljust(64, b"\0") + date + time + b"\x80\xe6\xb8" + bytes(261))


def read(tmp_path, raw):
    (tmp_path / "a").write_bytes(raw)
    return read_metadata(tmp_path / "a")


def start_of(tmp_path, *chunks):
    return read(tmp_path, riff(FMT, SOUND, *chunks)).start


RECORDED = {
    "audiomoth_2018_gain_setting_resaved.wav": (
        "AudioMoth",
        "2018-05-04T09:32:00+00:00",
        None,
        "AudioMoth 0FE081F80FE081F0",
    ),
    "audiomoth_2020_gain_setting_resaved.wav": (
        "AudioMoth",
        "2020-04-04T10:25:00+00:00",
        None,
        "AudioMoth 24526B065D325963",
    ),
    "audiomoth_2025_medium_gain.wav": ("GUANO", "2025-05-03T03:13:00+00:00", (52.1, 4.5), "AudioMoth 242A2604603691DD"),
    "audiomoth_gps_opensoundscape_json.wav": (
        "AudioMoth",
        "2024-05-28T10:00:00+00:00",
        None,
        "AudioMoth 243B1F026488F56E",
    ),
    "bext_empty_cue_labels.wav": ("bext", "2023-11-05T17:54:35", None, "ZOOM Handy Recorder H4n"),
    "bext_garbage_ixml_after_data_metacorder.wav": ("bext", "2019-01-01T13:37:40", None, "Metacorder Demo"),
    "bext_ixml_sounddevices_702t.wav": ("bext", "2018-12-31T12:40:06", None, "Sound Dev: 702T S#GR1112089007"),
    "rtsys_conf_chunk.wav": ("", None, None, ""),
    "songmeter_mini_bat_4.3_guano_wamd.wav": (
        "GUANO",
        "2024-04-16T02:41:48+01:00",
        (51.4, -2.8),
        "Song Meter Mini Bat SMU01770",
    ),
    "wac_22050_stereo.wac.head": ("", None, None, ""),
    "wac_sm2bat.wac.head": ("", None, None, ""),
}
"""What recorders' own files say; the chunk of RTSYS is not documented, and names alone date a WAC."""


@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases, which are not part of the repository")
def test_reads_every_file_of_a_recorder():
    found = {}
    for path in sorted(CASES.iterdir()):
        one = read_metadata(path)
        if path.suffix in (".wav", ".head"):
            found[path.name] = (one.source, one.start and one.start.isoformat(), one.position, one.device)
        else:
            assert one == FileMetadata(), path.name
    assert found == RECORDED


def test_guano_comes_before_wamd_and_wamd_before_bext_and_bext_before_a_comment(tmp_path):
    chunks = [
        (bext(b"2025-02-27", b"04:00:02"), "bext"),
        (info(COMMENT), "AudioMoth"),
        (wamd(time=b"2025-02-27 03:00:02"), "WAMD"),
        ((b"guan", GUANO), "GUANO"),
    ]
    order = ["GUANO", "WAMD", "bext", "AudioMoth"]
    for used in (chunks, chunks[:3], chunks[:2], chunks[1:2]):
        first = min((name for _, name in used), key=order.index)
        assert read(tmp_path, riff(FMT, SOUND, *(each for each, _ in used))).source == first
        assert read(tmp_path, riff(FMT, *(each for each, _ in used), SOUND)).source == first


def test_what_one_chunk_lacks_is_taken_from_the_next(tmp_path):
    found = read(
        tmp_path,
        riff(FMT, SOUND, (b"guan", b"GUANO|Version:1.0\nLoc Position:52.1 4.5\nTimestamp:never"), info(COMMENT)),
    )
    assert found.start == MOMENT.replace(tzinfo=hours(5.5))
    assert (found.source, found.position) == ("AudioMoth", Position(52.1, 4.5))
    assert found.device == "AudioMoth 24526B065D325963"


@pytest.mark.parametrize(
    "body",
    [
        GUANO,
        GUANO + b"\0",
        GUANO + b"   ",
        GUANO.replace(b"\n", b"\r\n"),
        GUANO.replace(b"Timestamp:", b"Timestamp:  "),
        GUANO + b"Note: 10:30 \xff is no UTF-8\n",
    ],
)
def test_guano_ends_as_recorders_end_it(tmp_path, body):
    found = read(tmp_path, riff(FMT, SOUND, (b"guan", body)))
    assert (found.start, found.device) == (MOMENT.replace(tzinfo=UTC), "AudioMoth 24F3")


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("2025-02-27T01:00:02", MOMENT),
        ("2025-02-27T01:00:02Z", MOMENT.replace(tzinfo=UTC)),
        ("2025-02-27 01:00:02+1:00", MOMENT.replace(tzinfo=hours(1))),
        ("2025-02-27 01:00:02+0100", MOMENT.replace(tzinfo=hours(1))),
        ("2025-02-27 01:00:02 -03:30", MOMENT.replace(tzinfo=hours(-3.5))),
        ("2025-02-27 01:00:02-00:00", MOMENT),
        ("2025-02-27T01:00:02.1234567+01:00", MOMENT.replace(microsecond=123_456, tzinfo=hours(1))),
        ("2025-02-27T01:00:02.5", MOMENT.replace(microsecond=500_000)),
        ("2025-02-27T01:00", MOMENT.replace(second=0)),
        ("2025:02:27 01:00:02", MOMENT),
        ("1970-01-01T00:00:02", None),
        ("2000-01-01 00:05:53", None),
        ("0000-00-00 00:00:00", None),
        ("2025-02-31T01:00:02", None),
        ("9999-12-31T01:00:02", None),
        ("2025-02-27", None),
        ("", None),
    ],
)
def test_a_clock_is_read_as_recorders_write_it(text, clock):
    found = parse_clock(text)
    assert found == clock
    assert (found and found.utcoffset()) == (clock and clock.utcoffset())


@given(st.datetimes(datetime(2000, 2, 1), datetime(2099, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_every_iso_time_is_read(clock, minutes):
    clock = clock.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert parse_clock(clock.isoformat()) == clock
    assert parse_clock(clock.isoformat(" ")).utcoffset() == clock.utcoffset()


@pytest.mark.parametrize(
    ("text", "offset"),
    [("UTC", UTC), ("UTC+2", hours(2)), ("+02:30", hours(2.5)), ("-0000", None), ("+15:00", None), ("CET", None)],
)
def test_an_offset_is_read(text, offset):
    assert parse_offset(text) == offset


def test_a_clock_runs_on_from_where_it_began_without_power():
    assert not any(map(is_clock_set, (datetime(1970, 8, 1), datetime(1969, 12, 31, 21), datetime(2000, 1, 31, 23))))
    assert all(map(is_clock_set, (datetime(1971, 1, 1), datetime(2000, 2, 1), datetime(1980, 3, 1))))


@pytest.mark.parametrize(
    ("fields", "position"),
    [
        ({"first": b"WGS84,52.10000,N,4.50000,W,12"}, (52.1, -4.5)),
        ({"first": b"WGS84,52.10000,S,104.50000,E"}, (-52.1, 104.5)),
        ({"first": b",52.1,N,4.5,E"}, (52.1, 4.5)),
        ({"first": b"WGS84,52.1,-4.5,12"}, (52.1, -4.5)),
        ({"first": b"WGS84,0.00000,N,0.00000,W", "last": b"WGS84,52.1,N,4.5,E"}, (52.1, 4.5)),
        ({"first": b"WGS84,-,N,-,W"}, None),
        ({"first": b"WGS84,99.0,N,4.5,W"}, None),
    ],
)
def test_wamd_holds_time_position_and_device(tmp_path, fields, position):
    fields |= {"model": b"SM4", "serial": b"S4A01", "time": b"2025-02-27 01:00:02.500-05:00"}
    found = read(tmp_path, riff(FMT, SOUND, wamd(version=b"\1\0", **fields)))
    assert found.start == MOMENT.replace(microsecond=500_000, tzinfo=hours(-5))
    assert (found.position, found.device) == (position, "SM4 S4A01")


@pytest.mark.parametrize(
    ("date", "time", "start"),
    [
        (b"2025-02-27", b"01:00:02", MOMENT),
        (b"2025:02:27", b"01-00-02", MOMENT),
        (b"2025 02 27", b"01 00 02", MOMENT),
        (b"0000-00-00", b"00:00:00", None),
        (bytes(10), bytes(8), None),
        (b"2000-01-01", b"00:00:00", None),
    ],
)
def test_bext_holds_a_local_time(tmp_path, date, time, start):
    assert start_of(tmp_path, bext(date, time)) == start


@pytest.mark.parametrize(
    ("wording", "zone"),
    [
        (b"Recorded at 01:00:02 27/02/2025 by AudioMoth 24526B065D325963 at gain setting 2", UTC),
        (b"Recorded at 01:00:02 27/02/2025 (UTC) by AudioMoth 24526B065D325963 at gain setting 2", UTC),
        (b"Recorded at 01:00:02 27/02/2025 (UTC-3) during deployment 0123456789ABCDEF at low gain", hours(-3)),
        (b"Recorded at 01:00:02.000 27/02/2025 (UTC+5:30) by AudioMoth 24526B065D325963\0\0\0", hours(5.5)),
    ],
)
def test_the_comment_of_every_firmware_is_read(tmp_path, wording, zone):
    start = start_of(tmp_path, info(wording))
    assert start == MOMENT.replace(tzinfo=zone)


def test_a_clip_of_opensoundscape_has_its_own_time(tmp_path):
    clip = b'opso_metadata{"comment": "%s", "recording_start_time": "2025-02-27T01:00:32+05:30"}' % COMMENT
    assert start_of(tmp_path, info(clip)) == (MOMENT + timedelta(seconds=30)).replace(tzinfo=hours(5.5))


def test_other_comments_have_no_time(tmp_path):
    assert read(tmp_path, riff(FMT, SOUND, info(b"27/02/2025 01:00:02, a wren"))) == FileMetadata()


DS64 = (b"ds64", struct.pack("<QQQI", 0, 100, 50, 0))
OPEN = struct.pack("<4sI", b"data", 0xFFFFFFFF)


@pytest.mark.parametrize(
    "raw",
    [
        riff(DS64, FMT, kind=b"RF64") + OPEN + SOUND[1] + chunk(b"guan", GUANO),
        riff(FMT) + OPEN + SOUND[1] + chunk(b"guan", GUANO),  # a length that was never written
        riff(FMT) + struct.pack("<4sI", b"data", 0) + SOUND[1] + chunk(b"guan", GUANO),
        riff(FMT, (b"data", bytes(101)))[:-1] + chunk(b"guan", GUANO),  # not padded
        riff(FMT, SOUND, (b"guan", GUANO)) + bytes(500),
        riff(DS64, FMT, kind=b"RF64") + OPEN + SOUND[1] + chunk(b"guan", GUANO) + chunk(b"junk", bytes(70_000)),
        riff((b"junk", bytes(99)), FMT, (b"guan", GUANO), (b"data", bytes(70_000))),
        riff((b"junk", bytes(99)), FMT, (b"guan", GUANO), SOUND)[:-60],  # cut
    ],
)
def test_chunks_are_found_whatever_the_header_says_of_the_length(tmp_path, raw):
    assert read(tmp_path, raw).start == MOMENT.replace(tzinfo=UTC)


def vorbis_comments(*tags):
    texts = [tag.encode() for tag in tags]
    lengths = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return struct.pack("<I", 4) + b"test" + struct.pack("<I", len(texts)) + lengths


def flac(*blocks):
    heads = [bytes([kind | (0x80 if index == len(blocks) - 1 else 0)]) for index, (kind, _) in enumerate(blocks)]
    return b"fLaC" + b"".join(
        head + len(body).to_bytes(3) + body for head, (_, body) in zip(heads, blocks, strict=True)
    )


def test_frontier_labs_writes_vorbis_comments(tmp_path):
    tags = vorbis_comments(
        "RecordingStart=2025-02-27T01:00:02+1000", "SensorLocation=-27.3888+152.8808", "SensorUid=00008570"
    )
    found = read(tmp_path, flac((0, bytes(34)), (4, tags)) + b"\xff\xf8")
    assert found == FileMetadata(
        start=MOMENT.replace(tzinfo=hours(10)),
        source="Vorbis comment",
        position=Position(-27.3888, 152.8808),
        device="00008570",
    )


def test_flac_may_keep_the_chunks_of_a_wav(tmp_path):
    found = read(tmp_path, flac((0, bytes(34)), (2, b"riff" + chunk(b"guan", GUANO)), (4, vorbis_comments())))
    assert (found.source, found.start) == ("GUANO", MOMENT.replace(tzinfo=UTC))


@pytest.mark.parametrize("suffix", ["flac", "ogg", "wav"])
def test_a_comment_that_libsndfile_keeps_is_read(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    with soundfile.SoundFile(path, "w", 32_000, 1) as file:
        file.comment = COMMENT.decode()
        file.write(np.zeros(3_200))
    found = read_metadata(path)
    assert (found.source, found.start) == ("AudioMoth", MOMENT.replace(tzinfo=hours(5.5)))


WHOLE = [
    riff(
        FMT, bext(b"2025-02-27", b"01:00:02"), SOUND, wamd(time=b"2025-02-27 01:00:02"), (b"guan", GUANO), info(COMMENT)
    ),
    flac(
        (0, bytes(34)), (2, b"riff" + chunk(b"guan", GUANO)), (4, vorbis_comments("RecordingStart=2025-02-27 01:00:02"))
    ),
    b"OggS" + bytes(40) + b"\x03vorbis" + vorbis_comments("COMMENT=" + COMMENT.decode()),
]


@given(st.sampled_from(WHOLE), st.data())
def test_a_damaged_file_is_read_without_an_error(tmp_path_factory, whole, data):
    raw = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 5))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    found = read(tmp_path_factory.getbasetemp(), bytes(raw))
    assert (found.start is None) == (found.source == "")


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        read_metadata(tmp_path / "a.wav")
