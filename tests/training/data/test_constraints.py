from pathlib import Path

from birdinfer.training.data.clip import Clip
from birdinfer.training.data.fold_constraints import connected, leaks
from birdinfer.training.data.folds_file import ALWAYS_TRAINING, TEST
from birdinfer.training.recipe.schema import DataConfig


def clip(label, author="", recording="", site=""):
    return Clip(f"{label}/{author}{recording}{site}", Path("x"), label, author=author, recording=recording, site=site)


class TestConnected:
    def test_through_others(self):
        clips = [
            clip("a", "A", "1"),
            clip("a", "B", "2"),
            clip("a", "", "1"),
            clip("a", "B", "1"),
            clip("a"),
            clip("a"),
        ]
        assert connected(clips, ("author", "recording")) == [0, 0, 0, 0, 1, 2]

    def test_only_by_what_is_named(self):
        clips = [clip("a", "A", "1", "s"), clip("a", "A", "2", "s"), clip("a", "B", "2", "t")]
        assert connected(clips, ("author",)) == [0, 0, 1]
        assert connected(clips, ("recording",)) == [0, 1, 1]
        assert connected(clips, ("site",)) == [0, 0, 1]
        assert connected(clips, ()) == [0, 1, 2]

    def test_an_author_called_like_a_site_is_no_link(self):
        assert connected([clip("a", author="x"), clip("a", site="x")], ("author", "site")) == [0, 1]

    def test_by_sounding_alike(self):
        assert connected([clip("a", "A"), clip("b", "B"), clip("c"), clip("a", "A")], ("author",), [(1, 3)]) == [
            0,
            0,
            1,
            0,
        ]


class TestLeaks:
    def test_counts_what_is_on_both_sides(self):
        clips = [clip("a", "A", "g"), clip("a", "A", "g"), clip("b", "B"), clip("b", "B")]
        assert leaks(clips, [0, 1, 0, 0], DataConfig()) == [
            "1 authors are on both sides of a fold, first 'A': scores flatter",
            "1 recordings are on both sides of a fold, first 'g': scores flatter",
            "1 species have no training clip in one fold, first 'b'",
        ]

    def test_sites_only_where_they_count(self):
        clips = [clip("a", site="1.00,1.00"), clip("a", site="1.00,1.00")]
        assert leaks(clips, [0, 1], DataConfig()) == []
        assert leaks(clips, [0, TEST], DataConfig(group_by=("site",)))[0].startswith("1 sites are on both sides")

    def test_duplicates(self):
        clips = [clip("a", "A"), clip("a", "B"), clip("a", "C")]
        (line,) = leaks(clips, [0, 1, 1], DataConfig(), [(0, 2)])
        assert line == "1 duplicates are on both sides of a fold, first 'a/A': scores flatter"

    def test_a_species_that_is_tested_and_never_trained(self):
        notes = leaks([clip("a"), clip("a"), clip("b"), clip("b")], [0, 1, TEST, TEST], DataConfig())
        assert notes == ["1 species are in the test alone, first 'b'"]

    def test_a_fold_that_has_all_but_the_test_of_a_species(self):
        assert leaks([clip("a"), clip("a")], [0, TEST], DataConfig()) == [
            "1 species have no training clip in one fold, first 'a'"
        ]

    def test_clips_without_a_species_are_asked_for_by_none(self):
        clips = [clip("a", "A"), clip("a", "B"), clip("", "C")]
        assert leaks(clips, [0, 1, 1], DataConfig(complete_fold0=True)) == []

    def test_what_fold_0_cannot_validate(self):
        clips = [clip("a", "A"), clip("b", "B"), clip("c", "C"), clip("c", "D")]
        notes = leaks(clips, [0, ALWAYS_TRAINING, 1, ALWAYS_TRAINING], DataConfig(complete_fold0=True))
        line = "2 species are not validated in fold 0, first 'b': 1 of them have no second independent recording"
        assert notes[-1] == line

    def test_none(self):
        clips = [clip("a", "A"), clip("a", "B"), clip("b"), clip("b")]
        assert leaks(clips, [0, 1, ALWAYS_TRAINING, ALWAYS_TRAINING], DataConfig()) == []
