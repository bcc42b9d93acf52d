"""Links between numbered things -> the sets that hang together, directly or through others (union-find)."""

from collections.abc import Iterable


def components(n: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Number the sets that hang together.

    Args:
        n: how many things there are.
        links: pairs of their indices.

    Returns:
        Set per thing, [n], numbered from 0 in order of appearance.
    """
    parent = list(range(n))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]  # halve the path, so that later walks are short
            index = parent[index]
        return index

    for one, other in links:
        parent[root(other)] = root(one)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(n)]
