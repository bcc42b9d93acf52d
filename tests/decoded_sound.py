"""Decode whole files, and make pages of Ogg, for tests of decoding."""

import struct

import numpy as np
from make_bundles import SAMPLE_RATE

from birdinfer.audio.stream import AudioStream


def decode(path, rate=SAMPLE_RATE):
    """A file's whole waveform and what is wrong with it."""
    with AudioStream(path, rate) as stream:
        blocks = list(stream.blocks())
        return np.concatenate(blocks), stream.damage


def decode_at(path, rates):
    """A file's whole waveform at every rate, decoded once."""
    with AudioStream(path, SAMPLE_RATE) as stream:
        blocks = list(stream.blocks_at(rates))
    return {rate: np.concatenate([block[rate] for block in blocks if rate in block]) for rate in rates}


def page(body, serial=1, sequence=0, flags=0, granule=0):
    """One page with a right checksum, made by the words of RFC 3533."""
    table = bytes([255] * (len(body) // 255) + [len(body) % 255])
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, serial, sequence, 0) + bytes([len(table)]) + table
    return head[:22] + struct.pack("<I", slow_checksum(head + body)) + head[26:] + body


def slow_checksum(data):
    """Bit by bit: polynomial 0x04C11DB7, highest bit first, from 0."""
    value = 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = ((value << 1) ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value
