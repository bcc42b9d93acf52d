"""A run of a bundle that blends by rank: its table is the blend of its groups' tables, whatever happens to the run."""

import random
import struct
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
from make_bundles import LABELS, SAMPLE_RATE, tone, write_sound
from three_families import GROUPS, alone, write_three_families

from birdinfer import Bundle, Predictor
from birdinfer.errors import OutputError
from birdinfer.inference.blend_text import parse_blend
from birdinfer.inference.bundle import save_manifest
from birdinfer.inference.rank_blend import RankBlender
from birdinfer.inference.results import Scheduler
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.steps import parse_steps
from birdinfer.prediction import ranks
from birdinfer.prediction.fallback_levels import fallback_levels
from birdinfer.prediction.ranks import ranked_rows, ranking_seconds
from birdinfer.prediction.run import PredictionSettings, predict_to_csv
from birdinfer.prediction.store import count_done
from birdinfer.submission.blend_tables import align_tables, blend_ranks, write_scores
from birdinfer.tables.scores import read_scores
from birdinfer.tables.step_tables import Occasion, PriorTable, write_priors

LOUD = "rank:linear.weight=2,perch.weight=0.5"


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    return write_three_families(tmp_path_factory.mktemp("families") / "bundle", LOUD)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Six files of other lengths and pitches, and one that is no sound."""
    folder = tmp_path_factory.mktemp("sounds")
    for index in range(6):
        samples = tone(10.0 + 3 * index, hz=700.0 * (index + 1), seed=index) * (0.2 + 0.15 * index)
        write_sound(folder / f"BC2026_Test_{index:04d}_S0{index % 3}_2025022{index}_010002.wav", samples, SAMPLE_RATE)
    (folder / "BC2026_Test_0009_S01_20250227_010002.wav").write_text("not sound")
    return folder


def sample_of(sounds, path, columns=LABELS):
    """Rows of all files, also of that which is no sound, in an order of their own."""
    rows = [f"{file.stem}_{end}" for end in (10, 5) for file in sorted(sounds.iterdir())]
    path.write_text("\n".join([f"row_id,{','.join(columns)}", *(f"{row}{',0.5' * len(columns)}" for row in rows)]))
    return path


def predict(bundle, sounds, output, **settings):
    return predict_to_csv(bundle, [sounds], PredictionSettings(output=output, **settings))


def blend_of_tables(bundle, paths, output):
    tables = [read_scores(path) for path in paths]
    weights = [group.weight for group in bundle.manifest.blend.groups.values()]
    write_scores(output, tables[0].row_ids, tables[0].labels, blend_ranks(align_tables(tables), weights))
    return output.read_bytes()


@pytest.mark.parametrize("has_sample", [False, True])
@pytest.mark.parametrize("known", [LABELS, LABELS[:2]])
def test_the_table_is_the_blend_of_the_groups_own_tables(tmp_path, sounds, has_sample, known):
    """With smoothing; with rows and species that the bundle, or a group, has no scores for."""
    folder = write_three_families(tmp_path / "bundle", LOUD, known)
    options = {}
    if has_sample:
        sample = sample_of(sounds, tmp_path / "sample.csv", (*LABELS[::-1], "unknown"))
        options = {"sample_submission": sample, "missing_species": 0.125}
    bundle = Bundle.load(folder)
    predict(bundle, sounds, tmp_path / "all.csv", group_tables=tmp_path / "groups", **options)
    for group in GROUPS:
        predict(alone(folder, group), sounds, tmp_path / f"{group}.csv", **options)
        assert (tmp_path / "groups" / f"{group}.csv").read_bytes() == (tmp_path / f"{group}.csv").read_bytes()
    in_order = [tmp_path / f"{group}.csv" for group in bundle.manifest.blend.groups]
    assert (tmp_path / "all.csv").read_bytes() == blend_of_tables(bundle, in_order, tmp_path / "blended.csv")


def test_gates_masks_and_weights_of_classes_count(tmp_path, sounds, families):
    text = f"{LOUD},sed.gate.by=linear,sed.gate.share=0.5,perch.taxon_weights.Insecta=0,sed.species=comcuc"
    bundle = Bundle.load(families)
    bundle = bundle.with_scoring(parse_blend(text), bundle.manifest.post)
    predict(bundle, sounds, tmp_path / "all.csv", group_tables=tmp_path / "groups")
    table = read_scores(tmp_path / "all.csv")
    groups = [tmp_path / "groups" / f"{group}.csv" for group in ("linear", "perch", "sed")]
    linear, perch, sed = (read_scores(path).values for path in groups)
    gated = RankBlender(weights=np.array([[2.0], [0.5], [1.0]]), gates={2: (0, 0.5)})
    first = gated(np.stack([linear, perch, sed])[:, :, :1])
    others = blend_ranks([linear[:, 1:3], perch[:, 1:3]], [2, 0.5]), blend_ranks([linear[:, 3:]], [1])
    expected = np.column_stack([first, *others])
    np.testing.assert_allclose(table.values, expected, rtol=1e-6)


@pytest.mark.parametrize("moment", range(2))
def test_a_killed_run_ends_with_the_same_bytes(tmp_path, sounds, families, moment):
    out, chance = tmp_path / "s.csv", random.Random(moment)
    predict(Bundle.load(families), sounds, tmp_path / "undisturbed.csv")
    slow = (
        "import sys, time\nfrom birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine as E\nreal = E.run\n"
        "def run(self, batch):\n    time.sleep(0.02)\n    return real(self, batch)\nE.run = run\n"
        "from birdinfer.cli.app import main\nmain(sys.argv[1:])"
    )
    arguments = ["predict", str(sounds), "--bundle", str(families), "-o", str(out), "--resume", "-q", "-j", "2"]
    run = subprocess.Popen([sys.executable, "-c", slow, *arguments], stderr=subprocess.PIPE)
    while count_done(tmp_path / "s.csv.progress") < 1 + moment and run.poll() is None:
        time.sleep(0.005)
    time.sleep(chance.random() * 0.05)
    run.kill()
    run.communicate()
    assert not out.exists()
    predict(Bundle.load(families), sounds, out, resume=True)
    assert out.read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()


def test_blocks_in_a_file_change_no_number(tmp_path, monkeypatch):
    chance = np.random.default_rng(3)
    blender = RankBlender(weights=chance.random((3, 11)), gates={0: (1, 0.3)})
    rows = chance.random((29, 33), np.float32).round(1)
    whole = np.stack(list(ranked_rows(iter(rows), 29, blender, tmp_path)))
    for name, size in (("_BLOCK_SCORES", 200), ("_CHUNK_SCORES", 70), ("_IN_MEMORY_BYTES", 1)):
        monkeypatch.setattr(ranks, name, size)
    assert np.array_equal(np.stack(list(ranked_rows(iter(rows), 29, blender, tmp_path))), whole)
    assert not list(tmp_path.iterdir())
    assert list(ranked_rows(iter([]), 0, blender, tmp_path)) == []
    with pytest.raises(OutputError):
        list(ranked_rows(iter(rows), 29, blender, tmp_path / "absent"))
    assert ranking_seconds(50, blender) > 0


class TestShortOfTime:
    def test_groups_are_given_up_and_keep_their_columns(self, families):
        bundle = Bundle.load(families)
        members = tuple(
            msgspec.structs.replace(member, out_of_fold_macro_auc=auc)
            for member, auc in zip(bundle.manifest.members, (0.9, 0.8, 0.7, 0.6), strict=True)
        )
        levels = fallback_levels(Bundle(families, msgspec.structs.replace(bundle.manifest, members=members)))
        assert [level.name for level in levels[-3:]] == [
            "without perch", "without perch and sed", "without perch, sed and fold1",
        ]  # fmt: skip
        assert all(level.bundle.manifest.blend.n_columns(4) == 12 for level in levels)

    def test_rows_without_a_group_have_the_ranks_of_the_others(self, tmp_path, families, sounds, monkeypatch):
        """Every second file has no time for the groups that are given up first."""

        class Alternating(Scheduler):
            def predictor_for(self, path):
                levels = fallback_levels(Bundle.load(families))
                self._cheap = getattr(self, "_cheap", None) or Predictor(levels[-1].bundle)
                return self._cheap if int(path.stem.split("_")[2]) % 2 else self._default

        monkeypatch.setattr("birdinfer.prediction.run_tables.Scheduler", Alternating)
        predict(Bundle.load(families), sounds, tmp_path / "all.csv", group_tables=tmp_path / "groups")
        table = read_scores(tmp_path / "all.csv")
        assert ((table.values >= 0) & (table.values < 1)).all()
        tables = [read_scores(tmp_path / "groups" / f"{group}.csv").values for group in ("linear", "perch", "sed")]
        lacks = np.array([int(row.split("_")[2]) % 2 for row in table.row_ids]) == 1
        given_up = [bool((each[lacks] == np.array([0.1, 0.2, 0.3, 0.4])).all()) for each in tables]
        assert sorted(given_up) == [False, True, True]
        scores = np.stack(tables)
        scores[np.ix_(given_up, lacks)] = np.nan
        expected = RankBlender(weights=np.repeat([[2.0], [0.5], [1.0]], 4, axis=1))(scores)
        np.testing.assert_allclose(table.values, expected, rtol=1e-6)


def test_a_prior_by_time_reads_the_clock_from_the_file_where_its_name_has_none(tmp_path, bundle):
    body = b"GUANO|Version:1.0\nTimestamp:2025-02-27T02:00:02\n"
    chunk = struct.pack("<4sI", b"guan", len(body)) + body
    for name, tail in (("20250227_020002", b""), ("plain", b""), ("stamped", chunk)):
        write_sound(tmp_path / f"{name}.wav", tone(5.0), SAMPLE_RATE)
        raw = (tmp_path / f"{name}.wav").read_bytes() + tail
        (tmp_path / f"{name}.wav").write_bytes(raw[:4] + struct.pack("<I", len(raw) - 8) + raw[8:])
    counts = PriorTable(
        labels=LABELS, occasions=(Occasion(None, 2, 2), Occasion(None, 9, 9)), windows=np.array([50, 50]),
        present=np.array([[40, 30, 20, 10], [0, 1, 2, 3]]),
    )  # fmt: skip
    write_priors(tmp_path / "prior.csv", counts)
    steps = parse_steps([f"prior_shift:table={tmp_path / 'prior.csv'},month_strength=1"])
    loaded = Bundle.load(bundle)
    loaded = loaded.with_scoring(loaded.manifest.blend, PostConfig((1.0,), steps))
    predict(loaded, tmp_path, tmp_path / "out" / "s.csv")
    table = read_scores(tmp_path / "out" / "s.csv")
    values = dict(zip((row.rpartition("_")[0] for row in table.row_ids), table.values.tolist(), strict=True))
    assert values["stamped"] == values["20250227_020002"]
    assert values["stamped"] != values["plain"]


def test_a_manifest_whose_member_is_in_no_group_is_refused(tmp_path, birdinfer, sounds):
    folder = write_three_families(tmp_path / "bundle")
    manifest = Bundle.load(folder).manifest
    groups = {name: group for name, group in manifest.blend.groups.items() if name != "sed"}
    blend = msgspec.structs.replace(manifest.blend, groups=groups)
    save_manifest(folder, msgspec.structs.replace(manifest, blend=blend))
    code, _, err = birdinfer("predict", sounds, "--bundle", folder, "-o", tmp_path / "s.csv")
    assert code == 2
    assert "a member stands in no group" in err
