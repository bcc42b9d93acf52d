import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lies import KINDS, broken_law, odd_sound


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32 - 1))
def test_decoded_and_missing_are_what_is_there_whatever_a_header_claims(tmp_path_factory, kind, seed):
    folder = tmp_path_factory.getbasetemp()
    assert broken_law(odd_sound(np.random.default_rng([seed, KINDS.index(kind)]), kind), folder) == ""
