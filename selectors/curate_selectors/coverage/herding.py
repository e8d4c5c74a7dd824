"""Herding: picks whose running mean stays close to the mean of all (Welling 2009, doi:10.1145/1553374.1553517)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class Herding:
    """Pick t is the free row that brings the mean of the picks nearest to the mean of all: argmin ‖μ - (S + x) / t‖."""

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows in order; gain is minus that distance. Time O(count n d), memory O(n)."""
        del seed  # nothing is drawn
        check_count(data, count)
        x = need_rows(data, "herding")
        index, gain = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
        square = np.einsum("ij,ij->i", x, x)
        mean = x.mean(axis=0, dtype=np.float64) if data.n else np.zeros(x.shape[1])
        total = np.zeros(x.shape[1], dtype=np.float64)
        for t in range(count):
            want = (t + 1) * mean - total  # ‖want - x‖² is least where x·want - ‖x‖²/2 is largest
            close = x @ want.astype(np.float32) - square / 2
            close[index[:t]] = -np.inf
            index[t] = int(close.argmax())
            total += x[index[t]]
            gain[t] = -np.linalg.norm(mean - total / (t + 1))
        return in_order(index, gain)
