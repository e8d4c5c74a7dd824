"""How hard each labelled row is for a linear probe that has not seen it: ridge regression to one-hot labels.

Everything follows from class sums: no training run, and leave-one-out without a refit. For a linear smoother with
leverage h_i the prediction of row i by all other rows is y_i - r_i / (1 - h_i), r_i the in-sample residual (PRESS,
Allen 1974). Scores: EL2N (Paul et al., NeurIPS 2021, arXiv 2107.07075, eq. 2), margin and entropy.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import brentq
from scipy.special import softmax

from curate.errors import UsageError
from curate.scoring.moments import ClassMoments
from curate_kernels.arrays import B1, F32, F64, I64

RIDGES = tuple(float(r) for r in np.logspace(-3, 2, 11))
DIFFICULTY_COLUMNS = ("el2n", "margin", "entropy", "confidence")

# Inverse temperatures: below, all classes are equally likely; above, only the first counts.
_COLDEST, _HOTTEST = 1e3, 1e-2


class RidgeProbe:
    """Linear regression of one-hot labels on features with an intercept, from class sums alone.

    ridge: penalty in units of the mean eigenvalue of the centred Σxxᵀ; the intercept is not penalised
    sharpness: inverse temperature that turns predictions into probabilities, softmax(sharpness · ŷ)
    """

    def __init__(self, moments: ClassMoments, ridge: float = 1.0, sharpness: float = 5.0) -> None:
        n = float(moments.count.sum())
        if n < 1:
            raise UsageError("the class sums hold no row; add labelled rows before fitting a probe")
        self.ridge, self.sharpness = ridge, sharpness
        self._n = n
        self._share: F64 = moments.count / n
        self._centre: F64 = moments.x.sum(axis=0) / n
        centred = moments.xx - n * np.outer(self._centre, self._centre)
        values, self._axes = eigh((centred + centred.T) / 2)
        self._values: F64 = np.maximum(values, 0.0)
        self._unit = max(float(self._values.mean()), 1e-12 * max(float(np.trace(moments.xx)), 1.0))
        self._target: F64 = self._axes.T @ (moments.x.T - np.outer(self._centre, moments.count))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self._share.size)

    def project(self, x: F32) -> F64:
        """Return rows of x (m, p) on the principal axes of the features, (m, p) float64."""
        projected: F64 = (x.astype(np.float64) - self._centre) @ self._axes
        return projected

    def choose(self, z: F64, label: I64) -> None:
        """Set ridge and sharpness by the leave-one-out squared error, then log-loss, of projected rows in the sums.

        z: (m, p); label: (m,) int64. Any sample of the rows will do; the largest ridge of equals is taken.
        """
        seen = np.ones(z.shape[0], dtype=bool)
        best = np.inf
        for ridge in sorted(RIDGES, reverse=True):
            error = self._predict(z, label, seen, ridge)
            error[np.arange(z.shape[0]), label] -= 1.0
            loss = float((error * error).sum())
            if loss < best:
                best, self.ridge = loss, ridge
        self.sharpness = _best_sharpness(self._predict(z, label, seen, self.ridge), label)

    def predict(self, z: F64, label: I64, seen: B1) -> F64:
        """Return the regression's predictions ŷ of projected rows, (m, K) float64; a row's sum is 1.

        label: (m,) int64; seen: (m,) bool, rows that are in the sums (exact leave-one-out) or not (plain prediction).
        """
        return self._predict(z, label, seen, self.ridge)

    def _predict(self, z: F64, label: I64, seen: B1, ridge: float) -> F64:
        weight = 1.0 / (self._values + ridge * self._unit)
        out: F64 = self._share + z @ (weight[:, None] * self._target)
        if self._n < 2:  # no other row: nothing is known of a row that was seen
            out[seen] = 1.0 / self.classes
            return out
        rest = np.maximum(1.0 - 1.0 / self._n - (z * z) @ weight, 1e-9)
        rows = np.flatnonzero(seen)
        # y - (y - ŷ) / (1 - h) = (ŷ - h y) / (1 - h)
        out[rows, label[rows]] -= 1.0 - rest[rows]
        out[rows] /= rest[rows, None]
        return out

    def leverage(self, z: F64, seen: B1) -> F64:
        """Return the posterior variance of projected rows' predictions in units of the noise, (m,) float64.

        With h = [1, x]'A⁻¹[1, x]: h for rows that the sums have not seen, h / (1 - h), that is without the row, else.
        """
        h = 1.0 / self._n + (z * z) @ (1.0 / (self._values + self.ridge * self._unit))
        without: F64 = np.where(seen, h / np.maximum(1.0 - h, 1e-9), h)
        return without

    def probabilities(self, z: F64, label: I64, seen: B1) -> F64:
        """Return class probabilities of projected rows, (m, K) float64; arguments as for `predict`."""
        p: F64 = softmax(self.sharpness * self.predict(z, label, seen), axis=1)
        return p


def _best_sharpness(score: F64, label: I64) -> float:
    """Return the inverse temperature of least log-loss; the loss is convex in it, so its slope has one root.

    Each class has a pseudo-count of one (Platt 1999), so that classes which nothing confuses give no certainty.
    """
    if label.size == 0:
        return 1.0
    n, k = score.shape
    own = (n * score[np.arange(n), label] + score.sum(axis=1)) / (n + k)

    def slope(log_sharpness: float) -> float:
        p = softmax(np.exp(log_sharpness) * score, axis=1)
        return float(((p * score).sum(axis=1) - own).mean())

    low, high = np.log(_HOTTEST), np.log(_COLDEST)
    if slope(low) >= 0.0:
        return _HOTTEST
    if slope(high) <= 0.0:
        return _COLDEST
    return float(np.exp(brentq(slope, low, high, xtol=1e-6)))


def difficulty(p: F64, label: I64) -> dict[str, F32]:
    """Return DIFFICULTY_COLUMNS of rows with class probabilities p (m, K) and label (m,) int64; each (m,) float32.

    el2n: ‖p - onehot(y)‖₂ in [0, √2], higher means harder
    margin: p_y - max of the others in [-1, 1], higher means easier; 1 where there is one class only
    entropy: of p in bits, higher means less certain, whatever the label
    confidence: p_y in [0, 1], higher means easier
    """
    rows = np.arange(label.size)
    own = p[rows, label]
    others = p.copy()
    others[rows, label] = 0.0
    el2n = np.sqrt((1.0 - own) ** 2 + (others * others).sum(axis=1))
    bits = -(p * np.log2(np.maximum(p, np.finfo(np.float64).tiny))).sum(axis=1)
    columns = {"el2n": el2n, "margin": own - others.max(axis=1), "entropy": bits, "confidence": own}
    return {name: value.astype(np.float32) for name, value in columns.items()}
