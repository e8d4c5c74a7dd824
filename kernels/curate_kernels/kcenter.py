"""One step of farthest-point selection inside a block of candidates with exact distances."""

from __future__ import annotations

from curate_kernels._jit import kernel
from curate_kernels.arrays import F32, I64


@kernel
def pick_farthest(
    dist: F32, gram: F32, index: I64, outside: float, outside_index: int, picked: I64, radius: F32
) -> int:
    """Pick greedily inside a block while its farthest candidate surely comes before everything outside.

    dist: (b,) float32, exact distance to the nearest centre, updated in place as candidates become centres
    gram: (b, b) float32, cosine between candidates; index: (b,) int64, their rows (ties go to the lowest)
    outside: upper bound of the distance of every row that is not in the block, -1 if there is none
    outside_index: lowest row outside whose upper bound equals `outside`
    picked: (room,) int64, out: positions inside the block; radius: (room,) float32, out: distance when picked
    Returns how many were picked.
    """
    count = 0
    while count < picked.shape[0]:
        best = -1
        for i in range(dist.shape[0]):
            if dist[i] < 0.0:
                continue
            if best < 0 or dist[i] > dist[best] or (dist[i] == dist[best] and index[i] < index[best]):
                best = i
        if best < 0 or dist[best] < outside or (dist[best] == outside and index[best] > outside_index):
            break
        picked[count] = best
        radius[count] = dist[best]
        count += 1
        for i in range(dist.shape[0]):
            if dist[i] >= 0.0:
                dist[i] = min(dist[i], max(1.0 - gram[i, best], 0.0))
        dist[best] = -1.0
    return count
