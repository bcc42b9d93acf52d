"""Embeddings of which everything is known: a point for each species, and noise around it."""

import numpy as np

from birdinfer.inference.embeddings import EmbeddingInfo, Embeddings

INFO = EmbeddingInfo(
    bundle="nowhere", bundle_sha256="", member="fold0", graph_sha256="", output="scaled", window_seconds=5.0,
    stride_seconds=5.0,
)  # fmt: skip


def embeddings_of(values: np.ndarray, *recordings: str) -> Embeddings:
    """Windows of 5 s side by side; ``recordings`` names that of each window."""
    count: dict[str, int] = {}
    index = np.array([count.update({name: count.get(name, -1) + 1}) or count[name] for name in recordings])
    row_ids = tuple(f"{name}_{5 * (at + 1)}" for name, at in zip(recordings, index, strict=True))
    return Embeddings(
        info=INFO, values=values.astype(np.float16), row_ids=row_ids, recordings=recordings,
        start_seconds=5.0 * index, end_seconds=5.0 * (index + 1),
    )  # fmt: skip


def species_points(
    n_species: int, n_clips: int, n_windows: int = 2, *, width: int = 16, noise: float = 0.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``n_clips`` of each species: embeddings [windows, width], species and clip of each window."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 1, (n_species, width))
    clips = np.repeat(np.arange(n_species * n_clips), n_windows)
    species = clips % n_species
    return (points[species] + rng.normal(0, noise, (len(clips), width))).astype(np.float32), species, clips
