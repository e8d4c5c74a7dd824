"""Running nearest neighbours: blocks of similarities pushed into sorted rows of the best k."""

from __future__ import annotations

from curate_kernels._jit import kernel
from curate_kernels.arrays import B1, F32, I64


@kernel
def push_topk(sim: F32, alive: B1, base: int, best_sim: F32, best_row: I64) -> None:
    """Merge a block of similarities into each row's k best, in place.

    sim: (b, m) float32, similarity of b queries to rows base … base+m-1
    alive: (m,) bool, rows that may be returned
    best_sim: (b, k) float32, descending, -inf where empty
    best_row: (b, k) int64, -1 where empty
    Ties keep the row that was pushed first, so pushing blocks in ascending order gives ties to the lowest row.
    """
    k = best_sim.shape[1]
    for i in range(sim.shape[0]):
        worst = best_sim[i, k - 1]
        for j in range(sim.shape[1]):
            value = sim[i, j]
            if value > worst and alive[j]:
                at = k - 1
                while at > 0 and best_sim[i, at - 1] < value:
                    best_sim[i, at] = best_sim[i, at - 1]
                    best_row[i, at] = best_row[i, at - 1]
                    at -= 1
                best_sim[i, at] = value
                best_row[i, at] = base + j
                worst = best_sim[i, k - 1]
