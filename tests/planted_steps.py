"""Steps whose worth is known, to judge an ablation by."""

import zlib

import numpy as np

from birdinfer.ablation.ablate import Subject, judged_rows
from birdinfer.labels import Species
from birdinfer.postprocess.step import Step
from birdinfer.tables.score_files import apply_by_file, rows_by_file


class Cheat(Step, frozen=True, forbid_unknown_fields=True, tag="cheat"):
    """Knows the truth and raises it."""

    truth: dict[str, tuple[tuple[float, ...], ...]]
    strength: float = 0.3

    reach = 0
    is_neutral = False

    def bind(self, species):
        def run(probabilities, stem):
            told = np.array(self.truth[stem], np.float32)
            return probabilities + np.float32(self.strength) * told * (1 - probabilities)

        return run


class Noise(Step, frozen=True, forbid_unknown_fields=True, tag="noise"):
    """Shuffles the rows of a file by a little or a lot, knowing nothing."""

    seed: int = 0
    strength: float = 0.2

    reach = 0
    is_neutral = False

    def bind(self, species):
        def run(probabilities, stem):
            rng = np.random.default_rng((self.seed, zlib.crc32(stem.encode())))
            noise = rng.random(probabilities.shape, np.float32) - np.float32(0.5)
            return np.clip(probabilities + np.float32(self.strength) * noise, 0, 1)

        return run


class Square(Step, frozen=True, forbid_unknown_fields=True, tag="square"):
    """Keeps every order: p' = p^2."""

    reach = 0
    is_neutral = False

    def bind(self, species):
        return lambda probabilities, stem: np.square(probabilities)


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
    return Subject(scores, species, files, every_row, every_column, judged_rows(truth, stems))


def cheat(made, strength=0.3):
    """The step that knows the truth of a subject."""
    told = {file.stem: tuple(map(tuple, made.judged.truth[file.rows].astype(float).tolist())) for file in made.files}
    return Cheat(told, strength)


def processed(made, step):
    """The scores after a step, [rows, species]."""
    return apply_by_file(made.scores, made.files, step.bind(made.species))
