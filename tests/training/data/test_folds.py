from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import ConfigError
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.fold_constraints import leaks, validated_folds
from birdinfer.training.data.folds import assign_folds, given_folds
from birdinfer.training.data.folds_file import ALWAYS_TRAINING, LEFT_OUT, TEST, write_folds
from birdinfer.training.data.metadata import read_metadata
from birdinfer.training.recipe.schema import DataConfig

KINDS = ("author", "recording", "site")


def clip(label, name, author="", recording="", site="", fold=""):
    return Clip(name, Path("x"), label, author=author, recording=recording, site=site, given_fold=fold)


def singles(*counts):
    """Independent clips: so many of species a, so many of b, ..."""
    return [clip(label, f"{label}{i}") for label, n in zip("abcdefghijklmnop", counts, strict=False) for i in range(n)]


@st.composite
def collections(draw):
    """Clips of a long tail: few or many labels, shared authors, recordings and sites, and some without any."""
    labels = st.sampled_from("abcdefgh"[: draw(st.integers(1, 8))])
    names = [
        st.sampled_from(["", "", *(f"{kind} {i}" for i in range(draw(st.integers(2, most))))])
        for kind, most in zip(KINDS, (20, 30, 10), strict=True)
    ]
    n_clips = draw(st.integers(12, 60))
    return [clip(draw(labels), f"{i:02}", *(draw(name) for name in names)) for i in range(n_clips)]


@st.composite
def configs(draw):
    """Folds or one split, with a test or without."""
    return DataConfig(
        n_folds=draw(st.integers(2, 4)),
        val_share=draw(st.sampled_from([0.0, 0.0, 0.2, 0.4])),
        test_share=draw(st.sampled_from([0.0, 0.15])),
        complete_fold0=draw(st.booleans()),
        group_by=tuple(draw(st.lists(st.sampled_from(KINDS), unique=True))),
    )


@st.composite
def duplicates(draw):
    """Sets of clips that sound alike."""
    return draw(st.lists(st.lists(st.integers(0, 11), min_size=2, max_size=4, unique=True), max_size=3))


def assign_or_none(clips, config, seed, sets=()):
    try:
        return assign_folds(clips, config, seed, sets)
    except ConfigError:
        return None  # a net of shared authors can leave too few independent sets: refused, never bent


def side_of(folds, at):
    return {index for index, fold in enumerate(folds) if fold == at}


class TestConstraints:
    @given(collections(), configs(), st.integers(0, 3), duplicates())
    def test_pitfall_13_nothing_that_belongs_together_is_on_both_sides(self, clips, config, seed, sets):
        """Pitfall 13: the same author, or one recording under two names, in training and validation."""
        folds = assign_or_none(clips, config, seed, sets)
        for at in set(folds or ()) - {ALWAYS_TRAINING}:
            held_out = side_of(folds, at)
            for kind in config.group_by:
                inside = {getattr(clips[index], kind) for index in held_out} - {""}
                outside = {getattr(c, kind) for index, c in enumerate(clips) if index not in held_out}
                assert not inside & outside
            for members in sets:
                assert len({index in held_out for index in members}) == 1

    @given(collections(), configs(), st.integers(0, 3), duplicates())
    def test_every_species_is_in_the_training_of_every_fold(self, clips, config, seed, sets):
        folds = assign_or_none(clips, config, seed, sets)
        for at in validated_folds(folds or ()):
            training = {c.primary_label for c, fold in zip(clips, folds, strict=True) if fold not in {at, TEST}}
            assert training == {c.primary_label for c in clips}

    @given(collections(), configs(), st.integers(0, 3))
    def test_what_is_asked_for_is_there(self, clips, config, seed):
        folds = assign_or_none(clips, config, seed)
        if folds:
            assert validated_folds(folds) == ((0,) if config.val_share else tuple(range(config.n_folds)))
            assert (TEST in folds) == bool(config.test_share)

    @given(collections(), configs(), st.integers(0, 3), st.randoms(use_true_random=False))
    def test_folds_depend_on_clips_and_seed_not_on_the_tables_order(self, clips, config, seed, random):
        shuffled = random.sample(clips, len(clips))
        one, other = assign_or_none(clips, config, seed), assign_or_none(shuffled, config, seed)
        assert (one is None) == (other is None)
        if one:
            by_name = {c.filename: fold for c, fold in zip(shuffled, other, strict=True)}
            assert one == [by_name[c.filename] for c in clips]

    @given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(2, 7), st.integers(0, 99))
    def test_independent_clips_are_balanced_within_one(self, counts, n_folds, seed):
        clips = singles(*counts)
        folds = assign_or_none(clips, DataConfig(n_folds=n_folds), seed)
        if folds is None:
            assert sum(n for n in counts if n > 1) < n_folds
            return
        alone = {c.primary_label for c in clips if sum(d.primary_label == c.primary_label for d in clips) == 1}
        for kept in [{c.primary_label} for c in clips] + [{c.primary_label for c in clips} - alone]:
            assigned = [f for c, f in zip(clips, folds, strict=True) if c.primary_label in kept - alone]
            sizes = [assigned.count(fold) for fold in range(n_folds)]
            assert max(sizes) - min(sizes) <= 1
            assert ALWAYS_TRAINING not in assigned

    @given(st.lists(st.integers(2, 30), min_size=2, max_size=12), st.sampled_from([0.1, 0.2, 0.35]), st.integers(0, 99))
    def test_a_split_of_independent_clips_keeps_its_share_of_each_species_and_of_all(self, counts, share, seed):
        clips = singles(*counts)
        folds = assign_or_none(clips, DataConfig(val_share=share), seed)
        if folds is None:
            assert share * len(clips) < 1
            return
        assert abs(folds.count(0) - share * len(clips)) <= 1
        for label, n in Counter(c.primary_label for c in clips).items():
            held_out = sum(fold == 0 for c, fold in zip(clips, folds, strict=True) if c.primary_label == label)
            assert abs(held_out - share * n) <= 1

    @given(collections(), st.integers(0, 3))
    def test_complete_fold0_validates_each_species_that_has_two_recordings(self, clips, seed):
        config = DataConfig(n_folds=2, group_by=(), complete_fold0=True)
        folds = assign_or_none(clips, config, seed)
        if folds:
            counts = Counter(c.primary_label for c in clips)
            validated = {c.primary_label for c, fold in zip(clips, folds, strict=True) if fold == 0}
            assert validated == {label for label, n in counts.items() if n > 1}


