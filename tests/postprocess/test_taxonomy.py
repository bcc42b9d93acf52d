import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from birdinfer.errors import ConfigError
from birdinfer.postprocess.taxonomy import (
    ClassSmooth,
    GenusSmooth,
    MirrorGroups,
    genus_of,
    groups_by,
    pool_groups,
)
from birdinfer.species import Species

SPECIES = (
    Species("a", "Turdus merula", "", "Aves"),
    Species("b", "Boana raniceps", "", "Amphibia"),
    Species("c", "Turdus pilaris", "", "Aves"),
    Species("d", "", "", ""),
    Species("0012", "Turdus iliacus", "", "Aves"),
    Species("e", "Insecta sonotype 16", "", "Insecta"),
    Species("f", "Insecta sonotype 17", "", "Insecta"),
)
GOLDEN = np.float32([[0.9, 0.5, 0.3, 0.7, 0.0, 0.2, 0.6]])

scores = hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(7)), elements=st.floats(0, 1, width=32))
shares = st.floats(0, 1)
pools = st.sampled_from(["mean", "max"])
steps = st.one_of(
    st.builds(GenusSmooth, shares, pools),
    st.builds(ClassSmooth, shares, pools),
    st.builds(MirrorGroups, share=shares, groups=st.just((("a", "e"), ("b", "f", "d")))),
)


def run(step, probabilities, species=SPECIES):
    return step.bind(species)(probabilities, "any")


