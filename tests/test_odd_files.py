"""The collection of odd files (../shared/data/odd_files), each held against what ffmpeg makes of it at 32 kHz."""

import csv
import re

import numpy as np
import pytest
from make_bundles import SAMPLE_RATE, tone, write_sound

from birdinfer.audio.find import recording_name
from birdinfer.audio.stream import AudioStream
from birdinfer.errors import AudioError

ROUNDING_SAMPLES = 2
"""Two resamplers round a file's end apart by so much."""

NAMED = {
    # ffmpeg decodes these, libsndfile does not.
    "aac.m4a": ("unreadable", "is MP4 (AAC or ALAC), which cannot be decoded here"),
    "test.spx": ("unreadable", "is Speex, which cannot be decoded here"),
    # Neither decodes these.
    "cut_in_headers.ogg": ("unreadable", "cannot be decoded (Supported file format but file is malformed)"),
    "flac_with_image.flac": ("unreadable", "cannot be decoded (unknown error in flac decoder)"),
    "git_lfs_pointer.ogg": ("unreadable", "is a Git LFS pointer, not the sound itself"),
    "hound_crash-e5471f5b58397287b509db7d026e95f1724454f5.wav": ("unreadable", "cannot be decoded (Unspecified inte"),
    "invalid_sample_rate.aiff": ("unreadable", "cannot be decoded ("),
    "scipy_test-44100Hz-le-1ch-4bytes-early-eof-no-data.wav": ("unreadable", "No 'data' chunk marker"),
    "scipy_test-44100Hz-le-1ch-4bytes-incomplete-chunk.wav": ("unreadable", "No 'data' chunk marker"),
    "test2.wma": ("unreadable", "is WMA, which cannot be decoded here"),
    "there_is_no_such_ext.bogus": ("unreadable", "cannot be decoded (Format not recognised)"),
    "three_bytes.mp3": ("unreadable", "cannot be decoded ("),
    "truncated-64bit.mp4": ("unreadable", "is MP4"),
    "zero_bytes.ogg": ("unreadable", "is empty (0 bytes)"),
    "bit_errors.ogg": ("unreadable", "holds no sound (truncated after 0.0 s; 5 pages broken)"),
    "ooming-header.flac": ("unreadable", "holds no sound (truncated: 0.0 of 139.1 s"),
    "oss_empty_2c.wav": ("unreadable", "holds no sound (its header is there, samples are not)"),
    "wav_no_samples.wav": ("unreadable", "holds no sound (its header is there, samples are not)"),
    # Read as far as they go.
    "cut_at_40_percent.ogg": ("truncated", "truncated after 0.6 s"),
    "52-too-short-block-size.flac": ("truncated", "truncated: 0.4 of 202.8 s (flac decoder lost sync)"),
    "variable-block.flac": ("truncated", "truncated: 0.9 of 261.7 s (flac decoder lost sync)"),
    "wav_data_missing_half.wav": ("truncated", "truncated: 0.5 of 1.0 s"),
    "zeroed_middle.ogg": ("damaged", "0.6 s missing at 1.1 s, taken as silence; a page broken"),
    "float_with_nan_inf.wav": ("non-finite", "8 samples are not finite, taken as 0"),
    # Read whole, but without sound.
    "anti_phase_stereo.flac": ("silent", "silent: its channels cancel each other"),
    "digital_silence_5s.ogg": ("silent", "silent: all samples are 0"),
    "hound_nonstandard-01.wav": ("silent", "silent: all samples are 0"),
    "hound_waveformatex-8bit-11025Hz-mono.wav": ("silent", "silent: all samples are -1"),
    "mp3_vbr_8khz_stereo.mp3": ("silent", "silent: all samples are 0"),
    "multipagecomment.ogg": ("silent", "silent: all samples are 0"),
    "non_ascii_name_äää.mp3": ("silent", "silent: all samples are 0"),
    "ogg_vorbis_unknown_extension.x": ("silent", "silent: all samples are 0"),
    "one_sample.ogg": ("silent", "silent: all samples are 0"),
    "oss_stereo.wav": ("silent", "silent: all samples are 0.5"),
    "vorbis_empty.ogg": ("silent", "silent: all samples are 0"),
}
"""Status and problem of every file that is not ok. A change here is a change of what users read."""

