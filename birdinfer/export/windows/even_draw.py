"""Some of many, evenly: how many of each group, and which of a list.

Chance alone leaves rare species out and takes loud windows in bunches. What is drawn here is spread as evenly as there
is something to draw from, and with a start handed in it is the same every time.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Intp = npt.NDArray[np.intp]


def even_shares(available: Sequence[int], n_wanted: int) -> Intp:
    """How many to take of each group, so that none gets more than one more than another that has as many left.

    As a round robin would deal them, in closed form: every group gives up to a level, and what is then missing comes
    one by one from groups spread over those that have more.

    Args:
        available: how many each group has, >= 0.
        n_wanted: how many in all, >= 0; all of them are taken where there are fewer.

    Returns:
        [groups], adding up to the lesser of ``n_wanted`` and all that there are.
    """
    there = np.asarray(available, np.intp)
    levels = range(int(there.max(initial=0)) + 1)
    level = bisect_right(levels, n_wanted, key=lambda most: int(np.minimum(there, most).sum())) - 1
    shares = np.minimum(there, level)
    has_more = np.flatnonzero(there > level)
    shares[has_more[evenly_spaced(len(has_more), n_wanted - int(shares.sum()))]] += 1
    return shares


def evenly_spaced(n_there: int, n_wanted: int, start: float = 0.5) -> Intp:
    """Which of a list to take: one out of each of ``n_wanted`` equal stretches of it.

    With a random start this is systematic sampling (Madow and Madow 1944, "On the theory of systematic sampling"):
    sorted by a quantity, what is taken has the quantity's own distribution.

    Args:
        n_there: the list's length.
        n_wanted: how many to take; all where there are fewer.
        start: where in its stretch each one lies, in [0, 1).

    Returns:
        Ascending indices, none twice.
    """
    if n_wanted >= n_there:
        return np.arange(n_there)
    indices = ((np.arange(n_wanted) + start) * n_there / n_wanted).astype(np.intp)
    return np.minimum(indices, n_there - 1)  # a start that is almost 1 rounds to the next stretch
