"""V-information of a label given the image: linear discriminant classes with a shared covariance."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from curate.recipe import ScoreTable
from curate.scoring.moments import ClassMoments, principal_axes
from curate_kernels.arrays import B1, F32, F64, I64
from curate_kernels.vinfo import lda_bits

LABEL_COLUMNS = ("s0_label", "s1_label", "pvi_label")


class LabelModel:
    """Scores of (image, label) rows under the LDA family, from class sums alone."""

    def __init__(self, moments: ClassMoments, table: ScoreTable) -> None:
        n = float(moments.count.sum())
        self.count = moments.count.copy()
        self._shrink = table.shrinkage
        means = np.divide(
            moments.x, moments.count[:, None], out=np.zeros_like(moments.x), where=moments.count[:, None] > 0
        )
        centre = moments.x.sum(axis=0) / n
        within = moments.xx - moments.x.T @ means
        dims = max(1, min(table.label_dims, moments.xx.shape[0], int(n) // 4))
        axes = principal_axes(moments.xx / n - np.outer(centre, centre), dims)
        scatter = axes.T @ within @ axes
        floor = max(float(np.trace(scatter)) / dims, 1e-12)
        scatter = (1 - self._shrink) * scatter + self._shrink * floor * np.eye(dims)
        factor = cholesky((scatter + scatter.T) / 2, lower=True)
        self._centre = centre
        self._whiten: F64 = solve_triangular(factor, axes.T, lower=True).T
        self._means: F64 = (means - centre) @ self._whiten
        self._gram: F64 = self._means @ self._means.T

    def project(self, x: F32) -> F64:
        """Return rows of x (m, p) in the whitened space, (m, dims)."""
        projected: F64 = (x.astype(np.float64) - self._centre) @ self._whiten
        return projected

    def score(self, z: F64, label: I64, seen: B1) -> dict[str, F32]:
        """Return LABEL_COLUMNS in bits for projected rows z with label (m,) of a class known to the sums.

        seen: (m,) bool, rows that are in the sums (exact leave-one-out) or not (plain predictive).
        """
        s0, s1 = np.empty(z.shape[0]), np.empty(z.shape[0])
        lda_bits(
            z @ self._means.T,
            (z * z).sum(axis=1),
            self._gram,
            self.count,
            label,
            seen,
            self._shrink,
            s0,
            s1,
        )
        columns = {"s0_label": s0, "s1_label": s1, "pvi_label": s0 - s1}
        return {name: value.astype(np.float32) for name, value in columns.items()}
