"""Lazy greedy on blocks: gains only fall, so only the rows with the largest known gains are brought up to date."""

from __future__ import annotations

import numpy as np

from curate_kernels.arrays import F32, F64, I64

TAKEN = -1.0  # bound of a row that is a pick already


def largest(bound: F32 | F64, size: int) -> tuple[I64, float, int]:
    """Return the rows with the largest bounds (ties to the lowest row, ascending), and the largest bound left out.

    Rows with a negative bound are picks already and never returned. The third value is the lowest row left out
    that has this bound; (-1, -1) when nothing is left out.
    """
    free = np.flatnonzero(bound >= 0)
    if free.size <= size:
        return free, -1.0, -1
    values = bound[free]
    cut = np.partition(values, free.size - size)[free.size - size]
    above = free[values > cut]
    level = free[values == cut]
    block = np.sort(np.concatenate([above, level[: size - above.size]]))
    left = level[size - above.size :]
    if left.size:
        return block, float(cut), int(left[0])
    lower = values < cut
    top = values[lower].max()
    return block, float(top), int(free[lower][values[lower] == top][0])