def test_genus_smoothing_by_hand():
    """Turdus: (.9 + .3 + 0) / 3 = .4; .9 - .1 * .5 = .85, .3 + .1 * .1 = .31, 0 + .1 * .4 = .04."""
    np.testing.assert_allclose(run(GenusSmooth(0.1), GOLDEN), [[0.85, 0.5, 0.31, 0.7, 0.04, 0.2, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(run(GenusSmooth(0.5, "max"), GOLDEN), [[0.9, 0.5, 0.6, 0.7, 0.45, 0.2, 0.6]], rtol=1e-6)


def test_class_smoothing_by_hand():
    """Aves as Turdus above; Insecta: (.2 + .6) / 2 = .4."""
    np.testing.assert_allclose(run(ClassSmooth(0.5), GOLDEN), [[0.65, 0.5, 0.35, 0.7, 0.2, 0.3, 0.5]], rtol=1e-6)


def test_mirror_groups_by_hand():
    mirrored = run(MirrorGroups(groups=(("a", "e"), ("f", "d", "b"))), GOLDEN)
    np.testing.assert_allclose(mirrored, [[0.9, 0.7, 0.3, 0.7, 0.0, 0.9, 0.7]], rtol=1e-6)
    half = run(MirrorGroups(groups=(("a", "e"),), share=0.5), GOLDEN)
    np.testing.assert_allclose(half, [[0.9, 0.5, 0.3, 0.7, 0.0, 0.55, 0.6]], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "class_name", "genus"),
    [
        ("Turdus merula", "Aves", "turdus"),
        ("Insecta", "Insecta", ""),
        ("Insecta sonotype 16", "Insecta", ""),
        ("", "Aves", ""),
        ("  ", "", ""),
    ],
)
def test_a_genus_is_the_first_of_two_words_and_no_class(name, class_name, genus):
    assert genus_of(Species("x", name, "", class_name)) == genus


def test_groups_have_two_members_at_least():
    assert groups_by(SPECIES, genus_of) == [(0, 2, 4)]
    assert groups_by(SPECIES, lambda one: one.class_name) == [(0, 2, 4), (5, 6)]


@given(scores, steps)
def test_stays_within_0_and_1_and_leaves_its_input(probabilities, step):
    before = probabilities.copy()
    found = run(step, probabilities)
    assert (found.shape, found.dtype) == (probabilities.shape, np.float32)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.array_equal(probabilities, before)


@given(scores, pools)
def test_a_share_of_0_changes_no_bit(probabilities, pool):
    for step in (
        GenusSmooth(0, pool),
        ClassSmooth(0, pool),
        MirrorGroups(groups=(("a", "b"),), share=0),
        MirrorGroups(groups=()),
    ):
        assert step.is_neutral
        assert np.array_equal(run(step, probabilities), probabilities)
    assert not GenusSmooth(0.1).is_neutral
    assert not MirrorGroups(groups=(("a", "b"),)).is_neutral


@given(scores, shares, pools)
def test_a_mean_of_equals_is_their_value(probabilities, share, pool):
    alike = np.repeat(probabilities[:, :1], 7, axis=1)
    assert np.array_equal(pool_groups(alike, [(0, 2), (1, 3, 4, 5)], share, pool), alike)


@given(scores, steps, st.integers(0, 6), st.floats(0, 1, width=32))
def test_a_larger_score_makes_none_smaller(probabilities, step, column, value):
    raised = probabilities.copy()
    raised[:, column] = np.maximum(raised[:, column], np.float32(value))
    assert (run(step, raised) >= run(step, probabilities) - 1e-6).all()


@given(scores, steps)
def test_a_row_has_the_same_bits_alone_and_in_company(probabilities, step):
    assert step.context_rows == 0
    alone = [run(step, row[None]) for row in probabilities]
    assert np.array_equal(run(step, probabilities), np.concatenate(alone))


@given(scores, steps, st.permutations(range(7)))
def test_the_order_of_the_columns_does_not_matter(probabilities, step, order):
    shuffled = run(step, probabilities[:, order], [SPECIES[index] for index in order])
    np.testing.assert_allclose(shuffled, run(step, probabilities)[:, order], atol=1e-6)


@given(scores, pools)
def test_at_a_share_of_1_the_members_of_a_group_are_alike_to_the_bit(probabilities, pool):
    found = pool_groups(probabilities, [(0, 2), (1, 3, 4, 5)], 1.0, pool)
    assert np.array_equal(found[:, 0], found[:, 2])
    assert all(np.array_equal(found[:, 1], found[:, member]) for member in (3, 4, 5))
    if pool == "max":
        assert np.array_equal(found[:, 0], probabilities[:, [0, 2]].max(axis=1))


@given(scores)
def test_max_never_lowers(probabilities):
    for step in (GenusSmooth(0.3, "max"), ClassSmooth(1, "max"), MirrorGroups(groups=(("a", "b", "c"),))):
        assert (run(step, probabilities) >= probabilities).all()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (GenusSmooth(), "genus_smooth: no species has a scientific_name - leave the step out"),
        (ClassSmooth(), "class_smooth: no species has a class_name - leave the step out"),
    ],
)
def test_a_taxonomy_that_is_not_there_is_not_passed_over_in_silence(step, message):
    with pytest.raises(ConfigError, match=message):
        step.bind([Species(one.label) for one in SPECIES])


def test_an_unknown_label_is_named():
    with pytest.raises(ConfigError, match=r"^mirror_groups: label 'zzz' is not among the species - take it out"):
        MirrorGroups(groups=(("a", "zzz"),)).bind(SPECIES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"step": "genus_smooth", "share": 1.5}, "share is 1.5, allowed are 0 to 1"),
        ({"step": "class_smooth", "share": -0.1}, "share is -0.1, allowed are 0 to 1"),
        ({"step": "class_smooth", "pool": "median"}, "Invalid enum value 'median'"),
        ({"step": "mirror_groups", "groups": [["a"]]}, "groups has a group of fewer than two labels"),
        ({"step": "mirror_groups", "groups": [["a", "b"], ["c", "a"]]}, "groups has the label 'a' twice"),
        ({"step": "mirror_groups", "groups": [["a", "b"]], "share": 2}, "share is 2.0, allowed are 0 to 1"),
        ({"step": "genus_smooth", "weight": 1}, "unknown field `weight`"),
    ],
)
def test_refuses_parameters_that_make_no_sense(fields, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(fields, GenusSmooth | ClassSmooth | MirrorGroups)


@given(steps)
def test_reads_back_what_it_writes(step):
    assert msgspec.json.decode(msgspec.json.encode(step), type=GenusSmooth | ClassSmooth | MirrorGroups) == step
