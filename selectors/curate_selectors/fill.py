"""Water filling: a budget shared out so that every group has equally many, or all that it has."""

from __future__ import annotations

import numpy as np

from curate_kernels.arrays import I64


def fill(size: I64, count: int) -> I64:
    """Return how many each group gives, count in all: min(size, c) and one more for the first groups that have it.

    A larger count never takes from a group. size: (g,) int64, rows that each group has; 0 ≤ count ≤ size.sum()
    """
    order = np.sort(size)
    full = np.concatenate([[0], np.cumsum(order)])
    # What all groups give together at the level of the i-th smallest one.
    at_level = full[:-1] + order * (order.size - np.arange(order.size))
    below = int(np.searchsorted(at_level, count, side="right"))  # groups that give all
    if below == order.size:
        return size.copy()
    level = (count - int(full[below])) // (order.size - below)
    share = np.minimum(size, level)
    more = np.flatnonzero(size > level)[: count - int(share.sum())]
    share[more] += 1
    return share


def in_turns(group: I64, order: I64) -> I64:
    """Return the rows so that each group gives its next one in turn: the first m are what `fill` takes, for every m.

    group: (n,) int64, 0 or more, of each row; order: (n,) int64, rows as each group shall give them, best first
    """
    of = group[order]
    by_group = np.argsort(of, kind="stable")
    sorted_group = of[by_group]
    first = np.flatnonzero(np.diff(sorted_group, prepend=-1))
    turn = np.empty(order.size, dtype=np.int64)
    turn[by_group] = np.arange(order.size) - np.repeat(first, np.diff(first, append=order.size))
    return order[np.lexsort((of, turn))]
