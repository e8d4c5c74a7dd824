"""Water filling: a budget shared out so that every group has equally many, or all that it has."""

from __future__ import annotations

import numpy as np

from curate_kernels.arrays import F64, I64


def fill(size: I64, count: float) -> F64:
    """Return how many each group gives, count in all: min(size, level), with the level that makes it so.

    Of groups that take turns in random order, this is what each gives on average.
    size: (g,) int64, rows that each group has; 0 ≤ count ≤ size.sum()
    """
    order = np.sort(size)
    full = np.concatenate([[0], np.cumsum(order)])
    # What all groups give together at the level of the i-th smallest one.
    at_level = full[:-1] + order * (order.size - np.arange(order.size))
    below = int(np.searchsorted(at_level, count, side="right"))  # groups that give all
    if below == order.size:
        return size.astype(np.float64)
    return np.minimum(size, (count - int(full[below])) / (order.size - below))


def in_turns(group: I64, order: I64, tie: I64) -> I64:
    """Return the rows so that each group gives its next one in turn: every prefix takes equally many, or all, of each.

    group: (n,) int64, 0 or more, of each row; order: (n,) int64, rows as each group shall give them, best first
    tie: (g,) int64, of two groups the one with the lower number gives first in each turn, then the lower group
    """
    of = group[order]
    by_group = np.argsort(of, kind="stable")
    sorted_group = of[by_group]
    first = np.flatnonzero(np.diff(sorted_group, prepend=-1))
    turn = np.empty(order.size, dtype=np.int64)
    turn[by_group] = np.arange(order.size) - np.repeat(first, np.diff(first, append=order.size))
    return order[np.lexsort((of, tie[of], turn))]
