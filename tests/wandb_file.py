"""A reader of W&B's offline files, run-*.wandb, whose own one is compiled: the records, as W&B's own messages.

The format is LevelDB's log (github.com/google/leveldb, doc/log_format.md) after a header of 7 bytes: blocks of 32 KiB
of fragments, each with CRC (4 bytes), length (2), kind (1: whole, 2: first, 3: middle, 4: last).
"""

import struct
from collections.abc import Iterator
from pathlib import Path

BLOCK, HEADER = 32_768, 7
WHOLE, FIRST, _, LAST = 1, 2, 3, 4


def records(path: Path, kind: str) -> list:
    """All records of a kind: ``run``, ``history``, ``summary``, ``artifact``, ``exit``."""
    from wandb.proto.wandb_internal_pb2 import Record

    every = [Record.FromString(message) for message in _messages(path.read_bytes())]
    return [getattr(one, kind) for one in every if one.WhichOneof("record_type") == kind]


def _messages(content: bytes) -> Iterator[bytes]:
    assert content.startswith(b":W&B")
    place, message = HEADER, b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:  # too little is left of the block for another fragment
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        part = content[place + HEADER : place + HEADER + length]
        message = part if kind in {WHOLE, FIRST} else message + part
        if kind in {WHOLE, LAST}:
            yield message
        place += HEADER + length
