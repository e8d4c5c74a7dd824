"""How groups share a budget, whatever it is: an order of the rows of which every prefix is shared out."""

from __future__ import annotations

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


def within(data: Candidates, score: str, method: str, seed: int) -> tuple[I64, F32, bool]:
    """Return the rows best first by a score, or drawn at random where it is empty; their values (n,); whether drawn."""
    if not score:
        return np.random.default_rng(seed).permutation(data.n), np.ones(data.n, dtype=np.float32), True
    value = need_score(data, score, method)
    return np.argsort(-value, kind="stable"), value, False


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


def shared_order(group: I64, order: I64, power: float, floor: int, cap: int) -> I64:
    """Return the rows so that every prefix is shared among the groups in proportion to size ** power.

    The (t+1)-th row of a group of size s comes at (t + ½) / s^power (Webster's divisor method, which is nested): equal
    shares at power 0, proportional ones at 1. Before all others come the first `floor` rows of each group, in turns;
    after all others those beyond the first `cap` (0: none), and last the rows of no group (-1), in `order`. Ties go to
    the lower group.
    """
    turn, size = turns(group, order)
    place: F64 = (turn + 0.5) / size.astype(np.float64) ** power
    tier = np.where(turn < floor, 0, np.where((turn >= cap) & (cap > 0), 2, 1))
    place = np.where(tier == 1, place, turn)
    none = group < 0
    tier[none] = 3
    place[none] = turn[none]
    return np.lexsort((group, place, tier)).astype(np.int64)


def drawn_share(group: I64, index: I64) -> F32:
    """Return the chance of each pick in a uniform draw of as many from its group, (m,) float32."""
    if not index.size:
        return np.zeros(0, dtype=np.float32)
    shift = group - min(int(group.min()), 0)
    taken = np.bincount(shift[index], minlength=int(shift.max()) + 1)
    size = np.bincount(shift)
    share: F32 = (taken / np.maximum(size, 1))[shift[index]].astype(np.float32)
    return share
