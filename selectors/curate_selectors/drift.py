"""Gains that do not age: what was measured against few kept samples, as it would be against all of them.

A k-nearest-neighbour distance shrinks as the set grows that it is measured against (for a stationary source like
n^(-1/d), d its intrinsic dimension), so a gain frozen at arrival favours the early. A sample of the kept rows is
measured anew against all others; the ratio of new to old gains, by the size of the set at arrival, corrects every row.
The same rows are compared with themselves, so a source that grows redundant is not taken for drift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64, I64

_BINS = 32
_LEAST = 64  # rows in a bin


@dataclass(frozen=True, slots=True)
class Drift:
    """log of (gain now / gain at arrival), by log(1 + size of the kept set at arrival); linear between knots."""

    log_size: F64
    log_ratio: F64

    @classmethod
    def fit(cls, size: I64, gain: F32, now: F32) -> Drift:
        """Return the curve from rows measured twice.

        size: (m,) int64, kept rows when `gain` (m,) was measured; now: (m,) gain against all other kept rows
        """
        order = np.argsort(size, kind="stable")
        knots = []
        for part in np.array_split(order, max(1, min(_BINS, size.size // _LEAST))):
            old, new = (values[part].astype(np.float64).mean() if part.size else 0.0 for values in (gain, now))
            if old > 0 and new > 0:
                knots.append((float(np.log1p(size[part]).mean()), float(np.log(new / old))))
        if not knots:
            knots = [(0.0, 0.0)]
        log_size, log_ratio = np.array(knots).T
        return cls(log_size, log_ratio)

    def correct(self, size: I64, gain: F32) -> F32:
        """Return gains as they would be now; size: (n,) kept rows when `gain` (n,) was measured."""
        corrected: F32 = (gain * np.exp(np.interp(np.log1p(size), self.log_size, self.log_ratio))).astype(np.float32)
        return corrected


def sample_rows(n: int, most: int = 4096) -> I64:
    """Return at most `most` row numbers, evenly spread over 0 … n-1."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) if n else np.zeros(0, dtype=np.int64)
