"""The linear-Gaussian predictive family: Bayesian linear regression of one view on another, in closed form."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from curate_kernels.arrays import F64
from curate_kernels.vinfo import student_log2, student_loo_log2

_JITTER = 1e-6  # of the mean target variance: the prior scatter psi


class LinearGaussian:
    """Posterior of y = W'[1, x] + noise, from sums alone; prior W0 = 0, ridge lambda on all but the intercept.

    n rows; xx: (p+1, p+1) Σ[1,x][1,x]ᵀ; xy: (p+1, d); yy: (d, d). Bits are log2 densities of y.
    """

    def __init__(self, n: float, xx: F64, xy: F64, yy: F64, ridge: float) -> None:
        self.n = n
        penalty = np.full(xx.shape[0], ridge)
        penalty[0] = 0.0
        # Inverse Cholesky factors, so that every per-sample term is one matrix product.
        self._whiten_x = _inverse_factor(xx + np.diag(penalty))
        self._weight: F64 = self._whiten_x.T @ (self._whiten_x @ xy)
        psi = _JITTER * max(float(np.trace(yy)), n) / yy.shape[0]
        scatter = yy - xy.T @ self._weight + psi * np.eye(yy.shape[0])
        self._whiten_y = _inverse_factor(scatter)
        self._logdet = -2.0 * float(np.log(np.diag(self._whiten_y)).sum())

    def _terms(self, x: F64, y: F64) -> tuple[F64, F64]:
        """Return leverage x'Vx and residual quadratic form r'Psi^-1 r; x: (m, p), y: (m, d)."""
        design = np.concatenate([np.ones((x.shape[0], 1)), x], axis=1)
        half = design @ self._whiten_x.T
        white = (y - design @ self._weight) @ self._whiten_y.T
        return np.einsum("ij,ij->i", half, half), np.einsum("ij,ij->i", white, white)

    def predictive(self, x: F64, y: F64) -> F64:
        """Return log2 q(y | x) of rows that the sums have not seen: Student-t, (m,) bits."""
        leverage, quad = self._terms(x, y)
        out = np.empty(x.shape[0])
        student_log2(leverage, quad, self.n, y.shape[1], self._logdet, out)
        return out

    def leave_one_out(self, x: F64, y: F64) -> F64:
        """Return log2 q(y | x) of rows that the sums have seen, each under all the others; exact, (m,) bits."""
        leverage, quad = self._terms(x, y)
        out = np.empty(x.shape[0])
        student_loo_log2(leverage, quad, self.n, y.shape[1], self._logdet, out)
        return out


def _inverse_factor(matrix: F64) -> F64:
    """Return L^-1 of matrix = L L', lower triangular."""
    factor = cholesky((matrix + matrix.T) / 2, lower=True)
    inverse: F64 = solve_triangular(factor, np.eye(matrix.shape[0]), lower=True)
    return inverse