class TestAssignFolds:
    def test_another_seed_gives_other_folds(self):
        assert assign_folds(singles(30), DataConfig(), 0) != assign_folds(singles(30), DataConfig(), 1)

    def test_a_species_of_one_clip_is_always_in_training(self):
        assert assign_folds(singles(12, 1), DataConfig(n_folds=3), 0)[-1] == ALWAYS_TRAINING

    def test_a_species_of_one_author_takes_all_of_the_authors_clips_into_training(self):
        clips = [*singles(12), clip("rare", "r0", "one"), clip("rare", "r1", "one"), clip("a", "r2", "one")]
        assert assign_folds(clips, DataConfig(n_folds=3), 0)[-3:] == [ALWAYS_TRAINING] * 3

    def test_large_authors_leave_space_for_small_ones(self):
        clips = [clip("a", f"{author}{i}", author) for author, n in (("A", 8), ("B", 5), ("C", 3)) for i in range(n)]
        sizes = Counter(assign_folds(clips, DataConfig(n_folds=2), 0))
        assert sorted(sizes.values()) == [8, 8]

    def test_only_what_group_by_names_is_kept_together(self):
        clips = [clip("a", f"{i}", "one author", f"{i}", "one site") for i in range(9)]
        assert validated_folds(assign_folds(clips, DataConfig(n_folds=3, group_by=("recording",)), 0)) == (0, 1, 2)
        with pytest.raises(ConfigError, match="share no site; 9 of 9 clips share the site 'one site' - set "):
            assign_folds(clips, DataConfig(n_folds=3, group_by=("site",)), 0)

    def test_test_is_drawn_before_the_folds_and_whatever_their_number(self):
        clips = singles(40, 20, 10, 1)
        tests = [side_of(assign_folds(clips, DataConfig(n_folds=n, test_share=0.2), 0), TEST) for n in (2, 5)]
        assert tests[0] == tests[1]
        assert len(tests[0]) == 14

    def test_all_data_trains_on_all_but_the_test(self):
        clips = singles(20, 10)
        assert assign_folds(clips, DataConfig(all_data=True), 0) == [ALWAYS_TRAINING] * 30
        folds = assign_folds(clips, DataConfig(all_data=True, test_share=0.1), 0)
        assert Counter(folds) == {ALWAYS_TRAINING: 27, TEST: 3}
        assert validated_folds(folds) == ()

    def test_rare_species_reach_validation_through_the_total(self):
        """A fifth of two clips is none; but of twenty such species, eight clips are a fifth of all."""
        clips = [clip(f"species {i:02}", f"{i:02} {j}") for i in range(20) for j in range(2)]
        assert assign_folds(clips, DataConfig(val_share=0.2), 0).count(0) == 8

    def test_complete_fold0_takes_the_smallest_that_can_be_spared(self):
        shared = [clip("b", "b0", "B"), clip("b", "b1", "B"), clip("c", "c0", "B")]
        clips = [*singles(40), *shared, clip("b", "b2")]
        folds = assign_folds(clips, DataConfig(val_share=0.05, complete_fold0=True), 0)
        assert folds[-4:] == [ALWAYS_TRAINING] * 3 + [0]

    def test_real_clips(self, shared_data):
        clips = read_metadata(shared_data / "birds").clips
        folds = assign_folds(clips, DataConfig(n_folds=3), 0)
        assert leaks(clips, folds, DataConfig()) == []
        sizes = [folds.count(fold) for fold in range(3)]
        assert max(sizes) - min(sizes) <= 1


