"""Steps with a known effect, to test ablations."""

import zlib

import numpy as np

from birdinfer.evaluation.ablation import Subject, labelled_rows
from birdinfer.postprocess.base import Step
from birdinfer.species import Species
from birdinfer.tables.scores import apply_by_file, rows_by_file


class Cheat(Step, frozen=True, forbid_unknown_fields=True, tag="cheat"):
    """Knows the truth and raises it."""

    truth: dict[str, tuple[tuple[float, ...], ...]]
    strength: float = 0.3

    context_rows = 0
    is_neutral = False

    def bind(self, species):
        def run(probabilities, file_id):
            truth = np.array(self.truth[file_id], np.float32)
            return probabilities + np.float32(self.strength) * truth * (1 - probabilities)

        return run


class Noise(Step, frozen=True, forbid_unknown_fields=True, tag="noise"):
    """Shuffles the rows of a file by a little or a lot, knowing nothing."""

    seed: int = 0
    strength: float = 0.2

    context_rows = 0
    is_neutral = False

    def bind(self, species):
        def run(probabilities, file_id):
            rng = np.random.default_rng((self.seed, zlib.crc32(file_id.encode())))
            noise = rng.random(probabilities.shape, np.float32) - np.float32(0.5)
            return np.clip(probabilities + np.float32(self.strength) * noise, 0, 1)

        return run


class Square(Step, frozen=True, forbid_unknown_fields=True, tag="square"):
    """Keeps every order: p' = p^2."""

    context_rows = 0
    is_neutral = False

    def bind(self, species):
        return lambda probabilities, file_id: np.square(probabilities)


def subject(n_files=12, n_rows=10, n_species=4, seed=0):
    """Files of scores that know something of the truth: ROC-AUC of about 0.8."""
    rng = np.random.default_rng(seed)
    truth = rng.random((n_files * n_rows, n_species)) < 0.25
    scores = (0.7 * rng.random(truth.shape) + 0.25 * truth).astype(np.float32)
    row_ids = [f"f{row // n_rows}_{5 * (row % n_rows + 1)}" for row in range(len(truth))]
    files = rows_by_file(row_ids, "scores.csv")
    every_row, every_column = np.arange(len(truth)), np.arange(n_species)
    species = tuple(Species(f"s{index}") for index in every_column)
    stems = [row_id.rpartition("_")[0] for row_id in row_ids]
    return Subject(scores, species, files, every_row, every_column, labelled_rows(truth, stems))


def cheat(made, strength=0.3):
    """The step that knows the truth of a subject."""
    truth = {file.stem: tuple(map(tuple, made.labelled.truth[file.rows].astype(float).tolist())) for file in made.files}
    return Cheat(truth, strength)


def processed(made, step):
    """The scores after a step, [rows, species]."""
    return apply_by_file(made.scores, made.files, step.bind(made.species))
