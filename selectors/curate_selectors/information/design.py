"""The state of a linear design: what each candidate would add, by rank-one updates."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from curate_kernels.arrays import F32, F64

_TILE = 4096
_LONGEST = 1024  # rank-one updates in float32 between two exact computations
_FALL = 0.25  # of the largest v: what is left of it then would be mostly rounding after some more


class Design:
    """A = λI + Σ f f' over the rows taken, and for each candidate h = x'A⁻¹x and v = x'A⁻¹MA⁻¹x.

    Taking row x changes h and v of all candidates by two products with the candidates: O(nd) per row, O(n + d²) memory.

    x: (n, d) float32; ridge: λ > 0; moment: (d, d) float64, M
    """

    def __init__(self, x: F32, ridge: float, moment: F64) -> None:
        self._x = x
        self._moment = moment
        self._sums = ridge * np.eye(x.shape[1])
        self._inverse: F64 = np.zeros(0)
        self._since = 0
        self.h: F64 = np.empty(x.shape[0])
        self.v: F64 = np.empty(x.shape[0])
        self._bar = 0.0
        self._refresh()

    def take(self, row: int) -> None:
        """Put candidate `row` into the sums."""
        x = self._x[row].astype(np.float64)
        self._sums += np.outer(x, x)
        self._since += 1
        if self._since == _LONGEST or self.v.max() < self._bar:
            self._refresh()
            return
        g = self._inverse @ x
        s = 1.0 + float(x @ g)
        xg = self._products(g)
        self.h -= xg * xg / s
        mg = self._moment @ g
        self.v += (xg * float(g @ mg) / s - 2.0 * self._products(self._inverse @ mg)) * xg / s
        self._inverse -= np.outer(g, g) / s

    def _products(self, direction: F64) -> F64:
        """Return the candidates' products with a direction (d,), in float32 as they are: no copy of them."""
        found: F64 = (self._x @ direction.astype(np.float32)).astype(np.float64)
        return found

    def _refresh(self) -> None:
        self._since = 0
        self._inverse = cho_solve(cho_factor(self._sums), np.eye(self._sums.shape[0]))
        middle = self._inverse @ self._moment @ self._inverse
        for start in range(0, self._x.shape[0], _TILE):
            tile = self._x[start : start + _TILE].astype(np.float64)
            part = slice(start, start + tile.shape[0])
            np.einsum("ij,ij->i", tile @ self._inverse, tile, out=self.h[part])
            np.einsum("ij,ij->i", tile @ middle, tile, out=self.v[part])
        self._bar = _FALL * float(self.v.max())
