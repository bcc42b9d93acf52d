"""A blend by rank inside a bundle: packed and run as Kaggle does, killed at random, and what it costs.

The bundle has three families: two folds, a detector of events, and an external graph that takes the waveform.
"""

import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packed_submission import COMPETITION, SETTINGS, write_sample
from three_families import alone, write_three_families

from birdinfer import Bundle
from birdinfer.kaggle import dry_run as home
from birdinfer.kaggle.dry_run import DryRunSettings, dry_run
from birdinfer.kaggle.fake_kaggle import Layout, Run
from birdinfer.kaggle.faults import run_faults
from birdinfer.kaggle.notebook import write_notebook
from birdinfer.kaggle.pack import SAMPLE, write_dataset_metadata, write_flat_bundle, write_kernel_metadata
from birdinfer.prediction.run import PredictionSettings, predict_to_csv
from birdinfer.submission.blend_tables import align_tables, blend_ranks, write_scores
from birdinfer.tables.scores import read_scores
from test_kills import both, command, done, folder, kill_once  # noqa: F401

KILLS, SEED, ROUNDS = 20, 20_260_102, 3
LARGEST_OVERHEAD = 1.05

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    into = tmp_path_factory.mktemp("families") / "bundle"
    return write_three_families(into, "rank:linear.weight=2,perch.weight=0.5")


@pytest.fixture(scope="module")
def packed(tmp_path_factory, families):
    """As `birdinfer kaggle pack` writes it, without wheels: this Python has them."""
    packed = tmp_path_factory.mktemp("packed")
    (packed / "dataset").mkdir()
    (packed / "kernel").mkdir()
    bundle = Bundle.load(families)
    write_flat_bundle(bundle, packed / "dataset")
    write_dataset_metadata(packed / "dataset", "someone", "three families")
    write_kernel_metadata(packed / "kernel", "someone", "three families", COMPETITION)
    write_notebook(packed / "kernel" / "birdinfer.ipynb", SETTINGS)
    write_sample(packed / SAMPLE, bundle.labels[::-1], COMPETITION.year)
    return packed


@pytest.mark.timeout(1200)
def test_the_table_of_a_packed_blend_in_both_layouts(packed, families, soundscapes, table, tmp_path, monkeypatch):
    """It equals `birdinfer blend --how rank` of the tables that the groups' members alone give for the same files."""
    equal, real = [], run_faults

    def compare(finished, competition):
        sounds, weights, tables = finished.tree.sample.parent / COMPETITION.test_folder, [], []
        for name, group in Bundle.load(families).manifest.blend.groups.items():
            output = tmp_path / f"{finished.tree.root.parent.name}-{name}.csv"
            settings = PredictionSettings(output=output, sample_submission=finished.tree.sample)
            predict_to_csv(alone(families, name), [sounds], settings)
            tables.append(read_scores(output))
            weights.append(group.weight)
        blended = tmp_path / f"{finished.tree.root.parent.name}.csv"
        write_scores(blended, tables[0].row_ids, tables[0].labels, blend_ranks(align_tables(tables), weights))
        equal.append((finished.tree.working / "submission.csv").read_bytes() == blended.read_bytes())
        return real(finished, competition)

    monkeypatch.setattr(home, "run_faults", compare)
    settings = DryRunSettings(
        packed=packed,
        soundscapes=tuple(soundscapes),
        python=Path(sys.executable),
        layouts=tuple(Layout),
        runs=(Run.hidden,),
    )
    report = dry_run(settings)
    assert report.ok, [(run.faults, run.output) for run in report.runs]
    table.append(
        {
            "what": "packed blend by rank of three families, dry run in both layouts, against blend --how rank",
            "measured": f"{sum(equal)} of {len(equal)} tables equal, byte for byte",
            "bound": "all",
            "detail": f"{report.runs[0].n_files} files, one of them corrupt",
        }
    )
    assert equal == [True, True]


