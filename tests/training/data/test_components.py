from hypothesis import given
from hypothesis import strategies as st

from birdinfer.training.data.duplicates import components


def test_numbers_are_given_in_order_of_appearance():
    assert components(6, [(4, 1), (5, 3), (3, 4)]) == [0, 1, 2, 1, 1, 1]


def test_without_links_each_is_alone():
    assert components(3, []) == [0, 1, 2]


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19))))
def test_two_share_a_set_exactly_where_a_path_leads(links):
    reached = {index: {index} for index in range(20)}
    for _ in range(20):
        for one, other in links:
            reached[one] |= reached[other]
            reached[other] |= reached[one]
    sets = components(20, links)
    assert all((sets[one] == sets[other]) == (other in reached[one]) for one in range(20) for other in range(20))
