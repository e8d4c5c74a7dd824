"""VAS-D: variance alignment without a target set, Wang et al., Variance Alignment Score, 2024, arXiv:2402.02055."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.types import Candidates, Selection

_TILE = 4096


@dataclass(frozen=True, slots=True)
class VasD:
    """Again and again the survivors with the lowest f'Σf are dropped, Σ being the survivors' own second moments.

    Rows are ranked by when they would be dropped, down to the last one, so that any prefix is what is left of it.

    drop: share of the survivors dropped in a round
    """

    drop: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.drop < 1:
            raise SelectorError(f"drop is {self.drop}; it must lie between 0 and 1")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return the `count` last survivors; gain is f'Σf when dropped. Time O(n d² / drop), memory O(n + d²)."""
        del seed  # nothing is drawn
        check_count(data, count)
        x = need_rows(data, "vas-d")
        alive: I64 = np.arange(data.n, dtype=np.int64)
        ranked: list[tuple[I64, F64]] = []
        gram = _gram(x, alive)
        while alive.size:
            score = _alignment(x, alive, gram / alive.size)
            order = np.argsort(-score, kind="stable")  # of equals the last row goes first
            keep = min(int(alive.size * (1.0 - self.drop)), alive.size - 1)
            ranked.append((alive[order[keep:]], score[order[keep:]]))
            alive = np.sort(alive[order[:keep]])
            gram -= _gram(x, ranked[-1][0])
        parts = [(np.zeros(0, dtype=np.int64), np.zeros(0)), *reversed(ranked)]
        index, gain = (np.concatenate([part[i] for part in parts])[:count] for i in range(2))
        return in_order(index, gain.astype(np.float32))


def _gram(x: F32, rows: I64) -> F64:
    gram = np.zeros((x.shape[1], x.shape[1]))
    for start in range(0, rows.size, _TILE):
        tile = x[rows[start : start + _TILE]].astype(np.float64)
        gram += tile.T @ tile
    return gram


def _alignment(x: F32, rows: I64, moment: F64) -> F64:
    found = np.empty(rows.size)
    for start in range(0, rows.size, _TILE):
        tile = x[rows[start : start + _TILE]].astype(np.float64)
        found[start : start + _TILE] = np.einsum("ij,ij->i", tile @ moment, tile)
    return found
