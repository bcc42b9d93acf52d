from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from birdinfer.training.data.fold0 import complete

contents = st.lists(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3), min_size=1, max_size=3), max_size=9)


def sides_of(contents, sides):
    """(species inside, species outside)."""
    return tuple(
        {label for piece, side in zip(contents, sides, strict=True) if side is at for label in piece}
        for at in (True, False)
    )


@given(contents, st.randoms(use_true_random=False))
def test_complete_serves_the_same_species_whatever_the_draw(contents, chance):
    n_pieces = Counter(label for piece in contents for label in piece)
    fixed = [any(n_pieces[label] == 1 for label in piece) for piece in contents]
    drawn = []
    while len(drawn) < 5:
        sides = [not stays and chance.random() < 0.4 for stays in fixed]
        # As the folds are drawn: no species is in fold 0 alone.
        if sides_of(contents, sides)[1] >= set(n_pieces):
            drawn.append(sides)
    served = []
    for sides in drawn:
        inside, outside = sides_of(contents, complete(contents, sides, fixed))
        assert outside >= set(n_pieces)
        served.append(inside)
    assert all(each == served[0] for each in served)


def test_complete_leaves_what_is_complete():
    assert complete([{"a": 1}, {"a": 2}], [False, True], [False, False]) == [False, True]


def test_complete_of_species_that_tie_one_another():
    """Authors with several species each: moving the first that fits leads nowhere."""
    contents = [{"a": 1, "b": 1}, {"b": 1, "c": 1}, {"c": 1, "d": 1}, {"d": 1, "a": 1}]
    sides = complete(contents, [True, False, False, False], [False] * 4)
    assert sides in ([True, False, True, False], [False, True, False, True])


def test_complete_of_nothing():
    assert complete([], [], []) == []
