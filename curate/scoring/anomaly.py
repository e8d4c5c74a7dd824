"""How unlike the rest a row is, and which negatives are hard: Mahalanobis distances and margins, from class sums.

Relative Mahalanobis distance: Ren et al. 2021 (arXiv 2106.09022, eq. 2). Rows inside the sums are judged by the sums
without them: means and scatter lose the row by rank-one downdates, so leave-one-out costs nothing.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, solve, solve_triangular

from curate.errors import UsageError
from curate.scoring.moments import ClassMoments, PairMoments
from curate_kernels.arrays import B1, F32, F64, I64, as_rows, unit_rows

ANOMALY_COLUMNS = ("background", "own", "nearest", "relative")
_SMALL = 1e-9


class AnomalyModel:
    """Mahalanobis distances to all rows and to each class, from class sums.

    shrinkage: share of each scatter that is replaced by its mean diagonal; that part stays as fitted when a row is
    taken out. With one class, `own` and `nearest` equal `background` up to the degrees of freedom.
    """

    def __init__(self, moments: ClassMoments, shrinkage: float = 0.1) -> None:
        self.count = moments.count.copy()
        self._n = float(moments.count.sum())
        if self._n < 1:
            raise UsageError("the class sums hold no row; add rows before asking how unlike them others are")
        if not 0.0 < shrinkage <= 1.0:
            raise UsageError(f"shrinkage is {shrinkage}; a share above 0 and up to 1 is needed to invert the scatter")
        self._kept = 1.0 - shrinkage
        held = moments.count[:, None]
        means = np.divide(moments.x, held, out=np.zeros_like(moments.x), where=held > 0)
        self._centre: F64 = moments.x.sum(axis=0) / self._n
        # A scatter that is only rounding noise is not blown up to unit scale.
        floor = 1e-12 * max(float(np.trace(moments.xx)) / moments.xx.shape[0], 1.0)
        self._total = _whitener(moments.xx - self._n * np.outer(self._centre, self._centre), shrinkage, floor)
        self._within = _whitener(moments.xx - moments.x.T @ means, shrinkage, floor)
        self._means: F64 = (means - self._centre) @ self._within.T

    def score(self, x: F32, label: I64, seen: B1) -> dict[str, F32]:
        """Return ANOMALY_COLUMNS, each (m,) float32: squared distances in units of variance, higher is stranger.

        x: (m, p) float32; label: (m,) int64; seen: (m,) bool, rows in the sums (exact leave-one-out) or not
        background: to all rows; own: to the row's class; nearest: to the nearest class, whatever the label;
        relative: nearest - background, above 0 where the classes explain a row worse than no class does.
        A row without others of its class has the background's distance as its own.
        """
        centred = as_rows(x).astype(np.float64) - self._centre
        background = self._background(centred, seen)
        dist = self._class_distances(centred @ self._within.T, label, seen)
        own = dist[np.arange(label.size), label]
        own = np.where(np.isfinite(own), own, background)
        nearest = dist.min(axis=1, initial=np.inf)
        nearest = np.where(np.isfinite(nearest), nearest, background)
        values = (background, own, nearest, nearest - background)
        return {name: value.astype(np.float32) for name, value in zip(ANOMALY_COLUMNS, values, strict=True)}

    def _background(self, centred: F64, seen: B1) -> F64:
        white = centred @ self._total.T
        dist = (white * white).sum(axis=1)
        others = max(self._n - 1.0, 1.0)
        grown = self._n / others  # the centre without the row is this much farther away
        without = grown * grown * dist / np.maximum(1.0 - self._kept * grown * dist, _SMALL)
        scaled: F64 = np.where(seen, max(self._n - 2.0, 1.0) * without, others * dist)
        return scaled

    def _class_distances(self, z: F64, label: I64, seen: B1) -> F64:
        """Return distances to each class, (m, K); infinite where no other row of a class is known."""
        classes = self.count.size
        rows, norm = np.arange(label.size), (z * z).sum(axis=1)
        cross, gram = z @ self._means.T, self._means @ self._means.T
        dist = norm[:, None] - 2.0 * cross + np.diag(gram)
        along = norm[:, None] - cross - cross[rows, label][:, None] + gram[label]
        own_sq = dist[rows, label].copy()
        count = self.count[label]
        grown = np.where(seen, count / np.maximum(count - 1.0, 1.0), 1.0)
        dist[rows, label] *= grown * grown
        along[rows, label] *= grown
        removed = np.where(seen, self._kept * grown, 0.0)
        dist += (removed / np.maximum(1.0 - removed * own_sq, _SMALL))[:, None] * along * along
        dist *= np.maximum(self._n - seen - classes, 1.0)[:, None]
        known = np.tile(self.count > 0, (label.size, 1))
        known[rows, label] = count - seen > 0
        return np.where(known, np.maximum(dist, 0.0), np.inf)


def _whitener(scatter: F64, shrinkage: float, floor: float) -> F64:
    """Return W with W'W the inverse of the shrunk scatter; lower triangular (p, p)."""
    p = scatter.shape[0]
    diagonal = max(float(np.trace(scatter)) / p, floor)
    shrunk = (1.0 - shrinkage) * scatter + shrinkage * diagonal * np.eye(p)
    factor = cholesky((shrunk + shrunk.T) / 2, lower=True)
    inverse: F64 = solve_triangular(factor, np.eye(p), lower=True)
    return inverse


