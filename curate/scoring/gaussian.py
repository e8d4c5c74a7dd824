"""The linear-Gaussian predictive family: Bayesian linear regression of one view on another, in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
from scipy.linalg import cholesky, get_blas_funcs, solve_triangular

from curate.scoring.moments import PairMoments, principal_axes
from curate_kernels.arrays import B1, F32, F64, I64
from curate_kernels.vinfo import student_log2, student_loo_log2

RIDGES = tuple(float(r) for r in np.logspace(-2, 4, 13))
_JITTER = 1e-6  # of the mean target variance: the prior scatter psi
_CHUNK = 2048  # rows at a time: what they need, 4 MB at 512 float32 components, stays in the cache
_SAMPLE = 4096  # rows that a ridge is chosen on: the mean of that many likelihoods is known to a few millibits


class LinearGaussian:
    """Posterior of y = W'[1, x] + noise, from sums alone; prior W0 = 0, ridge lambda on all but the intercept.

    n rows; xx: (p+1, p+1) Σ[1,x][1,x]ᵀ; xy: (p+1, d); yy: (d, d). Bits are log2 densities of y. Rows that come as
    float32 (both views) take their products in float32, at half the time and under 5e-4 bits away; any others take
    them in float64. The sums, their factors and the densities are float64 either way.
    """

    def __init__(self, n: float, xx: F64, xy: F64, yy: F64, ridge: float) -> None:
        self.n = n
        penalty = np.full(xx.shape[0], ridge)
        penalty[0] = 0.0
        # Inverse Cholesky factors, so that every per-sample term is one matrix product.
        whiten = _inverse_factor(xx + np.diag(penalty))
        weight = whiten.T @ (whiten @ xy)
        psi = _JITTER * max(float(np.trace(yy)), n) / yy.shape[0]
        scatter = yy - xy.T @ weight + psi * np.eye(yy.shape[0])
        self._whiten_y = _inverse_factor(scatter)
        self._logdet = -2.0 * float(np.log(np.diag(self._whiten_y)).sum())
        # The intercept bears no penalty, so it leaves both views centred, and 1/n of every leverage is its own.
        self._own = 1.0 / float(xx[0, 0])
        self._centre: F64 = xx[0, 1:] * self._own
        self._target: F64 = xy[0] * self._own
        self._whiten_x, self._weight = whiten[1:, 1:], weight[1:]

    @classmethod
    def fit(cls, moments: PairMoments, ridge: float) -> LinearGaussian:
        """Return the family of y given x from the sums of both; moments: of n ≥ 1 pairs."""
        n = np.array([[moments.n]])
        xx = np.block([[n, moments.x[None]], [moments.x[:, None], moments.xx]])
        return cls(moments.n, xx, np.concatenate([moments.y[None], moments.xy]), moments.yy, ridge)

    @classmethod
    def null(cls, moments: PairMoments) -> LinearGaussian:
        """Return the family of y given nothing; its rows x are (m, 0)."""
        return cls(moments.n, np.array([[moments.n]]), moments.y[None], moments.yy, 0.0)

    def _terms(self, x: F32 | F64, y: F32 | F64) -> tuple[F64, F64]:
        """Return leverage x'Vx and residual quadratic form r'Psi^-1 r; x: (m, p), y: (m, d)."""
        dtype: Any = np.float32 if x.dtype == y.dtype == np.float32 else np.float64
        centre, target = self._centre.astype(dtype), self._target.astype(dtype)
        weight, whiten_y = self._weight.astype(dtype), self._whiten_y.T.astype(dtype)
        whiten_x = np.asfortranarray(self._whiten_x, dtype=dtype)
        triangular = get_blas_funcs("trmm", (whiten_x,))
        leverage, quad = np.full(x.shape[0], self._own), np.empty(x.shape[0])
        for low in range(0, x.shape[0], _CHUNK):
            rows = slice(low, low + _CHUNK)
            residual = y[rows] - target
            if centre.size:
                off = np.ascontiguousarray(x[rows] - centre)
                residual -= off @ weight
                half = triangular(1.0, whiten_x, off.T, lower=True, overwrite_b=True).T
                leverage[rows] += np.einsum("ij,ij->i", half, half)
            white = residual @ whiten_y
            quad[rows] = np.einsum("ij,ij->i", white, white)
        return leverage, quad

    def predictive(self, x: F32 | F64, y: F32 | F64) -> F64:
        """Return log2 q(y | x) of rows that the sums have not seen: Student-t, (m,) bits."""
        leverage, quad = self._terms(x, y)
        out = np.empty(x.shape[0])
        student_log2(leverage, quad, self.n, y.shape[1], self._logdet, out)
        return out

    def leave_one_out(self, x: F32 | F64, y: F32 | F64) -> F64:
        """Return log2 q(y | x) of rows that the sums have seen, each under all the others; exact, (m,) bits."""
        leverage, quad = self._terms(x, y)
        out = np.empty(x.shape[0])
        student_loo_log2(leverage, quad, self.n, y.shape[1], self._logdet, out)
        return out

    def crossed(self, x: F64, y: F64, row: I64, asked: I64, seen: B1) -> F64:
        """Return log2 q(y[asked] | x[row]), (m,) bits, of wrong pairs: each under all rows but those two; exact.

        x: (n, p), y: (n, d); row, asked: (m,) int64, row[i] != asked[i]; seen: (n,) bool, rows that the sums have seen
        With H = AVA' and R the residuals of the two rows A: W loses VA'(I-H)^-1 R, Psi loses R'(I-H)^-1 R.
        """
        off = x - self._centre
        half, fitted = off @ self._whiten_x.T, self._target + off @ self._weight
        white = (y - fitted) @ self._whiten_y.T
        out = np.empty(row.size)
        for first, second in product((True, False), repeat=2):
            at = np.flatnonzero((seen[row] == first) & (seen[asked] == second))
            pair = np.stack([row[at], asked[at]], axis=1)
            left_out = np.array([first, second], dtype=np.float64)
            inner = self._own + half[pair] @ half[pair].transpose(0, 2, 1)
            rest = np.eye(2) - inner * np.outer(left_out, left_out)
            residual = white[pair] * left_out[:, None]
            share = np.linalg.solve(rest, (inner[:, 0] * left_out)[:, :, None])[:, :, 0]
            leverage = inner[:, 0, 0] + (share * inner[:, 0] * left_out).sum(axis=1)
            error = (y[asked[at]] - fitted[row[at]]) @ self._whiten_y.T + np.einsum("ij,ijk->ik", share, residual)
            scatter = rest - residual @ residual.transpose(0, 2, 1)
            along = np.einsum("ijk,ik->ij", residual, error)
            quad = np.square(error).sum(axis=1)
            quad += (along * np.linalg.solve(scatter, along[:, :, None])[:, :, 0]).sum(axis=1)
            value = np.empty(at.size)
            student_log2(leverage, quad, self.n - left_out.sum(), y.shape[1], self._logdet, value)
            out[at] = value - 0.5 * np.log2(np.linalg.det(scatter) / np.linalg.det(rest))
        return out


def pair_sums(x: F32, y: F32) -> PairMoments:
    """Return the float64 sums over the pairs of rows of x (n, p) and y (n, d), a few thousand rows at a time."""
    moments = PairMoments.zeros(x.shape[1], y.shape[1])
    for low in range(0, x.shape[0], 2 * _CHUNK):
        moments.add(x[low : low + 2 * _CHUNK], y[low : low + 2 * _CHUNK])
    return moments


def best_ridge(moments: PairMoments, x: F32 | F64, y: F32 | F64, ridges: Iterable[float] = RIDGES) -> float:
    """Return the ridge with the largest mean leave-one-out likelihood of y given x; the smallest of equals.

    x: (m, p), y: (m, d), rows that are in `moments`; of more than 4,096 rows evenly spaced ones are asked.
    """
    step = -(-x.shape[0] // _SAMPLE) or 1
    left, right = x[::step], y[::step]

    def likelihood(ridge: float) -> float:
        return float(LinearGaussian.fit(moments, ridge).leave_one_out(left, right).mean()) if left.size else 0.0

    return max(sorted(ridges), key=likelihood)


def principal_components(x: F32, dims: int) -> F32:
    """Return the first `dims` principal components of x (n, p), (n, dims) float32, of mean squared norm 1 together."""
    moments = pair_sums(x, x[:, :0])
    mean = moments.x / moments.n
    covariance = moments.xx / moments.n - np.outer(mean, mean)
    axes = principal_axes(covariance, dims)
    # Rows that do not vary stay at rounding noise: they are not blown up to unit scale.
    floor = 1e-6 * max(float(np.trace(moments.xx)) / moments.n, 1e-12)
    scale = max(float((axes * (covariance @ axes)).sum()), floor) ** 0.5
    components: F32 = (x - mean.astype(np.float32)) @ (axes / scale).astype(np.float32)
    return components


def _inverse_factor(matrix: F64) -> F64:
    """Return L^-1 of matrix = L L', lower triangular."""
    factor = cholesky((matrix + matrix.T) / 2, lower=True)
    inverse: F64 = solve_triangular(factor, np.eye(matrix.shape[0]), lower=True)
    return inverse
