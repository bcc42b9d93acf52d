"""Folds -> the same folds with every species that can be in fold 0, and in the training of fold 0, in both.

Each species asks for two things: one of its pieces inside fold 0, one outside. Pieces that hold several species tie
these wishes together; a walk meets them by moving one piece at a time for a wish that is not met (Selman, Kautz and
Cohen 1994, "Noise strategies for improving local search"). Which species can be served is decided first, from the
pieces alone, so that it does not depend on how the folds were drawn.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_STEPS = 300
"""Moves before a species is given up: real tables need a few."""
_NOISE = 0.1
"""Share of the moves that are chosen by chance, which leads out of dead ends."""


class _Wish(NamedTuple):
    label: str
    inside: bool


def complete(contents: Sequence[Mapping[str, int]], inside: Sequence[bool], fixed: Sequence[bool]) -> list[bool]:
    """Decide which pieces lie inside fold 0.

    Args:
        contents: species -> clips of each piece, in an order that is always the same.
        inside: where each lies now.
        fixed: pieces that stay where they are.

    Returns:
        Where each piece is to lie: every species of two pieces is on both sides, where that can be.
    """
    walk = _Walk(contents, fixed)
    labels = [label for label in walk.by_rarity if len(walk.pieces_of[label]) > 1]
    start = [now and stays for now, stays in zip(inside, fixed, strict=True)]
    # A species that is given to fold 0 alone stays so.
    outside = [_Wish(label, False) for label in labels if not all(inside[piece] for piece in walk.pieces_of[label])]
    wishes, sides = list(outside), start
    for label in labels:
        served = walk.fulfil(sides, [*wishes, _Wish(label, True)])
        if served is not None:
            wishes, sides = [*wishes, _Wish(label, True)], served
    return walk.fulfil(inside, wishes) or sides


class _Walk:
    def __init__(self, contents: Sequence[Mapping[str, int]], fixed: Sequence[bool]) -> None:
        self._contents, self._fixed = contents, fixed
        self._sizes = [sum(content.values()) for content in contents]
        self.pieces_of: dict[str, list[int]] = {}
        for piece, content in enumerate(contents):
            for label in content:
                self.pieces_of.setdefault(label, []).append(piece)
        self.by_rarity = sorted(self.pieces_of, key=lambda label: (len(self.pieces_of[label]), label))

    def fulfil(self, inside: Sequence[bool], wishes: Sequence[_Wish]) -> list[bool] | None:
        """Move pieces until all wishes are met; None if they are not after so many steps."""
        sides, chance = list(inside), np.random.default_rng(0)
        n_inside = {label: sum(sides[piece] for piece in pieces) for label, pieces in self.pieces_of.items()}
        wanted = {(wish.label, wish.inside) for wish in wishes}

        def n_there(label: str, side: bool) -> int:
            return n_inside[label] if side else len(self.pieces_of[label]) - n_inside[label]

        def cost(piece: int) -> tuple[int, int, int]:
            left = sides[piece]
            broken = sum((label, left) in wanted and n_there(label, left) == 1 for label in self._contents[piece])
            return broken, self._sizes[piece], piece

        for _ in range(_STEPS):
            unmet = next((wish for wish in wishes if not n_there(*wish)), None)
            if unmet is None:
                return sides
            free = [piece for piece in self.pieces_of[unmet.label] if not self._fixed[piece]]
            if not free:
                return None
            moved = int(chance.choice(free)) if chance.random() < _NOISE else min(free, key=cost)
            for label in self._contents[moved]:
                n_inside[label] += -1 if sides[moved] else 1
            sides[moved] = not sides[moved]
        return None
