from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinfer.errors import ConfigError
from birdinfer.training.folds import ALWAYS_TRAINING, assign_folds, connected, given_folds, leaks
from birdinfer.training.metadata import Clip


def clip(label, author="", group="", fold="", index=0):
    return Clip(f"{label}/{index}", Path("x"), label, author=author, group=group, given_fold=fold)


@st.composite
def collections(draw):
    """Clips of a long tail: few or many labels, shared authors and groups, and some without either."""
    n_clips = draw(st.integers(12, 60))
    labels = st.sampled_from("abcdefgh"[: draw(st.integers(1, 8))])
    authors = st.sampled_from(["", "", *(f"author {i}" for i in range(draw(st.integers(2, 20))))])
    groups = st.sampled_from(["", "", *(f"group {i}" for i in range(draw(st.integers(2, 30))))])
    return [clip(draw(labels), draw(authors), draw(groups), index=i) for i in range(n_clips)]


def assign_or_none(clips, n_folds, seed):
    try:
        return assign_folds(clips, n_folds, seed)
    except ConfigError:
        return None  # a net of shared authors can leave too few independent sets: refused, never bent


class TestLaws:
    @given(collections(), st.integers(2, 4), st.integers(0, 3))
    @settings(deadline=None, max_examples=60)
    def test_pitfall_13_no_group_or_author_on_both_sides(self, clips, n_folds, seed):
        """Pitfall 13: the same author in training and validation."""
        folds = assign_or_none(clips, n_folds, seed)
        for fold in range(n_folds if folds else 0):
            for kind in ("author", "group"):
                validation = {getattr(c, kind) for c, f in zip(clips, folds, strict=True) if f == fold} - {""}
                training = {getattr(c, kind) for c, f in zip(clips, folds, strict=True) if f != fold}
                assert not validation & training

    @given(collections(), st.integers(2, 4), st.integers(0, 3))
    @settings(deadline=None, max_examples=60)
    def test_every_species_is_in_training_of_every_fold(self, clips, n_folds, seed):
        folds = assign_or_none(clips, n_folds, seed)
        for fold in range(n_folds if folds else 0):
            training = {c.primary_label for c, f in zip(clips, folds, strict=True) if f != fold}
            assert training == {c.primary_label for c in clips}
            assert fold in folds

    @given(collections(), st.integers(2, 4))
    @settings(deadline=None, max_examples=20)
    def test_same_seed_same_folds(self, clips, n_folds):
        assert assign_or_none(clips, n_folds, 1) == assign_or_none(clips, n_folds, 1)

    @given(st.integers(2, 5), st.integers(0, 9))
    @settings(deadline=None, max_examples=20)
    def test_independent_clips_are_shared_evenly_and_stratified(self, n_folds, seed):
        clips = [clip(label, index=i) for label in "abc" for i in range(20)]
        folds = assign_folds(clips, n_folds, seed)
        assert ALWAYS_TRAINING not in folds
        for label in "abc":
            sizes = Counter(f for c, f in zip(clips, folds, strict=True) if c.primary_label == label)
            assert max(sizes.values()) - min(sizes.values()) <= 2


class TestAssignFolds:
    def test_another_seed_gives_other_folds(self):
        clips = [clip("a", index=i) for i in range(30)]
        assert assign_folds(clips, 3, 0) != assign_folds(clips, 3, 1)

    def test_a_species_of_one_clip_is_always_in_training(self):
        clips = [*(clip("common", index=i) for i in range(12)), clip("rare")]
        assert assign_folds(clips, 3, 0)[-1] == ALWAYS_TRAINING

    def test_the_smallest_component_is_taken_out(self):
        clips = [*(clip("common", index=i) for i in range(20)), *(clip("rare", "twice") for _ in range(2))]
        clips += [clip("rare", "once")]
        for seed in range(8):
            folds = assign_folds(clips, 2, seed)
            if folds[-2] == folds[-3] != ALWAYS_TRAINING and folds[-1] == ALWAYS_TRAINING:
                break
        else:
            assert all(assign_folds(clips, 2, seed)[-1] != ALWAYS_TRAINING for seed in range(8))

    def test_only_rare_species(self):
        """scikit-learn refuses when every species has fewer clips than folds; sizes can still be balanced."""
        clips = [clip(label, index=i) for label in "abcdefghij" for i in range(2)]
        assert set(assign_folds(clips, 3, 0)) >= {0, 1, 2}

    def test_too_few_independent_recordings(self):
        with pytest.raises(ConfigError, match="only 1 sets of recordings"):
            assign_folds([clip("a", "one author") for _ in range(9)], 3, 0)

    def test_a_fold_without_validation_is_refused(self):
        with pytest.raises(ConfigError, match="no clips to validate on"):
            assign_folds([clip("a"), clip("b")], 2, 0)


def test_connected_through_others():
    clips = [clip("a", "A", "1"), clip("a", "B", "2"), clip("a", "", "1"), clip("a", "B", "1"), clip("a"), clip("a")]
    assert connected(clips) == [0, 0, 0, 0, 1, 2]


class TestGivenFolds:
    def test_values_are_sorted_as_numbers_and_counted_from_zero(self):
        values = ["10", "9", "2", "", "-1"]
        assert given_folds([clip("a", fold=value) for value in values], 3, "f") == [2, 1, 0, -1, -1]

    def test_words_are_sorted_as_words(self):
        assert given_folds([clip("a", fold=value) for value in ("west", "east")], 2, "f") == [1, 0]

    def test_another_number_of_folds_is_refused(self):
        with pytest.raises(ConfigError, match=r"is 5, column f holds 2 folds - set it to 2"):
            given_folds([clip("a", fold="1"), clip("a", fold="2")], 5, "f")


class TestLeaks:
    def test_counts_what_is_on_both_sides(self):
        clips = [clip("a", "A", "g"), clip("a", "A", "g"), clip("b", "B"), clip("b", "B")]
        notes = leaks(clips, [0, 1, 0, 0])
        assert len(notes) == 3
        assert notes[0].startswith("1 groups")
        assert notes[1].startswith("1 authors are in training and validation of a fold, first 'A'")
        assert notes[2] == "1 species have no training clip in one fold, first 'b'"

    def test_none(self):
        assert leaks([clip("a", "A"), clip("a", "B"), clip("b"), clip("b")], [0, 1, -1, -1]) == []
