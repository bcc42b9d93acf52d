"""Every blend: values computed by hand, and properties that hold."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer import Bundle, Predictor
from birdinfer.errors import BundleError, ConfigError
from birdinfer.inference.bundle import save_manifest
from birdinfer.inference.ensemble import EPSILON, Blend, check_blend, make_blend
from birdinfer.inference.manifest import Manifest

MEANS = ("mean", "geometric", "rms", "minimum", "maximum", "median")
GATE = Blend("gate", by="m0", threshold=0.5)
BLENDS = [*map(Blend, MEANS), GATE]
TOLERANCE = 2e-6
"""Float32 carries 1.2e-7, and a logarithm of 3e-8 another 1e-6."""

probability = st.floats(0, 1, width=32)
member_scores = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=probability)
)
"""[members, rows, species]"""
several_members = member_scores.filter(lambda said: len(said) > 1)


def weights_for(said, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 5, len(said)).tolist()


def blended(blend, said, weights=None, columns=None, fallback=None):
    n_species = said[0].shape[1] if fallback is None else len(fallback)
    names = [f"m{index}" for index in range(len(said))]
    blender = make_blend(
        blend, names, weights or [1.0] * len(said), columns or [None] * len(said), fallback or [0.0] * n_species
    )
    return blender(list(said))


def column(*values):
    """One probability of a single species for each member."""
    return [np.float32([[value]]) for value in values]


class TestByHand:
    @pytest.mark.parametrize(
        ("blend", "said", "weights", "expected"),
        [
            (Blend("mean"), (0.2, 0.6), (3, 1), (3 * 0.2 + 0.6) / 4),
            (Blend("geometric"), (0.04, 0.25), (1, 1), 0.1),
            (Blend("geometric"), (0.1, 0.8), (2, 1), 0.2),
            (Blend("rms"), (0.1, 0.7), (1, 1), 0.5),
            (Blend("rms"), (0.2, 0.4), (3, 1), 7**0.5 / 10),
            (Blend("minimum"), (0.7, 0.2, 0.5), (1, 9, 1), 0.2),
            (Blend("maximum"), (0.7, 0.2, 0.5), (1, 9, 1), 0.7),
            (Blend("median"), (0.7, 0.2, 0.5), (1, 9, 1), 0.5),
            (Blend("median"), (0.9, 0.1, 0.4, 0.2), (1, 1, 1, 1), 0.3),
            (GATE, (0.5, 0.2, 0.6), (1, 3, 1), 0.3),
            (GATE, (0.9, 0.2, 0.6), (1, 3, 1), 0.3),
            (GATE, (0.125, 0.2, 0.6), (1, 3, 1), 0.3 / 4),
            (GATE, (0.0, 1.0), (1, 1), 0.0),
        ],
    )
    def test_each_way(self, blend, said, weights, expected):
        np.testing.assert_allclose(blended(blend, column(*said), weights), [[expected]], rtol=TOLERANCE)

    def test_a_zero_pulls_the_geometric_mean_down_as_far_as_surety_can_lift(self):
        found = blended(Blend("geometric"), column(0.0, 0.5))
        np.testing.assert_allclose(found, [[(2.0**-25 * 0.5) ** 0.5]], rtol=1e-3)
        below_one = np.nextafter(np.float32(1), np.float32(0))
        assert np.float32(1) - below_one == 2 * EPSILON

    @pytest.mark.parametrize("how", MEANS)
    def test_members_that_know_some_species(self, how):
        """Species 0: both know it; 1: the first alone; 2: the second alone; 3: none, so the fallback."""
        of_both = {
            "mean": 7.2 / 8,
            "geometric": 0.2**0.125,
            "rms": 0.88**0.5,
            "minimum": 0.2,
            "maximum": 1,
            "median": 0.6,
        }
        said = [np.float32([[0.2, 0.4]]), np.float32([[0.6, 1.0]])]
        found = blended(Blend(how), said, [1.0, 7.0], [np.array([0, 1]), np.array([2, 0])], [0.9, 0.9, 0.9, 0.25])
        np.testing.assert_allclose(found, [[of_both[how], 0.4, 0.6, 0.25]], rtol=TOLERANCE)

    @pytest.mark.parametrize("how", MEANS)
    def test_a_member_of_weight_nothing_does_not_speak(self, how):
        said = [np.float32([[0.7, 0.7]]), np.float32([[0.3]])]
        found = blended(Blend(how), said, [0.0, 2.0], [None, np.array([0])], [0.1, 0.1])
        np.testing.assert_allclose(found, [[0.3, 0.1]], rtol=TOLERANCE)

    def test_a_gate_lets_pass_what_it_does_not_know_and_speaks_where_it_is_alone(self):
        """Species 0: gate and other; 1: the other alone; 2: the gate alone; 3: none."""
        said = [np.float32([[0.3, 0.25]]), np.float32([[0.8, 0.6]])]
        found = blended(GATE, said, [0.0, 1.0], [np.array([2, 0]), np.array([0, 1])], [0.9, 0.9, 0.9, 0.2])
        np.testing.assert_allclose(found, [[0.8 * 0.25 / 0.5, 0.6, 0.3, 0.2]], rtol=TOLERANCE)


class TestProperties:
    @given(member_scores, st.sampled_from(MEANS), st.integers(0, 9))
    def test_lies_between_the_least_and_the_greatest(self, said, how, seed):
        found = blended(Blend(how), said, weights_for(said, seed))
        assert (found <= said.max(axis=0) * (1 + TOLERANCE) + 1e-12).all()
        assert (found >= said.min(axis=0) * (1 - TOLERANCE) - 1e-12).all()

    @given(several_members, st.integers(0, 9), st.floats(0, 1))
    def test_a_gate_never_opens_further_than_the_others_and_stays_a_probability(self, said, seed, threshold):
        weights = weights_for(said, seed)
        found = blended(Blend("gate", "m0", threshold), said, weights)
        assert (found <= blended(Blend(), said[1:], weights[1:])).all()
        assert (found >= 0).all()

    @pytest.mark.parametrize("how", MEANS)
    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_many_that_are_sure_stay_within_0_and_1(self, how, value):
        for n_members in range(1, 30):
            found = blended(Blend(how), column(*[value] * n_members), weights_for(range(n_members)))
            assert 0 <= found <= 1
            np.testing.assert_allclose(found, value, atol=1e-6)

    @given(several_members, st.sampled_from(BLENDS), st.randoms(use_true_random=False))
    def test_the_order_of_members_does_not_matter(self, said, blend, chance):
        weights, order = weights_for(said), list(range(len(said)))
        chance.shuffle(order)
        names, knows = [f"m{index}" for index in order], [None] * len(order)
        other = make_blend(blend, names, [weights[index] for index in order], knows, [0.0] * said.shape[2])
        np.testing.assert_allclose(
            other([said[index] for index in order]), blended(blend, said, weights), rtol=TOLERANCE, atol=1e-12
        )

    @given(member_scores, st.sampled_from(MEANS))
    def test_equal_members_blend_to_their_scores(self, said, how):
        alike = [said[0]] * len(said)
        np.testing.assert_allclose(blended(Blend(how), alike, weights_for(said)), said[0], rtol=TOLERANCE, atol=1e-12)

    @given(member_scores, st.sampled_from(("mean", "minimum", "maximum", "median")))
    def test_one_member_alone_is_itself_to_the_bit(self, said, how):
        assert np.array_equal(blended(Blend(how), said[:1], [0.7]), said[0])

    @given(several_members, st.sampled_from(BLENDS), st.data())
    def test_no_member_that_says_more_makes_it_less(self, said, blend, data):
        member = data.draw(st.integers(0, len(said) - 1))
        more = said.copy()
        more[member] = np.maximum(said[member], data.draw(hnp.arrays(np.float32, said[0].shape, elements=probability)))
        weights = weights_for(said)
        found, raised = blended(blend, said, weights), blended(blend, more, weights)
        assert (raised >= found * (1 - TOLERANCE) - 1e-12).all()

    @given(several_members, st.sampled_from(BLENDS), st.floats(1e-3, 1e3))
    def test_only_the_ratio_of_weights_counts(self, said, blend, scale):
        weights = weights_for(said)
        np.testing.assert_allclose(
            blended(blend, said, [weight * scale for weight in weights]),
            blended(blend, said, weights),
            rtol=TOLERANCE,
            atol=1e-12,
        )

    @given(several_members)
    def test_the_means_stand_in_their_order(self, said):
        weights = weights_for(said)
        means = [blended(Blend(how), said, weights) for how in ("minimum", "geometric", "mean", "rms", "maximum")]
        for lesser, greater in pairwise(means):
            assert (lesser <= greater * (1 + TOLERANCE) + 1e-12).all()

    @given(several_members)
    def test_a_gate_of_threshold_0_stands_open(self, said):
        weights = weights_for(said)
        found = blended(Blend("gate", "m0", 0.0), said, weights)
        assert np.array_equal(found, blended(Blend(), said[1:], weights[1:]))

    @pytest.mark.parametrize("blend", BLENDS, ids=lambda blend: blend.how)
    @pytest.mark.parametrize("some_know", [False, True])
    def test_cutting_the_rows_changes_no_bit(self, blend, some_know):
        chance = np.random.default_rng(3)
        columns = [np.array([3, 0, 6]), None, np.array([1, 2, 3, 6])] if some_know else [None] * 3
        said = [chance.random((41, 7 if knows is None else len(knows)), np.float32) ** 8 for knows in columns]
        whole = blended(blend, said, [1.0, 2.0, 0.5], columns, [0.1] * 7)
        for size in (1, 2, 3, 5, 16, 40):
            pieces = [
                blended(blend, [rows[begin : begin + size] for rows in said], [1.0, 2.0, 0.5], columns, [0.1] * 7)
                for begin in range(0, 41, size)
            ]
            assert np.array_equal(np.concatenate(pieces), whole)

    @given(several_members, st.sampled_from(BLENDS))
    def test_what_is_given_is_left_as_it_is(self, said, blend):
        before = said.copy()
        found = blended(blend, said)
        found[:] = 9
        assert np.array_equal(said, before)

    @pytest.mark.parametrize("blend", BLENDS, ids=lambda blend: blend.how)
    def test_no_rows_give_no_rows(self, blend):
        found = blended(blend, [np.zeros((0, 3), np.float32)] * 2)
        assert found.shape == (0, 3)
        assert found.dtype == np.float32


class TestRefusals:
    @pytest.mark.parametrize(
        "weights", [[1.0], [0.0, 0.0], [float("nan"), 1.0], [-1.0, 2.0], [float("inf"), 1.0], [1e308, 1e308]]
    )
    def test_weights_without_sense(self, weights):
        with pytest.raises(ConfigError, match="weights: are"):
            make_blend(Blend(), ["a", "b"], weights, [None, None], [0.0])

    @pytest.mark.parametrize(
        ("blend", "weights", "problem"),
        [
            (Blend("gate", "absent", 0.5), [1, 1], "the gate is by 'absent', which is no member - choose of m0, m1"),
            (GATE, [1, 0], "no member is behind the gate by 'm0' - give another member a weight"),
        ],
    )
    def test_a_gate_that_cannot_be(self, blend, weights, problem):
        with pytest.raises(ConfigError, match=problem):
            check_blend(blend, ["m0", "m1"], weights)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ('{"groups": {"a": {}}}', "groups are those of ranks, but how is 'mean'"),
            ('{"how": "rank", "groups": {"a": {"weight": -1}}}', "a group has weight -1.0"),
            ('{"how": "rank", "groups": {"a": {"wieght": 1}}}', "unknown field `wieght`"),
            ('{"how": "rank", "groups": {"a": {"gate": {"by": "b", "share": 1}}}}', "share is 1.0, allowed are 0 to"),
            ('{"how": "voting"}', "Invalid enum value 'voting'"),
            ('{"how": "gate"}', "needs by"),
            ('{"how": "gate", "by": "m0"}', "needs by"),
            ('{"how": "gate", "by": "m0", "threshold": 1.5}', "threshold is 1.5, allowed are 0 to 1"),
            ('{"how": "mean", "by": "m0"}', "but how is 'mean'"),
            ('{"threshold": 0.5}', "but how is 'mean'"),
            ('{"power": 2}', "unknown field `power`"),
        ],
    )
    def test_a_manifest_with_wrong_values(self, text, problem):
        with pytest.raises(msgspec.ValidationError, match=problem):
            msgspec.json.decode(text, type=Blend)


@pytest.mark.parametrize(
    ("blend", "names", "left"),
    [
        (GATE, {"m0", "m2"}, GATE),
        (GATE, {"m1", "m2"}, Blend()),
        (GATE, {"m0"}, Blend()),
        (Blend("rms"), {"m1"}, Blend("rms")),
    ],
)
def test_what_is_left_of_a_blend_for_a_part_of_the_members(blend, names, left):
    assert blend.among(names) == left


class TestInABundle:
    def test_the_predictor_blends_as_the_manifest_says(self, make_bundle, soundscapes):
        folder, path = make_bundle(kernel=(1.0,)), soundscapes / "site_2.ogg"
        alone = [Predictor(Bundle.load(folder).with_members([name])).predict(path) for name in ("fold0", "fold1")]
        manifest = Bundle.load(folder).manifest
        for blend, expected in (
            (Blend("minimum"), np.minimum(*alone)),
            (Blend("gate", "fold1", 0.7), alone[0] * np.minimum(alone[1] / np.float32(0.7), 1)),
        ):
            save_manifest(folder, msgspec.structs.replace(manifest, blend=blend))
            found = Predictor(Bundle.load(folder)).predict(path)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
            assert not np.allclose(found, np.mean(alone, axis=0), atol=1e-3)

    def test_a_manifest_of_before_means_the_mean(self, bundle):
        raw = msgspec.json.decode((bundle / "manifest.json").read_bytes())
        del raw["blend"]
        assert msgspec.json.decode(msgspec.json.encode(raw), type=Manifest).blend == Blend("mean")

    def test_ranks_without_groups_are_refused_with_the_way_out(self, make_bundle):
        folder = make_bundle()
        raw = msgspec.json.decode((folder / "manifest.json").read_bytes())
        raw["blend"] = {"how": "rank"}
        (folder / "manifest.json").write_bytes(msgspec.json.encode(raw))
        with pytest.raises(BundleError, match=r"no group weighs anything") as caught:
            Bundle.load(folder)
        assert "\n" not in str(caught.value)

    def test_a_gate_without_its_member_is_refused_before_anything_is_processed(self, make_bundle):
        folder = make_bundle()
        manifest = Bundle.load(folder).manifest
        save_manifest(folder, msgspec.structs.replace(manifest, blend=Blend("gate", "fold9", 0.5)))
        with pytest.raises((BundleError, ConfigError), match=r"the gate is by 'fold9', which is no member"):
            Predictor(Bundle.load(folder))
