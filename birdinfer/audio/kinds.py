"""What looks like sound: a file's name, or its first bytes -> whether it is offered to the decoder.

Files of formats that cannot be decoded here look like sound, too: each of them is reported with the reason instead of
missing from the result.
"""

import re
from pathlib import Path


def _endings(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


AUDIO_SUFFIXES = _endings(
    "ogg oga opus flac fla wav wave wavex bwf rf64 w64 caf aif aiff aifc au snd mp3 mp2 mpga voc svx 8svx nist sph paf "
    "pvf avr sd2 sds ircam wve"
)
"""Endings, lower case, of what libsndfile decodes."""
_OTHER_SOUND = _endings(
    "m4a m4b m4r mp4 aac wma wac w4v sud dsg amr awb 3gp ape wv tta tak spx ac3 ra dsf dff mka weba webm"
)
"""Endings of sound that it does not decode, unless the ending is wrong."""
_NO_SOUND = _endings(
    "txt csv tsv json jsonl xml html md log ini toml yaml yml py ipynb sh r jpg jpeg png gif bmp tif tiff heic svg pdf "
    "doc docx xls xlsx ods odt ppt pptx zip gz tgz bz2 xz 7z rar tar gpx kml kmz db sqlite npy npz parquet onnx pt bin "
    "exe dll lnk url mov avi mkv mpg mpeg wmv"
)
"""Endings of files that are not opened to see whether they are sound."""
_ENDING = re.compile(r"[a-z][a-z0-9]{0,4}")
_HEAD_BYTES = 4096
_CHUNKED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM")
_IN_CHUNKS = (b"WAVE", b"AIFF", b"AIFC", b"8SVX", b"16SV")
_PICTURES = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"qt  ")
"""Brands of MP4's container that are photos and films."""
_MAGIC = (
    b"OggS", b"fLaC", b"ID3", b"caff", b".snd", b"dns.", b"riff\x2e\x91\xcf\x11", b"Creative Voice File", b"NIST_1A",
    b" paf", b"fap ", b"PVF1", b"2BIT", b"\x64\xa3\x01\x00", b"\x00\x01\xa3\x64", b"WAac", b"#!AMR", b"MAC ",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"wvpk", b"TTA1", b"tBaK", b"DSD ", b"FRM8", b"MPCK", b"MP+", b".ra\xfd",
    b"ADIF",
)  # fmt: skip
_KBPS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
"""Bit rates of MPEG layer III by version; version 2.5 has those of 2."""
_HZ = {3: (44_100, 48_000, 32_000, 0), 2: (22_050, 24_000, 16_000, 0), 0: (11_025, 12_000, 8_000, 0)}


def sounds_by_name(name: str) -> bool | None:
    """Whether a file is sound by its ending; None where only its first bytes show it.

    >>> sounds_by_name("a.WAV"), sounds_by_name("a.txt"), sounds_by_name("SITE.20210502.120000")
    (True, False, None)
    """
    suffix = _suffix(name)
    return True if suffix in AUDIO_SUFFIXES or suffix in _OTHER_SOUND else False if suffix in _NO_SOUND else None


def sounds_by_content(path: Path) -> bool:
    """Whether a file is sound by its first bytes; raises OSError where they cannot be read."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_CHUNKED):
        return head[8:12] in _IN_CHUNKS
    if head[4:8] == b"ftyp":
        return head[8:12] not in _PICTURES
    # Two frames in a row: text in UTF-16 begins as one does.
    return head.startswith(_MAGIC) or bool((n := _frame_bytes(head)) and _frame_bytes(head[n:]))


def without_ending(name: str) -> str:
    """Remove the ending of a file's name, with any folders in front; a date behind a point is none.

    >>> without_ending("siteA/a.b.WAV"), without_ending("SITE.20210502.120000")
    ('siteA/a.b', 'SITE.20210502.120000')
    """
    is_ending = bool(_ENDING.fullmatch(_suffix(name)[1:])) or sounds_by_name(name) is not None
    return name.rpartition(".")[0] if is_ending else name


def ending_of(name: str) -> str:
    """Return a name's ending as a user reads it in a count: ``.txt``, or ``without an ending``."""
    suffix = _suffix(name)
    return suffix if _ENDING.fullmatch(suffix[1:]) or sounds_by_name(name) is not None else "without an ending"


def _suffix(name: str) -> str:
    head, point, ending = name.rpartition(".")
    return point + ending.lower() if head and not head.endswith("/") else ""


def _frame_bytes(head: bytes) -> int:
    """Length of the frame of MP3 (layer III) or AAC (ADTS) that the bytes begin with; 0 if it is none."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    if layer == 0 and version & 2:
        return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if layer != 1 or version == 1:
        return 0
    kbps, hertz = _KBPS[version or 2][head[2] >> 4], _HZ[version][head[2] >> 2 & 3]
    return (144 if version == 3 else 72) * 1000 * kbps // hertz + (head[2] >> 1 & 1) if hertz and kbps else 0
