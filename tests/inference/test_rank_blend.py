"""Ranks of groups: values by hand, properties, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from three_families import GROUPS, write_three_families

import birdinfer
from birdinfer import Bundle
from birdinfer.errors import ConfigError
from birdinfer.inference.blend_text import describe_blend, parse_blend
from birdinfer.inference.members import remove_member
from birdinfer.inference.rank_blend import RankBlender, rank_per_class
from birdinfer.submission.blend_tables import blend_ranks
from birdinfer.submission.formats import as_written, number_cells

scores_of_groups = st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 3)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.integers(0, 6).map(lambda n: n / 8))
)
"""[groups, rows, species], with ties."""


def blender(*weights, gates=None, n_species=1):
    return RankBlender(weights=np.tile(np.array(weights, float)[:, None], n_species), gates=gates or {})


def blended(scores, weights=None):
    return blender(*(weights or [1.0] * len(scores)), n_species=scores.shape[2])(scores)


def column(*rows):
    return np.array(rows, np.float64).T[:, :, None]


class TestByHand:
    def test_a_mean_of_ranks_with_weights(self):
        """First: 2/3, 0, 1/3; second, of which two tie: 1/6, 2/3, 1/6."""
        scores = column((9.0, 0.1), (-1.0, 0.2), (2.0, 0.1))
        np.testing.assert_allclose(blender(3, 1)(scores).ravel(), [(2 + 1 / 6) / 4, 1 / 6, (1 + 1 / 6) / 4])

    def test_a_group_counts_where_it_has_scores(self):
        scores = column((0.9, math.nan), (0.1, 0.5), (0.5, 0.4), (0.2, math.nan))
        # Ranks of the first: 3/4, 0, 1/2, 1/4; of the second among its own two: 1/2 and 0.
        np.testing.assert_allclose(blender(1, 1)(scores).ravel(), [3 / 4, 1 / 4, 1 / 4, 1 / 4])

    def test_a_group_that_scores_all_rows_alike_says_nothing(self):
        scores = column((0.9, 0.3), (0.1, 0.3))
        assert blender(1, 5)(scores).ravel().tolist() == [0.5, 0]

    def test_where_no_group_says_anything_a_row_is_in_the_middle(self):
        assert blender(1, 1)(column((0.2, 0.3), (0.2, 0.3))).ravel().tolist() == [0.25, 0.25]
        assert blender(0, 1)(column((0.2, math.nan), (0.3, math.nan))).ravel().tolist() == [0.25, 0.25]

    def test_a_closed_gate_makes_a_rank_the_lowest(self):
        scores = column((0.9, 0.4), (0.1, 0.8), (0.5, 0.6), (0.2, 0.1))
        # The second counts where the first ranks from 1/2 on: ranks 3/4, 0, 1/2, 1/4 and 1/4, 3/4, 1/2, 0.
        found = blender(1, 1, gates={1: (0, 0.5)})(scores)
        np.testing.assert_allclose(found.ravel(), [(3 / 4 + 1 / 4) / 2, 0, 1 / 2, 1 / 8])

    def test_a_gate_passes_what_it_does_not_know(self):
        scores = column((0.3, 0.4), (0.3, 0.8))
        assert np.array_equal(blender(1, 1, gates={1: (0, 0.9)})(scores), blender(1, 1)(scores))


class TestProperties:
    @given(scores_of_groups)
    def test_a_monotone_function_of_a_groups_scores_changes_nothing(self, scores):
        changed = np.stack([each if at else np.cbrt(each) * 1e-3 for at, each in enumerate(scores)])
        assert np.array_equal(blended(changed), blended(scores))

    @given(scores_of_groups, st.randoms(use_true_random=False))
    def test_the_order_of_rows_changes_nothing(self, scores, chance):
        order = list(range(scores.shape[1]))
        chance.shuffle(order)
        assert np.array_equal(blended(scores[:, order]), blended(scores)[order])

    @given(scores_of_groups.filter(lambda scores: len(scores) == 1))
    def test_one_group_is_its_own_ranks(self, scores):
        np.testing.assert_allclose(blended(scores), rank_per_class(scores[0]), rtol=1e-12)

    @given(scores_of_groups, st.integers(0, 99))
    def test_it_is_the_blend_of_tables(self, scores, seed):
        weights = np.random.default_rng(seed).uniform(0.1, 3, len(scores)).tolist()
        assert np.array_equal(blended(scores, weights), blend_ranks(list(scores), weights))

    @given(scores_of_groups, st.floats(0, 0.99))
    def test_a_gated_blend_is_monotone_and_below_1(self, scores, share):
        gated = RankBlender(weights=np.ones((len(scores), scores.shape[2])), gates={0: (len(scores) - 1, share)})
        found = gated(scores)
        assert (found <= blended(scores) + 1e-12).all()
        assert (found >= 0).all()
        assert (found < 1).all()


@given(hnp.arrays(np.float32, 20, elements=st.floats(0, 1, width=32)))
def test_scores_as_written_are_those_of_a_table(values):
    assert as_written(values).tolist() == [float(cell) for cell in number_cells(values)]


@pytest.mark.parametrize("value", [0.5**11, 0.5**20, 0.1, 0.099999994, 1e-30, 1e-45, 1.0, 0.99999994, 0.0, 12345678.0])
def test_scores_near_a_half_and_a_power_of_ten_too(value):
    value = np.float32(value)
    assert as_written(np.array([value])).tolist() == [float(f"{float(value):.7g}")]


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    return write_three_families(tmp_path_factory.mktemp("families") / "bundle")


class TestBundle:
    def test_groups_are_the_families_of_the_members(self, families):
        groups = Bundle.load(families).manifest.blend.groups
        assert {name: group.members for name, group in groups.items()} == {
            "linear": ("fold0", "fold1"), "sed": ("sed",), "perch": ("perch",),
        }  # fmt: skip

    def test_it_is_described(self, families):
        bundle = Bundle.load(families)
        text = "rank:perch.weight=2,perch.taxon_weights.Amphibia=0,sed.gate.by=linear,sed.gate.share=0.5"
        blend = bundle.with_scoring(parse_blend(text + ",sed.species=comcuc/0012"), bundle.manifest.post).manifest.blend
        lines = dict(describe_blend(blend))
        assert lines["  perch"] == "perch; weight 2; Amphibia 0"
        assert lines["  sed"] == "sed; weight 1; for 2 species alone; where linear ranks from 0.5 on"
        assert lines["  linear"] == "fold0, fold1; weight 1"

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("rank:linear.wieght=2", "group 'linear' has no key 'wieght' - did you mean weight?"),
            ("rank:weight=2", "'weight' names no group and key"),
            ("rank:perch.gate.bye=sed", "group 'perch.gate' has no key 'bye' - did you mean by?"),
            ("rank:liner.weight=2", "group 'liner' has no members - did you mean linear?"),
            ("rank:a.members=fold0/fold9", "group 'a' holds 'fold9', which is no member - did you mean fold1?"),
            ("rank:a.members=fold0,b.members=fold0", "member 'fold0' stands in groups twice"),
            ("rank:perch.gate.by=sad,perch.gate.share=0.5", "is by 'sad', which is no other group - did you mean sed?"),
            ("rank:perch.gate.by=perch,perch.gate.share=0.5", "which is no other group"),
            ("rank:perch.taxon_weights.Avis=0.5", "class 'Avis', which is none of the bundle - did you mean Aves?"),
            ("rank:perch.species=comcuk", "species 'comcuk', which is none of the bundle - did you mean comcuc?"),
            ("rank:linear.weight=0,sed.weight=0,perch.weight=0", "no group weighs anything"),
            ("rank:perch.weight=much", "Expected `float`, got `str`"),
            ("rank:perch.weight", "'perch.weight' is not KEY=VALUE"),
            ("mean:groups=2", "Expected `object`, got `str`"),
        ],
    )
    def test_what_does_not_fit_is_refused_in_a_line(self, families, text, problem):
        bundle = Bundle.load(families)
        with pytest.raises(ConfigError) as caught:
            bundle.with_scoring(parse_blend(text), bundle.manifest.post)
        assert problem in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_file_and_tables_say_the_same(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "frogs.csv").write_text("label\n1161364\n")
        (tmp_path / "weights.csv").write_text("label,weight\ncomcuc,0.5\n")
        (tmp_path / "blend.toml").write_text(
            'how = "rank"\n[groups.sed]\nspecies = "frogs.csv"\n[groups.perch]\nspecies_weights = "weights.csv"\n'
            '[groups.perch.gate]\nby = "sed"\nshare = 0.25\n'
        )
        text = "rank:sed.species=1161364,perch.species_weights.comcuc=0.5,perch.gate.by=sed,perch.gate.share=0.25"
        assert parse_blend("blend.toml") == parse_blend(text)
        in_tables = text.replace("=1161364", "=frogs.csv").replace(".comcuc=0.5", "=weights.csv")
        assert parse_blend(in_tables) == parse_blend(text)

    def test_a_member_that_is_removed_leaves_its_group(self, tmp_path):
        folder = write_three_families(tmp_path / "bundle")
        assert tuple(remove_member(folder, "sed").manifest.blend.groups) == ("linear", "perch")

    def test_one_recording_has_no_rank(self, families, birdinfer_of_one):
        with pytest.raises(ConfigError, match='load it with blend="mean"'):
            birdinfer.load(families)
        assert birdinfer.load(families, blend="mean").bundle.manifest.blend.how == "mean"
        code, _, err = birdinfer_of_one
        assert code == 2
        assert "a confidence needs --blend mean" in err

    @pytest.fixture
    def birdinfer_of_one(self, birdinfer, families, soundscapes, tmp_path):
        return birdinfer("detect", soundscapes, "--bundle", families, "-o", tmp_path / "found")

    def test_show_and_set(self, families, birdinfer, tmp_path):
        bundle = Bundle.load(families)
        folder = write_three_families(tmp_path / "bundle", "mean")
        code, out, _ = birdinfer("bundle", "set", folder, "--blend", "rank:perch.weight=3")
        assert code == 0
        assert "perch; weight 3" in out
        assert tuple(Bundle.load(folder).manifest.blend.groups) == ("perch", "linear", "sed")
        assert set(bundle.manifest.blend.groups) == set(GROUPS)
        birdinfer("bundle", "set", folder, "--blend", "rank:all.members=fold0/fold1/sed")
        code, out, _ = birdinfer("bundle", "set", folder, "--blend", "rank:all.weight=2")
        assert (code, "fold0, fold1, sed; weight 2" in out) == (0, True)
