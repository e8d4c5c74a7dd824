"""Coverage and redundancy of rows in random pairs of columns (ZCore)."""

from __future__ import annotations

import numpy as np

from curate_kernels._jit import kernel
from curate_kernels.arrays import F32, F64, I64

_FEW = 256  # distances that are compared at once
_SAMPLE = 2048


@kernel
def _distances(left: F32, right: F32, x: np.float32, y: np.float32, out: F32) -> None:
    for i in range(out.shape[0]):
        out[i] = abs(left[i] - x) + abs(right[i] - y)


@kernel
def _nearest(distance: F32) -> int:
    """Return the lowest place of the least distance; counted in blocks, as a minimum is not vectorised."""
    best = 0
    for start in range(0, distance.shape[0], _FEW):
        part = distance[start : start + _FEW]
        least = distance[best]
        fewer = np.int32(0)
        for j in range(part.shape[0]):
            fewer += np.int32(part[j] < least)
        if fewer > 0:
            for j in range(part.shape[0]):
                if part[j] < distance[best]:
                    best = start + j
    return best


@kernel
def _smallest(value: F32, rank: int) -> np.float32:
    """Return the value of a rank (from 0), partly sorting the array in place (Hoare's selection)."""
    low, high = 0, value.shape[0] - 1
    while low < high:
        pivot = value[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while value[i] < pivot:
                i += 1
            while value[j] > pivot:
                j -= 1
            if i <= j:
                value[i], value[j] = value[j], value[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return np.float32(value[rank])


@kernel
def _likely_bound(distance: F32, near: int, room: F32) -> np.float32:
    """Return a distance below which `near` rows surely almost lie, read from a sample."""
    n = distance.shape[0]
    if n <= 4 * near or n <= _SAMPLE:
        return np.float32(np.inf)
    step = n // _SAMPLE
    for s in range(_SAMPLE):
        room[s] = distance[s * step]
    share = near * _SAMPLE / n
    return _smallest(room[:_SAMPLE], min(int(share + 4.0 * np.sqrt(share) + 4.0), _SAMPLE - 1))


@kernel
def _up_to(distance: F32, own: int, bound: np.float32, row: I64, value: F32) -> int:
    """Write the rows but `own` within a distance, in order, and return how many there are."""
    found = 0
    for i in range(distance.shape[0]):
        row[found] = i
        value[found] = distance[i]
        found += 1 if distance[i] <= bound and i != own else 0
    return found


@kernel
def _penalise(distance: F32, own: int, near: int, power: float, score: F64, row: I64, value: F32, room: F32) -> None:
    """Take 1 in all from the rows nearest to one, by distance^-power; from its copies alone where it has any."""
    found = _up_to(distance, own, _likely_bound(distance, near, room), row, value)
    if found < near:
        found = _up_to(distance, own, np.float32(np.inf), row, value)
    few = min(near, found)
    if few == 0:
        return
    room[:found] = value[:found]
    last = _smallest(room[:found], few - 1)
    level = few  # rows at the last distance that still count, the lowest ones
    for e in range(found):
        level -= value[e] < last
    kept, zeros, total = 0, 0, 0.0
    for e in range(found):
        if value[e] > last or (value[e] == last and level == 0):
            continue
        level -= value[e] == last
        row[kept], value[kept] = row[e], value[e]
        kept += 1
        if value[kept - 1] > 0.0:
            total += np.float64(value[kept - 1]) ** -power
        else:
            zeros += 1
    for e in range(kept):
        if zeros == 0:
            score[row[e]] -= np.float64(value[e]) ** -power / total
        elif value[e] == 0.0:
            score[row[e]] -= 1.0 / zeros


@kernel
def probe_cells(column: F32, pair: I64, at: F32, near: int, power: float, score: F64) -> None:
    """Score rows by probes: 1 for the row nearest to each (L1, two columns), and -1 shared by the rows like that one.

    The `near` rows that are nearest to it share by distance^-power; where some lie at distance 0, those alone, evenly.

    column: (d, n) float32, the embeddings by column; pair: (p, 2) int64, columns of each probe
    at: (p, 2) float32, where each probe lies; score: (n,) float64, in place
    """
    n = column.shape[1]
    distance, value, room = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    row = np.empty(n, dtype=np.int64)
    for p in range(pair.shape[0]):
        left, right = column[pair[p, 0]], column[pair[p, 1]]
        _distances(left, right, at[p, 0], at[p, 1], distance)
        best = _nearest(distance)
        score[best] += 1.0
        _distances(left, right, left[best], right[best], distance)
        _penalise(distance, best, near, power, score, row, value, room)
