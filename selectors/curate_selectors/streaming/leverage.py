"""Sampling by online ridge leverage: Cohen, Musco and Pachocki, APPROX 2016, arXiv:1604.05448."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from curate_kernels.arrays import F32, F64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count
from curate_selectors.sampling import Reservoir
from curate_selectors.tiles import row_tiles
from curate_selectors.types import Candidates, Selection

_TILE = 256  # as many rows share one factorisation of the (d, d) sums


@dataclass(frozen=True, slots=True)
class RidgeLeverageOnline:
    """Draws in proportion to min(1, f'(σ²I + Σ f_j f_j')⁻¹f), the sum over all rows before (their section 3).

    They keep each row with a chance of c times this, and so a random number of rows; here exactly `count` are drawn in
    proportion to it. The kept rows' f f' / probability add up to Σ f f' of all rows, in expectation.

    ridge: σ², in rows
    """

    ridge: float = 1.0

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise SelectorError(f"ridge is {self.ridge}; it must be above 0")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` draws; gain is the leverage. One pass; peak memory O(count + d²)."""
        check_count(data, count)
        rng = np.random.default_rng(seed)
        kept = Reservoir(count)
        sums: F64 | None = None
        for _, rows in row_tiles(data, "ridge-leverage-online", _TILE):
            sums = self.ridge * np.eye(rows.shape[1]) if sums is None else sums
            weight = leverages(rows, sums)
            with np.errstate(divide="ignore"):  # a row of zeros
                log_weight = np.log(weight)
            kept.add(log_weight + rng.gumbel(size=weight.size), log_weight, weight.astype(np.float32))
        return kept.chosen()


def leverages(rows: F32, sums: F64) -> F64:
    """Return the online ridge leverage (b,) of each row given the sums and the rows before it; the sums grow.

    The Cholesky factor L of I + F A⁻¹F' has L_ii² = 1 + f_i'(A + Σ_{j<i} f_j f_j')⁻¹f_i: a ratio of determinants.

    rows: (b, d) float32; sums: (d, d) float64, A, updated in place to A + F'F
    """
    x = rows.astype(np.float64)
    half = solve_triangular(cholesky(sums, lower=True), x.T, lower=True)
    gram = half.T @ half
    gram.flat[:: gram.shape[0] + 1] += 1.0
    sums += x.T @ x
    found: F64 = np.clip(np.square(np.diagonal(cholesky(gram, lower=True))) - 1.0, 0.0, 1.0)
    return found
