"""Synthetic sound on disk: a seed -> soundscapes with truth.csv, or training clips in the layout of BirdCLEF.

The sound is :mod:`birdinfer.synthetic`'s. Equal seeds give equal samples; Ogg files of equal sound differ in their
bytes all the same, for each stream gets a number of its own.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from birdinfer.config import FrontEndConfig
from birdinfer.files import atomic_file, write_atomic
from birdinfer.labels import Species
from birdinfer.synthetic import (
    SAMPLE_RATE,
    SPECIES,
    SPECIES_PER_SOUNDSCAPE,
    Event,
    make_clip,
    make_soundscape,
    window_truth,
)
from birdinfer.tables.csv_files import csv_text
from birdinfer.windows import count_windows, end_seconds

Float32 = npt.NDArray[np.float32]

AUTHORS_PER_SPECIES = 6
"""Enough for folds that keep an author's recordings together."""

_FIRST_RECORDING = datetime(2026, 5, 1, 5, 30)


def write_soundscapes(
    folder: Path,
    n_files: int,
    duration_seconds: float = 60.0,
    seed: int = 0,
    *,
    snr_db: tuple[float, float] = (3.0, 20.0),
) -> Path:
    """Write soundscapes with the truth that ``birdinfer score`` takes.

    ``<stem>.ogg`` at 32 kHz, ``truth.csv`` (``row_id`` = ``<stem>_<end second>``, 0 or 1 per label) and ``events.csv``.
    Four species call in a file, the other four in the next. File i depends on the seed and i alone.

    Args:
        folder: made if need be.
        n_files: how many.
        duration_seconds: of each, at least 5.
        seed: >= 0.
        snr_db: lowest and highest SNR.

    Returns:
        The path of ``truth.csv``.

    Raises:
        ConfigError: too short.
        OutputError: the folder cannot be written to.
    """
    truth_rows: list[list[object]] = []
    event_rows: list[list[object]] = []
    for index in range(n_files):
        stem = _stem(index)
        rng = np.random.default_rng([seed, index])
        waveform, events = make_soundscape(rng, duration_seconds, labels=_dealt_labels(seed, index), snr_db=snr_db)
        _write_ogg(folder / f"{stem}.ogg", waveform, SAMPLE_RATE)
        truth_rows += _truth_rows(stem, events, len(waveform))
        event_rows += [
            [f"{stem}.ogg", event.label, *(f"{value:.5f}" for value in event[1:3]), f"{event.snr_db:.2f}"]
            for event in events
        ]
    _write_csv(folder / "events.csv", ["filename", "label", "onset_seconds", "offset_seconds", "snr_db"], event_rows)
    return _write_csv(folder / "truth.csv", ["row_id", *(species.label for species in SPECIES)], truth_rows)


def write_training_data(folder: Path, clips_per_species: int, seed: int = 0) -> Path:
    """Write clips and tables in the layout of BirdCLEF 2025: train.csv, taxonomy.csv, train_audio/<label>/*.ogg.

    A fifth of the clips has a second species in the background, named in ``secondary_labels``. Clip i of a species
    depends on the seed, the species and i alone.

    Args:
        folder: made if need be.
        clips_per_species: how many, shared out over the species' own authors.
        seed: >= 0.

    Returns:
        ``folder``, which ``birdinfer train --data`` takes.

    Raises:
        OutputError: the folder cannot be written to.
    """
    taxonomy = [[s.label, 90_000 + i, s.scientific_name, s.common_name, s.class_name] for i, s in enumerate(SPECIES)]
    _write_csv(
        folder / "taxonomy.csv",
        ["primary_label", "inat_taxon_id", "scientific_name", "common_name", "class_name"],
        taxonomy,
    )
    rows = [
        _write_training_clip(folder, species, clip, np.random.default_rng([seed, column, clip]))
        for column, species in enumerate(SPECIES)
        for clip in range(clips_per_species)
    ]
    _write_csv(folder / "train.csv", list(rows[0]) if rows else [], [list(row.values()) for row in rows])
    return folder


def _dealt_labels(seed: int, index: int) -> list[str]:
    """Four labels for file ``index``: the species are shuffled and dealt out, so that two files hold all of them."""
    hands = len(SPECIES) // SPECIES_PER_SOUNDSCAPE
    order = np.random.default_rng([seed, index // hands, 1]).permutation(len(SPECIES))
    hand = order[(index % hands) * SPECIES_PER_SOUNDSCAPE :][:SPECIES_PER_SOUNDSCAPE]
    return [SPECIES[i].label for i in hand]


def _stem(index: int) -> str:
    """Site, date and time, as recorders name their files: four sites, each every half hour."""
    started = _FIRST_RECORDING + timedelta(minutes=30 * (index // 4))
    return f"synthetic_S{index % 4 + 1:02d}_{started:%Y%m%d_%H%M%S}"


def _truth_rows(stem: str, events: list[Event], n_samples: int) -> list[list[object]]:
    config = FrontEndConfig()
    n_windows = count_windows(n_samples, config.window_samples, config.min_tail_samples)
    truth = window_truth(events, n_windows).astype(int).tolist()
    ends = end_seconds(n_windows, config.window)
    return [[f"{stem}_{end}", *row] for end, row in zip(ends, truth, strict=True)]


def _write_training_clip(folder: Path, species: Species, clip: int, rng: np.random.Generator) -> dict[str, object]:
    """Write one clip and return its row of train.csv."""
    others = [other.label for other in SPECIES if other is not species]
    secondary = others[rng.integers(len(others))] if rng.random() < 0.2 else None
    author = clip % AUTHORS_PER_SPECIES + 1
    waveform, _ = make_clip(rng, species.label, secondary)
    name = f"{species.label}/SYN{clip:05d}.ogg"
    _write_ogg(folder / "train_audio" / name, waveform, SAMPLE_RATE)
    return {
        "primary_label": species.label,
        "secondary_labels": str([secondary or ""]),
        "type": str(["song" if species.class_name == "Aves" else "call"]),
        "latitude": f"{rng.uniform(-5, 10):.4f}",
        "longitude": f"{rng.uniform(-80, -70):.4f}",
        "scientific_name": species.scientific_name,
        "common_name": species.common_name,
        "author": f"{species.common_name} recordist {author}",
        "license": "CC0 1.0",
        "rating": rng.integers(4, 11) / 2,
        "url": "",
        "filename": name,
        "collection": "SYN",
    }


def _write_ogg(path: Path, waveform: Float32, sample_rate: int) -> None:
    """Ogg Vorbis, second by second: libsndfile overflows its stack when it encodes minutes in one call."""
    with (
        atomic_file(path) as file,
        soundfile.SoundFile(file, "w", sample_rate, 1, format="OGG", subtype="VORBIS") as ogg,
    ):
        for start in range(0, len(waveform), sample_rate):
            ogg.write(waveform[start : start + sample_rate])


def _write_csv(path: Path, header: list[str], rows: Iterable[Sequence[object]]) -> Path:
    write_atomic(path, csv_text(header, rows))
    return path