_PAGE_CLOCK = "the last page says so; ffmpeg leaves out the first 128 samples"
_TOO_SHORT = "ffmpeg's resampler gives nothing for so few samples"
COUNTED_OTHERWISE = {
    "chained_32k_then_44k.ogg": (128_000, "3 s at 32 kHz and 1 s at 44.1 kHz; ffmpeg joins them before resampling"),
    "dc_offset.ogg": (32_000, _PAGE_CLOCK),
    "digital_silence_5s.ogg": (160_000, _PAGE_CLOCK),
    "multipagecomment.ogg": (117_911, _PAGE_CLOCK),
    "ogg_vorbis_unknown_extension.x": (117_911, _PAGE_CLOCK),
    "vorbis_empty.ogg": (117_911, _PAGE_CLOCK),
    "one_sample.ogg": (1, "the last page says 1; ffmpeg gives the block that it is in"),
    "zeroed_middle.ogg": (96_000, "0.6 s of silence where pages are missing; ffmpeg joins what lies around them"),
    "hound_waveformatex-8bit-11025Hz-mono.wav": (12, _TOO_SHORT),
    "oss_stereo.wav": (4, _TOO_SHORT),
    "scipy_test-8000Hz-le-3ch-5S-24bit-inconsistent.wav": (20, _TOO_SHORT),
    "scipy_test-8000Hz-le-5ch-9S-5bit.wav": (36, _TOO_SHORT),
    "scipy_test-44100Hz-2ch-32bit-float-be.wav": (320, "RIFX, which ffmpeg does not read"),
}
"""Samples at 32 kHz of the files that are decoded to another length than by ffmpeg, and why."""


@pytest.fixture(scope="module")
def odd_files(shared_data):
    """Path -> samples that ffmpeg gives at 32 kHz."""
    folder = shared_data / "odd_files"
    with (folder / "odd_files.csv").open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    return {folder / row["file"]: int(re.search(r"(\d+) samples", row["ffmpeg"]).group(1)) for row in rows}


def decode(path):
    """Samples, status and problem, as in a run."""
    try:
        with AudioStream(path, SAMPLE_RATE) as stream:
            samples = np.concatenate(list(stream.blocks()))
    except AudioError as error:
        return np.zeros(0, np.float32), "unreadable", error.what
    return samples, stream.status.value, stream.damage


def test_every_odd_file_is_ok_or_named_with_its_reason(odd_files):
    found = {path.name: decode(path)[1:] for path in odd_files}
    assert len(found) >= 58
    assert {name for name, (status, _) in found.items() if status != "ok"} == set(NAMED)
    for name, (status, problem) in NAMED.items():
        assert found[name][0] == status, name
        assert problem in found[name][1], name
        assert found[name][1].isprintable()
    assert not [problem for status, problem in found.values() if status == "ok" and problem]


def test_every_decoded_file_has_the_samples_that_ffmpeg_gives(odd_files):
    counts = {}
    for path, wanted in odd_files.items():
        samples, status, _ = decode(path)
        assert np.isfinite(samples).all()
        if status != "unreadable" and abs(len(samples) - wanted) > ROUNDING_SAMPLES:
            counts[path.name] = len(samples)
    assert counts == {name: count for name, (count, _) in COUNTED_OTHERWISE.items()}


def test_two_files_are_decoded_by_ffmpeg_only(odd_files):
    lost = {path.name for path, wanted in odd_files.items() if wanted and not len(decode(path)[0])}
    assert lost == {"aac.m4a", "test.spx"}


def table(path):
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_good_files_beside_them_are_scored_as_if_they_were_alone(odd_files, bundle, birdinfer, tmp_path):
    good = tmp_path / "good"
    good.mkdir()
    for index in range(3):
        write_sound(good / f"good_{index}.ogg", tone(12.0, seed=index))
    alone, beside = tmp_path / "alone.csv", tmp_path / "beside.csv"
    assert birdinfer("predict", good, "--bundle", bundle, "-o", alone, "-q")[0] == 0
    code, _, stderr = birdinfer("predict", *odd_files, good, "--bundle", bundle, "-o", beside, "-q")
    assert code == 3
    assert "Traceback" not in stderr

    def good_rows(path):
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("good_")]

    assert good_rows(beside) == good_rows(alone)
    assert len(good_rows(beside)) == 9

    found = {row["file"]: row for row in table(beside.with_suffix(".files.csv"))}
    assert len(found) == len(odd_files) + 3
    for path in odd_files:
        row, (status, problem) = found[str(path)], NAMED.get(path.name, ("ok", ""))
        assert row["status"] in (status, "too short")  # for a row, which a file does not know of itself
        assert problem in row["problem"]
    stems = {row["row_id"].rpartition("_")[0] for row in table(beside)}
    unreadable = {name for name, (status, _) in NAMED.items() if status == "unreadable"}
    names = {recording_name(path) for path in odd_files if path.name not in unreadable}
    assert stems == names | {f"good_{index}" for index in range(3)}
