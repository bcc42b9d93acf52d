import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.export.acceptance.held_out import even_shares, evenly_spaced

groups = st.lists(st.integers(0, 40), max_size=30)


class TestEvenShares:
    @pytest.mark.parametrize(
        ("available", "n_wanted", "shares"),
        [
            ([3, 0, 10, 1], 8, [3, 0, 4, 1]),
            ([3, 0, 10, 1], 100, [3, 0, 10, 1]),
            ([5, 5, 5], 1, [0, 1, 0]),
            ([5, 5], 0, [0, 0]),
            ([], 3, []),
            ([0], 3, [0]),
        ],
    )
    def test_as_one_would_deal_them(self, available, n_wanted, shares):
        assert even_shares(available, n_wanted).tolist() == shares

    @given(groups, st.integers(0, 300))
    def test_all_that_is_wanted_or_all_that_there_is(self, available, n_wanted):
        shares = even_shares(available, n_wanted)
        assert shares.sum() == min(n_wanted, sum(available))
        assert (shares <= available).all()

    @given(groups, st.integers(0, 300))
    def test_who_gets_less_than_another_by_two_has_no_more(self, available, n_wanted):
        shares = even_shares(available, n_wanted)
        short = shares < shares.max(initial=0) - 1
        assert (shares[short] == np.array(available, int)[short]).all()


class TestEvenlySpaced:
    @given(st.integers(0, 200), st.integers(0, 200), st.floats(0, 1, exclude_max=True))
    def test_none_twice_and_none_that_is_not_there(self, n_there, n_wanted, start):
        indices = evenly_spaced(n_there, n_wanted, start)
        assert len(indices) == min(n_there, n_wanted)
        assert (np.diff(indices) > 0).all()
        assert not len(indices) or (indices[0] >= 0 and indices[-1] < n_there)

    @given(st.integers(1, 200), st.integers(1, 200), st.floats(0, 1, exclude_max=True))
    def test_distances_differ_by_one_at_most(self, n_there, n_wanted, start):
        steps = np.diff(evenly_spaced(n_there, n_wanted, start))
        assert not len(steps) or steps.max() - steps.min() <= 1

    def test_the_start_moves_all_of_them(self):
        assert evenly_spaced(9, 3, 0.0).tolist() == [0, 3, 6]
        assert evenly_spaced(9, 3, 0.9).tolist() == [2, 5, 8]
