"""Graph cut: picks like all candidates and unlike each other (Iyer et al. 2021, arXiv:2006.15412).

f(S) = λ Σ_{i in V, j in S} s_ij - Σ_{i, j in S} s_ij with s = max(0, cosine); monotone for λ ≥ 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_selectors.coverage.blocks import TAKEN, largest
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.types import Candidates, Selection

_BLOCK = 512
_TILE = 2048


@dataclass(frozen=True, slots=True)
class GraphCut:
    """Greedy maximisation of the graph cut, evaluated lazily; no matrix of all pairs is held.

    weight: λ, how much likeness to all candidates counts against likeness among picks, 2 or more
    """

    weight: float = 2.0

    def __post_init__(self) -> None:
        if self.weight < 2:
            raise SelectorError(f"weight is {self.weight}; below 2 more picks can be worse than fewer")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows, greedy order; gain is what each adds to f. Memory O(n) and tiles of 16 MiB."""
        del seed  # nothing is drawn
        check_count(data, count)
        x = need_rows(data, "graph-cut")
        bound = np.maximum(self.weight * likeness(x) - np.einsum("ij,ij->i", x, x), 0.0)
        index, gain = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float64)
        known = np.zeros(data.n, dtype=np.int64)  # picks that each bound accounts for
        done = 0
        while done < count:
            block, outside, outside_row = largest(bound, _BLOCK)
            _renew(x, block, index[:done], known, bound)
            value = bound[block]
            gram = 2 * np.maximum(x[block] @ x[block].T, 0)
            while done < count:
                best = int(value.argmax())
                row = int(block[best])
                if value[best] < max(outside, 0.0) or (value[best] == outside and row > outside_row):
                    break
                index[done], gain[done] = row, value[best]
                value = np.where(value < 0, TAKEN, np.maximum(value - gram[best], 0.0))
                value[best] = TAKEN
                done += 1
            bound[block], known[block] = value, done
        return in_order(index, gain.astype(np.float32))


def likeness(x: F32) -> F64:
    """Return the sum over all rows of max(0, cosine) with each row, (n,) float64; each pair is multiplied once."""
    total = np.zeros(x.shape[0], dtype=np.float64)
    for low in range(0, x.shape[0], _TILE):
        for base in range(low, x.shape[0], _TILE):
            product = x[low : low + _TILE] @ x[base : base + _TILE].T
            np.maximum(product, 0, out=product)
            total[low : low + _TILE] += product.sum(axis=1)
            if base > low:
                total[base : base + _TILE] += product.sum(axis=0)
    return total


def _renew(x: F32, block: I64, picks: I64, known: I64, bound: F64) -> None:
    """Subtract from the bounds of a block what picks took that they do not account for."""
    oldest = int(known[block].min())
    fresh = picks[oldest:]
    for start in range(0, fresh.size, _TILE):
        part = fresh[start : start + _TILE]
        taken = 2 * np.maximum(x[block] @ x[part].T, 0).astype(np.float64)
        new = np.arange(oldest + start, oldest + start + part.size) >= known[block][:, None]
        bound[block] = np.maximum(bound[block] - np.where(new, taken, 0).sum(axis=1), 0.0)
