"""Greedy choice with a heap of bounds: coverage of all rows, of a graph's neighbours, and messages along a graph.

A bound is the gain that a candidate had when it was last computed; gains of a submodular function only fall, so a
candidate whose renewed gain still leads is the best one. Equal gains go to the lowest candidate.
"""

from __future__ import annotations

import numpy as np

from curate_kernels._jit import kernel
from curate_kernels.arrays import F32, F64, I32, I64


@kernel
def _before(i: int, j: int, key: F64) -> bool:
    return bool(key[i] > key[j] or (key[i] == key[j] and i < j))


@kernel
def _sink(at: int, size: int, heap: I64, where: I64, key: F64) -> None:
    """Move the entry at a place down until none below comes before it."""
    item = heap[at]
    while 2 * at + 1 < size:
        below = 2 * at + 1
        if below + 1 < size and _before(heap[below + 1], heap[below], key):
            below += 1
        if not _before(heap[below], item, key):
            break
        heap[at] = heap[below]
        where[heap[at]] = at
        at = below
    heap[at] = item
    where[item] = at


@kernel
def _rise(at: int, heap: I64, where: I64, key: F64) -> None:
    """Move the entry at a place up until it does not come before the one above."""
    item = heap[at]
    while at > 0 and _before(item, heap[(at - 1) // 2], key):
        heap[at] = heap[(at - 1) // 2]
        where[heap[at]] = at
        at = (at - 1) // 2
    heap[at] = item
    where[item] = at


@kernel
def _build(heap: I64, where: I64, key: F64) -> None:
    for i in range(heap.shape[0]):
        heap[i] = i
        where[i] = i
    for at in range(heap.shape[0] // 2 - 1, -1, -1):
        _sink(at, heap.shape[0], heap, where, key)


@kernel
def _drop_first(size: int, heap: I64, where: I64, key: F64) -> None:
    """Take the first of `size` entries out."""
    where[heap[0]] = -1
    if size > 1:
        heap[0] = heap[size - 1]
        _sink(0, size - 1, heap, where, key)


@kernel
def _gain_of_row(row: F32, near: F32) -> float:
    """Return the sum over the columns of what a row has above `near`; 256 at a time in float32, then in float64."""
    total = 0.0
    for start in range(0, row.shape[0], 256):
        part, have = row[start : start + 256], near[start : start + 256]
        few = np.float32(0.0)
        for j in range(part.shape[0]):
            more = part[j] - have[j]
            few += more if more > np.float32(0.0) else np.float32(0.0)
        total += float(few)
    return total


@kernel
def _cover_row(row: F32, near: F32) -> None:
    for j in range(row.shape[0]):
        near[j] = row[j] if row[j] > near[j] else near[j]


@kernel
def cover_rows(sim: F32, near: F32, picked: I64, gain: F64) -> None:
    """Pick rows of a matrix greedily by sum_j max(0, sim[i, j] - near[j]).

    sim: (m, n) float32, similarity of candidate i and row j
    near: (n,) float32, similarity to the nearest pick, in place
    picked: (count,) int64, out, count ≤ m; gain: (count,) float64, out
    """
    m = sim.shape[0]
    key = np.empty(m, dtype=np.float64)
    heap, where = np.empty(m, dtype=np.int64), np.empty(m, dtype=np.int64)
    for i in range(m):
        key[i] = _gain_of_row(sim[i], near)
    _build(heap, where, key)
    renewed = np.zeros(m, dtype=np.int64)  # picks that a bound knows of
    for done in range(picked.shape[0]):
        while renewed[heap[0]] < done:
            best = heap[0]
            key[best] = _gain_of_row(sim[best], near)
            renewed[best] = done
            _sink(0, m - done, heap, where, key)
        picked[done] = heap[0]
        gain[done] = key[heap[0]]
        _cover_row(sim[heap[0]], near)
        _drop_first(m - done, heap, where, key)


@kernel
def cover_some(sim: F32, draw: F64, near: F32, picked: I64, gain: F64) -> None:
    """Pick as `cover_rows` does, each time among few candidates that are drawn from the free ones (stochastic greedy).

    draw: (count, r) float64 in [0, 1), places among the free candidates
    """
    m = sim.shape[0]
    free = np.arange(m)
    for done in range(picked.shape[0]):
        best, most = -1, -1.0
        for t in range(draw.shape[1]):
            place = int(draw[done, t] * (m - done))
            value = _gain_of_row(sim[free[place]], near)
            if value > most or (value == most and free[place] < free[best]):
                best, most = place, value
        picked[done] = free[best]
        gain[done] = most
        _cover_row(sim[free[best]], near)
        free[best] = free[m - done - 1]


@kernel
def _gain_of_list(i: int, start: I64, row: I32, sim: F32, near: F32) -> float:
    total = 0.0
    for e in range(start[i], start[i + 1]):
        more = sim[e] - near[row[e]]
        total += float(more) if more > np.float32(0.0) else 0.0
    return total


@kernel
def cover_lists(start: I64, row: I32, sim: F32, near: F32, picked: I64, gain: F64) -> None:
    """Pick as `cover_rows` does where each candidate covers few rows: candidate i those from start[i] to start[i + 1].

    start: (m + 1,) int64; row: (e,) int32; sim: (e,) float32; near: (n,) float32, in place
    """
    m = start.shape[0] - 1
    key = np.empty(m, dtype=np.float64)
    heap, where = np.empty(m, dtype=np.int64), np.empty(m, dtype=np.int64)
    for i in range(m):
        key[i] = _gain_of_list(i, start, row, sim, near)
    _build(heap, where, key)
    renewed = np.zeros(m, dtype=np.int64)
    for done in range(picked.shape[0]):
        while renewed[heap[0]] < done:
            best = heap[0]
            key[best] = _gain_of_list(best, start, row, sim, near)
            renewed[best] = done
            _sink(0, m - done, heap, where, key)
        best = heap[0]
        picked[done] = best
        gain[done] = key[best]
        for e in range(start[best], start[best + 1]):
            near[row[e]] = max(near[row[e]], sim[e])
        _drop_first(m - done, heap, where, key)


@kernel
def pick_by_messages(neighbor: I64, weight: F32, score: F64, picked: I64, gain: F64) -> None:
    """Pick the highest score again and again; pick i lowers its neighbours' scores by weight[i, j] max(score[i], 0).

    A pick that was lowered below 0 itself tells its neighbours nothing: it would raise them for being like it.

    neighbor: (n, k) int64, -1 for none; weight: (n, k) float32
    score: (n,) float64, in place; picked: (count,) int64, out; gain: (count,) float64, out: score when picked
    """
    n = score.shape[0]
    heap, where = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    _build(heap, where, score)
    for done in range(picked.shape[0]):
        best = heap[0]
        picked[done] = best
        gain[done] = score[best]
        _drop_first(n - done, heap, where, score)
        for e in range(neighbor.shape[1]):
            other = neighbor[best, e]
            if other < 0 or where[other] < 0:
                continue
            score[other] -= weight[best, e] * max(score[best], 0.0)
            _rise(where[other], heap, where, score)
            _sink(where[other], n - done - 1, heap, where, score)
