"""Greedy methods that go class by class: each class gets its share of the budget, and its own picks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_selectors.balance.shares import Shares
from curate_selectors.training.probe import Labelled
from curate_selectors.types import Candidates, Selection

Pick = Callable[[I64, int], tuple[I64, F32, F32]]
"""Rows of a class and how many of them to take -> places among them in order, gains, weights."""


def by_class(data: Candidates, known: Labelled, count: int, pick: Pick) -> Selection:
    """Return `count` rows, each class at its share (Webster), then rows without a label, of weight 1 and gain 0.

    A pick whose order is nested in each class makes the order of the whole nested; weights belong to this count.
    """
    gain, weight = np.zeros(data.n, dtype=np.float32), np.ones(data.n, dtype=np.float32)
    at = Shares(power=1.0).order(known.y, np.arange(known.y.size))[:count]
    share = np.bincount(known.y[at], minlength=known.classes)
    orders = []
    for number in range(known.classes):
        rows = np.flatnonzero(known.y == number)
        places, gains, weights = pick(rows, int(share[number]))
        gain[known.rows[rows[places]]], weight[known.rows[rows[places]]] = gains, weights
        orders += [rows[places], np.delete(rows, places)]
    order = np.concatenate([np.zeros(0, dtype=np.int64), *orders])
    index = known.then_others(Shares(power=1.0).order(known.y, order), data.n)[:count]
    return Selection(index, gain[index], weight[index], np.ones(count, dtype=np.float32))