def residual_anomaly(moments: PairMoments, x: F32, y: F32, seen: B1, ridge: float = 1e-3) -> F32:
    """Return how far y is from what x predicts, a squared Mahalanobis distance, (m,) float32: higher is stranger.

    Linear regression of y on [1, x], penalty `ridge` times the mean diagonal of the centred Σxxᵀ (and of the residual
    scatter, so that it inverts). With leverage h and q = r'S⁻¹r, a row that the sums hold is judged without itself:
    (n - 1) q / ((1 - h)(1 - h - q)); any other row: n q. Both are r'Ŝ⁻¹r with the maximum-likelihood covariance.
    x: (m, p) float32; y: (m, d) float32; seen: (m,) bool
    """
    if moments.n < 1:
        raise UsageError("the sums hold no pair; add pairs before asking how unlike them others are")
    n, mean_x, mean_y = moments.n, moments.x / moments.n, moments.y / moments.n
    xx = moments.xx - n * np.outer(mean_x, mean_x)
    xy = moments.xy - n * np.outer(mean_x, mean_y)
    yy = moments.yy - n * np.outer(mean_y, mean_y)
    tiny = np.finfo(np.float32).tiny
    gram = xx + max(ridge * float(np.trace(xx)) / xx.shape[0], tiny) * np.eye(xx.shape[0])
    weight = solve(gram, xy, assume_a="pos")
    scatter = yy - xy.T @ weight
    scatter += max(ridge * float(np.trace(yy)) / yy.shape[0], tiny) * np.eye(yy.shape[0])
    left, right = as_rows(x, "x") - mean_x, as_rows(y, "y") - mean_y
    leverage = 1.0 / n + (left * solve(gram, left.T, assume_a="pos").T).sum(axis=1)
    residual = right - left @ weight
    quad = (residual * solve(scatter, residual.T, assume_a="pos").T).sum(axis=1)
    rest = np.maximum(1.0 - leverage, _SMALL)
    without = (n - 1.0) * quad / (rest * np.maximum(rest - quad, _SMALL))
    distance: F32 = np.where(seen, without, n * quad).astype(np.float32)
    return distance


def class_prototypes(moments: ClassMoments) -> F32:
    """Return each class's mean direction, (K, p) float32 unit rows; a class without rows has a zero row."""
    return unit_rows(moments.x.astype(np.float32))


def distance_to_set(x: F32, positives: F32, k: int = 1) -> F32:
    """Return each row's mean cosine distance to its k nearest of a positive set, (m,) float32 in [0, 2].

    Higher is farther from what is wanted. x: (m, p) float32; positives: (q, p) float32, rows or class prototypes
    """
    rows, wanted = unit_rows(as_rows(x)), unit_rows(as_rows(positives, "positives"))
    if not 1 <= k <= wanted.shape[0]:
        raise UsageError(f"k is {k}; 1 to {wanted.shape[0]} is allowed, the number of positives")
    out = np.empty(rows.shape[0], dtype=np.float32)
    for start in range(0, rows.shape[0], 4096):
        sim = rows[start : start + 4096] @ wanted.T
        out[start : start + 4096] = 1.0 - np.partition(sim, wanted.shape[0] - k, axis=1)[:, -k:].mean(axis=1)
    return np.clip(out, 0.0, 2.0)


def negative_margin(x: F32, label: I64, prototypes: F32) -> F32:
    """Return sim(x, nearest prototype of another class) - sim(x, own prototype), (m,) float32 in [-2, 2].

    Higher means a harder negative: above 0 the row looks more like another class than like its own.
    x: (m, p) float32; label: (m,) int64 in 0 … K-1; prototypes: (K, p) float32, K ≥ 2
    """
    if prototypes.shape[0] < 2:
        raise UsageError(f"{prototypes.shape[0]} prototypes; at least 2 classes are needed for a margin between them")
    sim = unit_rows(as_rows(x)) @ unit_rows(as_rows(prototypes, "prototypes")).T
    rows = np.arange(label.size)
    own = sim[rows, label].copy()
    sim[rows, label] = -np.inf
    margin: F32 = (sim.max(axis=1) - own).astype(np.float32)
    return margin
