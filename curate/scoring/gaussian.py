"""The linear-Gaussian predictive family: Bayesian linear regression of one view on another, in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy.linalg import cholesky, get_blas_funcs, solve_triangular

from curate.scoring.moments import PairMoments, principal_axes
from curate_kernels.arrays import F32, F64
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

    def leave_one_out(self, x: F32 | F64, y: F32 | F64, asked: F32 | F64 | None = None) -> F64:
        """Return log2 q(y | x) of rows that the sums have seen, each under all the others; exact, (m,) bits.

        asked: (m, d) other targets: log2 q(asked | x) of each, still without the row (x, y) itself. With h = x'Vx and
        r = y - W'x of the full posterior, its residual is asked - W'x + h/(1-h) r, its scatter Psi - r r'/(1-h).
        """
        out = np.empty(x.shape[0])
        if asked is None:
            leverage, quad = self._terms(x, y)
            student_loo_log2(leverage, quad, self.n, y.shape[1], self._logdet, out)
            return out
        off = x.astype(np.float64) - self._centre
        leverage = self._own + np.square(off @ self._whiten_x.T).sum(axis=1)
        rest = np.maximum(1.0 - leverage, 1e-9)
        fitted = self._target + off @ self._weight
        own = (y - fitted) @ self._whiten_y.T
        other = (asked - fitted) @ self._whiten_y.T + (leverage / rest)[:, None] * own
        left = np.maximum(rest - np.square(own).sum(axis=1), 1e-9)
        quad = np.square(other).sum(axis=1) + np.square((other * own).sum(axis=1)) / left
        student_log2(leverage / rest, quad, self.n - 1.0, y.shape[1], self._logdet, out)
        out -= 0.5 * np.log2(left / rest)
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
