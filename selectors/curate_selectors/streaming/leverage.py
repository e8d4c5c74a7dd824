"""Sampling by online ridge leverage: Cohen, Musco and Pachocki, APPROX 2016, arXiv:1604.05448."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from curate_kernels.arrays import F32, F64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count
from curate_selectors.sampling import Reservoir
from curate_selectors.tiles import Tiled, row_tiles
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
        seen = _Leverages(self, count, seed)
        for _, rows in row_tiles(data, "ridge-leverage-online", _TILE):
            seen.take(rows)
        return seen.chosen(count)

    def begin(self, most: int | None, seed: int) -> Tiled:
        """Return the pass over rows that arrive."""
        return Tiled(_Leverages(self, most, seed), _TILE)


class _Leverages:
    """The sums of the rows so far, and those that were drawn."""

    def __init__(self, made: RidgeLeverageOnline, most: int | None, seed: int) -> None:
        self._ridge = made.ridge
        self._rng = np.random.default_rng(seed)
        self._kept = Reservoir(most)
        self._sums: F64 | None = None

    def take(self, rows: F32) -> None:
        if self._sums is None:
            self._sums = self._ridge * np.eye(rows.shape[1])
        weight = leverages(rows, self._sums)
        with np.errstate(divide="ignore"):  # a row of zeros
            log_weight = np.log(weight)
        self._kept.add(log_weight + self._rng.gumbel(size=weight.size), log_weight, weight.astype(np.float32))

    def chosen(self, count: int) -> Selection:
        return self._kept.chosen(count)


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