@pytest.mark.timeout(1800)
def test_random_kills_of_a_packed_blend_change_no_byte(packed, folder, table, tmp_path):  # noqa: F811
    options = ("--bundle", str(packed / "dataset"))
    rng, kills, rounds, lost, gained = random.Random(SEED), 0, 0, 0, []
    began = time.perf_counter()
    subprocess.run([*command(folder, tmp_path / "undisturbed.csv"), *options], capture_output=True, check=False)
    seconds = time.perf_counter() - began
    wanted = both(tmp_path / "undisturbed.csv")
    while kills < KILLS:
        rounds += 1
        out, is_finished = tmp_path / f"round_{rounds}.csv", False
        while not is_finished:
            before = done(out)
            is_finished, _ = kill_once(folder, out, rng, seconds, *options)
            if not is_finished:
                kills += 1
                lost += done(out) < before
                gained.append(done(out) - before)
        assert both(out) == wanted, f"round {rounds}"
    table.append(
        {
            "what": f"{kills} SIGKILLs of a packed blend by rank at random moments, continued with --resume",
            "measured": f"{lost} losses, {rounds} tables byte-identical",
            "bound": "no row lost",
            "detail": f"a run finished {min(gained)} to {max(gained)} files; undisturbed {seconds:.1f} s",
        }
    )
    assert not lost


@pytest.mark.timeout(1800)
def test_ranks_beside_the_mean(folder, table, tmp_path):  # noqa: F811
    """The smallest bundle, whose members cost least: each of its two members is a group."""
    seconds = {"mean": [], "rank:a.members=fold0,b.members=fold1": []}
    for _ in range(ROUNDS):
        for blend, found in seconds.items():
            words = [*command(folder, tmp_path / "s.csv"), "--force", "--blend", blend]
            words.remove("--resume")
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(words, capture_output=True, check=False)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    mean, rank = (min(found) for found in seconds.values())
    table.append(
        {
            "what": "predict with a blend by rank over one by mean, the demo bundle, 162 real files, in turns",
            "measured": f"{rank / mean:.3f}",
            "bound": f"at most {LARGEST_OVERHEAD:g}",
            "detail": f"{rank:.2f} and {mean:.2f} CPU seconds, the best of {ROUNDS}",
        }
    )
    assert rank / mean <= LARGEST_OVERHEAD


WRITE = """
import json, sys, time
from pathlib import Path
import numpy as np
from birdinfer.audio.status import Status
from birdinfer.config import WindowConfig
from birdinfer.inference.rank_blend import RankBlender
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.score_store import CHUNKS, Database, ScoreStore
from birdinfer.prediction.writer import SubmissionWriter
from birdinfer.cli.predict import peak_memory_mb

n_species, n_groups, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
labels = [f"s{index}" for index in range(n_species)]
database = Database(folder, folder / "run.sqlite")
with database.use() as connection:
    connection.execute(CHUNKS)
store, chance, results = ScoreStore(n_species * max(1, n_groups), database), np.random.default_rng(0), []
for index in range(600):
    path = Path(f"BC2026_Test_{index:04d}_S01_20250227_010002.ogg")
    store.add(path, chance.random((12, store.n_labels), np.float32) ** 4)
    results.append(SoundscapeResult(path, Status.ok, n_rows=12))
with database.use() as connection:
    connection.commit()
before = peak_memory_mb()
ranks = RankBlender(weights=np.ones((n_groups, n_species))) if n_groups else None
writer = SubmissionWriter(labels, [0.1] * n_species, WindowConfig(), ranks=ranks)
began = time.process_time()
writer.write(folder / "s.csv", store, results)
print(json.dumps([time.process_time() - began, before, peak_memory_mb()]))
"""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("n_species", "largest_mb"), [(234, 150), (11_560, 400)])
def test_a_table_of_ranks(table, tmp_path, n_species, largest_mb):
    """600 files of 12 rows and three groups: CPU seconds beside a table without ranks, more memory than before."""
    found = {}
    for n_groups in (0, 3):
        (tmp_path / str(n_groups)).mkdir()
        words = [sys.executable, "-c", WRITE, str(n_species), str(n_groups), str(tmp_path / str(n_groups))]
        found[n_groups] = json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout)
    (plain, *_), (seconds, before_mb, peak_mb) = found[0], found[3]
    table.append(
        {
            "what": f"a table of 7,200 rows of {n_species} species, ranks of three groups over none",
            "measured": f"{seconds / plain:.2f} times the CPU seconds, {peak_mb - before_mb:.0f} MB more memory",
            "bound": f"at most {largest_mb} MB",
            "detail": f"{seconds:.1f} s and {plain:.1f} s; the groups' scores are {7200 * 12 * n_species / 1e6:.0f} MB",
        }
    )
    assert peak_mb - before_mb <= largest_mb