class TestWhatIsRefused:
    def test_too_few_independent_recordings(self):
        with pytest.raises(ConfigError, match="only 1 sets of recordings share no author or recording"):
            assign_folds([clip("a", f"{i}", "one author") for i in range(9)], DataConfig(n_folds=3), 0)

    def test_a_fold_without_validation(self):
        with pytest.raises(ConfigError, match="no clips to validate on"):
            assign_folds(singles(1, 1), DataConfig(n_folds=2), 0)

    @pytest.mark.parametrize("key", ["val_share", "test_share"])
    def test_a_share_that_no_species_can_spare(self, key):
        with pytest.raises(ConfigError, match=rf"data\.{key}: is 0\.5, no clips can be spared for it - set data"):
            assign_folds(singles(1, 1), DataConfig(**{key: 0.5}), 0)


class TestGivenFolds:
    def test_values_are_sorted_as_numbers_and_counted_from_zero(self):
        clips = [clip("a", value, fold=value) for value in ("10", "9", "2", "", "-1", "-2", "-3")]
        assert given_folds(clips, 3, "f") == [2, 1, 0, ALWAYS_TRAINING, ALWAYS_TRAINING, TEST, LEFT_OUT]

    def test_words_are_sorted_as_words(self):
        assert given_folds([clip("a", value, fold=value) for value in ("west", "east")], 2, "f") == [1, 0]

    def test_another_number_of_folds_is_refused(self):
        clips = [clip("a", "1", fold="1"), clip("a", "2", fold="2")]
        with pytest.raises(ConfigError, match=r"is 5, column f holds 2 folds: 1, 2 - set data\.n_folds=2 or "):
            assign_folds(clips, DataConfig(fold_column="f"), 0)

    def test_words_beside_numbers_are_refused(self):
        with pytest.raises(ConfigError, match=r"data\.fold_column: column f mixes words and numbers: 1, b"):
            given_folds([clip("a", "1", fold="1"), clip("a", "2", fold="b")], 2, "f")

    def test_a_column_assigns_folds_and_a_test_is_taken_out_of_them(self):
        clips = [clip("a", f"{i:02}", fold=str(i % 2)) for i in range(20)]
        assert assign_folds(clips, DataConfig(n_folds=2, fold_column="f"), 0) == [0, 1] * 10
        folds = assign_folds(clips, DataConfig(n_folds=2, fold_column="f", test_share=0.2), 0)
        assert folds.count(TEST) == 4
        assert all(fold in {index % 2, TEST} for index, fold in enumerate(folds))

    def test_complete_fold0_adds_to_a_column(self):
        clips = [clip(label, f"{label}{i}", fold=str(fold)) for label, fold in (("a", 0), ("b", 1)) for i in range(3)]
        folds = assign_folds(clips, DataConfig(n_folds=2, fold_column="f", complete_fold0=True), 0)
        assert folds == [0, 0, 0, 0, 1, 1]

    def test_a_file_repeats_an_earlier_run(self, tmp_path):
        clips = singles(20, 10)
        for earlier in (DataConfig(n_folds=3, test_share=0.1), DataConfig(n_folds=3, val_share=0.2)):
            folds = assign_folds(clips, earlier, 7)
            write_folds(tmp_path / "folds.csv", clips, folds)
            later = DataConfig(n_folds=3, folds_file=str(tmp_path / "folds.csv"), test_share=earlier.test_share)
            assert assign_folds(clips, later, 0) == folds

    def test_clips_that_a_file_leaves_out_stay_out(self, tmp_path):
        clips = singles(20, 10)
        file = str(tmp_path / "folds.csv")
        write_folds(tmp_path / "folds.csv", clips, [index % 4 - 3 for index in range(20)] + [1] * 10)
        for config in (
            DataConfig(n_folds=2, folds_file=file, complete_fold0=True),
            DataConfig(folds_file=file, all_data=True, test_share=0.3),
        ):
            assert side_of(assign_folds(clips, config, 0), LEFT_OUT) == {0, 4, 8, 12, 16}

    def test_a_file_of_another_number_of_folds_is_refused(self, tmp_path):
        clips = singles(20)
        write_folds(tmp_path / "folds.csv", clips, assign_folds(clips, DataConfig(n_folds=3), 0))
        with pytest.raises(
            ConfigError, match=r"data\.n_folds: is 5, .*folds\.csv holds the folds 0, 1, 2 - set data.n_fol"
        ):
            assign_folds(clips, DataConfig(folds_file=str(tmp_path / "folds.csv")), 0)
