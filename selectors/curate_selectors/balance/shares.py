"""How groups share a budget, whatever it is: an order of the rows of which every prefix is shared out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import need_labels, need_score
from curate_selectors.types import Candidates

COLUMNS = ("labels", "groups")


def groups_of(data: Candidates, by: str, method: str) -> I64:
    """Return the labels or the groups of the candidates, (n,) int64, -1 unknown. Raises SelectorError without them."""
    if by == "labels":
        return need_labels(data, method)
    if by != "groups":
        raise SelectorError(f"by is {by!r}; it must be one of {', '.join(COLUMNS)}")
    if data.group is None or data.group.shape != (data.n,):
        raise SelectorError(f"method {method!r} needs groups, one of each of {data.n} candidates")
    return data.group


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows as their groups shall give them: best first by a score, or drawn.

    order: (n,) int64, rows best first; value: (n,) float32, of each row; drawn: whether chance made the order
    tie: (n,) int64, of each row's group: of two that have the same claim the lower one goes first
    """

    order: I64
    value: F32
    drawn: bool
    tie: I64


def ranked(data: Candidates, group: I64, score: str, method: str, seed: int) -> Ranked:
    """Return the rows best first by a score, or drawn where it is empty.

    Groups with the same claim go in a drawn order, or the one with the best row first. Raises SelectorError without
    the score.
    """
    names, of = np.unique(group, return_inverse=True)
    if score:
        value = need_score(data, score, method)
        order = np.argsort(-value, kind="stable")
        return Ranked(order, value, False, np.unique(of[order], return_index=True)[1][of])
    rng = np.random.default_rng(seed)
    order = rng.permutation(data.n)
    return Ranked(order, np.ones(data.n, dtype=np.float32), True, rng.permutation(names.size)[of])


def turns(group: I64, order: I64) -> tuple[I64, I64]:
    """Return for each row how many of its group come before it in `order`, and how many its group has; both (n,)."""
    of = group[order]
    by_group = np.argsort(of, kind="stable")
    names, first, size = np.unique(of[by_group], return_index=True, return_counts=True)
    del names
    turn, total = np.empty(group.size, dtype=np.int64), np.empty(group.size, dtype=np.int64)
    turn[order[by_group]] = np.arange(group.size) - np.repeat(first, size)
    total[order[by_group]] = np.repeat(size, size)
    return turn, total


@dataclass(frozen=True, slots=True)
class Shares:
    """How groups share any budget: in proportion to size ** power, once floors are met, while caps are not passed.

    The (t+1)-th row of a group of size s comes at (t + ½) / s^power (Webster's divisor method, which is nested): equal
    shares at power 0, proportional ones at 1. Before all others come the first `floor` rows of each group, in turns;
    after all others those beyond the first `cap` (0: none), and last the rows of no group (-1).
    """

    power: float = 0.0
    floor: int = 0
    cap: int = 0

    def order(self, group: I64, order: I64, tie: I64 | None = None) -> I64:
        """Return the rows so that every prefix is shared out; each group gives its rows in `order`.

        tie: (n,) int64, of each row's group, the lower one goes first of two with the same claim; None: the lower group
        """
        tier, place = self._claims(group, order)
        return np.lexsort((group if tie is None else tie, place, tier)).astype(np.int64)

    def expected(self, group: I64, order: I64, count: int) -> F64:
        """Return how many rows the group of each row gives on average among `count`, (n,), with ties in random order.

        A group gives that many rounded down, or one more. A group whose claim comes after the last one met gives none:
        no draw reaches it, and no weight of another row stands for it.
        """
        if not count:
            return np.zeros(group.size)
        tier, place = self._claims(group, order)
        last = np.lexsort((place, tier))[count - 1]
        level = (tier == tier[last]) & (place == place[last])
        before = (tier < tier[last]) | ((tier == tier[last]) & (place < place[last]))
        of = np.unique(group, return_inverse=True)[1]
        taken = np.bincount(of, before + level * ((count - before.sum()) / level.sum()))
        return taken[of].astype(np.float64)

    def _claims(self, group: I64, order: I64) -> tuple[I64, F64]:
        """Return when each row's turn comes: its tier, and its place there."""
        turn, size = turns(group, order)
        place: F64 = (turn + 0.5) / size.astype(np.float64) ** self.power
        tier: I64 = np.where(turn < self.floor, 0, np.where((turn >= self.cap) & (self.cap > 0), 2, 1))
        place = np.where(tier == 1, place, turn.astype(np.float64))
        none = group < 0
        tier[none] = 3
        place[none] = turn[none]
        return tier, place


def drawn_share(group: I64, index: I64) -> F32:
    """Return the chance of each pick in a uniform draw of as many from its group, (m,) float32; -1 is a group too."""
    if not index.size:
        return np.zeros(0, dtype=np.float32)
    shift = group - min(int(group.min()), 0)
    taken = np.bincount(shift[index], minlength=int(shift.max()) + 1)
    size = np.bincount(shift)
    share: F32 = (taken / np.maximum(size, 1))[shift[index]].astype(np.float32)
    return share
