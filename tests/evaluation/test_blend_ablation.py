"""Parts of a blend by rank: what each gains, and what the command line prints of it."""

import json

import numpy as np
import pytest

from birdinfer.evaluation.ablation import Conclusion, labelled_rows
from birdinfer.evaluation.blend_ablation import RANKS, GroupScores, ablate_blend, blend_parts
from birdinfer.inference.rank_blend import RankGate, RankGroup
from birdinfer.species import Species
from birdinfer.submission.blend_tables import write_scores

LABELS = ("bird", "frog")
SPECIES = tuple(Species(label, class_name=name) for label, name in zip(LABELS, ("Aves", "Amphibia"), strict=True))
N_FILES, N_ROWS = 20, 12
ROW_IDS = [
    f"BC2026_Test_{file:04d}_S01_20250227_010002_{5 * (row + 1)}" for file in range(N_FILES) for row in range(N_ROWS)
]
GROUPS = {
    "near": RankGroup(("near",)),
    "far": RankGroup(("far",), taxon_weights={"Amphibia": 0.0}, gate=RankGate("near", 0.1)),
}


@pytest.fixture(scope="module")
def scores():
    """``near`` knows both species and has tiny scores; ``far`` has large ones, and knows of frogs the opposite."""
    chance = np.random.default_rng(1)
    truth = chance.random((N_FILES * N_ROWS, 2)) < 0.25
    near = 1e-3 * (0.3 * truth + 0.7 * chance.random(truth.shape))
    far = 0.3 * np.column_stack([truth[:, 0], ~truth[:, 1]]) + 0.7 * chance.random(truth.shape)
    return truth, {"near": near, "far": far}


def test_a_part_is_taken_if_the_blend_is_worse_without_it(scores):
    truth, of_groups = scores
    subject = GroupScores(
        groups=GROUPS, scores=np.stack(list(of_groups.values())), species=SPECIES,
        known=dict.fromkeys(GROUPS, frozenset(LABELS)), rows=np.arange(len(truth)), columns=np.arange(2),
        labelled=labelled_rows(truth, [row_id.rpartition("_")[0] for row_id in ROW_IDS]),
    )  # fmt: skip
    trials = {trial.name: trial for trial in ablate_blend(subject, 400).trials}
    assert list(trials) == [RANKS, "far: gate by near from 0.1", "far: Amphibia 0", "group near", "group far"]
    assert trials[RANKS].conclusion is Conclusion.take
    assert trials["far: Amphibia 0"].conclusion is Conclusion.take
    assert trials["group near"].conclusion is Conclusion.take
    assert trials["far: Amphibia 0"].interval[0] > 0
    assert trials["far: Amphibia 0"].how == "last"


def test_parts_of_a_group():
    group = RankGroup(("a",), species_weights={"bird": 2.0}, species=("bird", "frog"))
    parts = blend_parts({"one": group, "two": RankGroup(("b",), weight=0.0)})
    assert list(parts) == ["one: weights of 1 species", "one: for 2 species alone"]
    assert parts["one: weights of 1 species"]["one"].species_weights == {}


class TestCommand:
    @pytest.fixture
    def place(self, tmp_path, scores):
        truth, of_groups = scores
        for name, values in of_groups.items():
            write_scores(tmp_path / "groups" / f"{name}.csv", ROW_IDS, LABELS, values)
        write_scores(tmp_path / "truth.csv", ROW_IDS, LABELS, truth.astype(float))
        (tmp_path / "taxonomy.csv").write_text("primary_label,class_name\nbird,Aves\nfrog,Amphibia\n")
        return tmp_path

    def test_a_blend_before_it_is_stored(self, place, birdinfer):
        words = (place / "groups", place / "truth.csv", "--ablate", "--taxonomy", place / "taxonomy.csv", "--blend")
        code, out, _ = birdinfer("score", *words, "rank:far.taxon_weights.Amphibia=0", "--resamples", 400)
        assert code == 0
        assert "for the mean of the groups: 240 rows of 20 files, 2 classes scored" in out
        assert f"take: {RANKS}; far: Amphibia 0" in out
        code, out, _ = birdinfer("score", *words, "rank:far.taxon_weights.Amphibia=0", "--json")
        assert [trial["name"] for trial in json.loads(out)["trials"]] == [
            RANKS, "far: Amphibia 0", "group far", "group near",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (["--blend", "mean"], "--blend: is not by rank, and a folder of tables is of its groups"),
            (["--blend", "rank:fur.weight=2"], "fur.csv: no such table of a group"),
            (["--blend", "rank:far.taxon_weights.Avis=2"], "class 'Avis', which is none of the bundle"),
            (["--blend", "rank", "--post", "file_max"], "--post: runs before scores are ranked"),
            ([], "--ablate: needs the blend of the groups' tables"),
        ],
    )
    def test_what_does_not_fit_is_one_line(self, place, birdinfer, options, problem):
        words = (place / "groups", place / "truth.csv", "--ablate", "--taxonomy", place / "taxonomy.csv")
        code, out, err = birdinfer("score", *words, *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert problem in err

    def test_a_table_alone_has_no_parts(self, place, birdinfer):
        code, _, err = birdinfer(
            "score", place / "groups" / "far.csv", place / "truth.csv", "--ablate", "--blend", "rank"
        )
        assert code == 2
        assert "--blend: needs the folder of the groups' tables as submission" in err
