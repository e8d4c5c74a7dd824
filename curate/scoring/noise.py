"""Confident learning: which given labels disagree with out-of-sample probabilities, and how often per class pair.

Northcutt, Jiang and Chuang, "Confident Learning", JAIR 2021 (arXiv 1911.00068). p: (n, K) float64, out-of-sample class
probabilities (a row's own label must not have been fitted); label: (n,) int64, given labels in 0 … K-1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.errors import UsageError
from curate_kernels.arrays import B1, F32, F64, I64

# A probability this close below its threshold reaches it: the mean of equal numbers is not exactly that number.
_SLACK = 1e-6
QUALITY_COLUMNS = ("self_confidence", "normalized_margin", "weighted_entropy")


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """Joint counts of given and true labels, estimated from n rows.

    confident: (K, K) int64, rows of given label i that are confidently of class j (eq. 1); its diagonal is at least 1
    joint: (K, K) float64, the same scaled to n_i rows in line i (eq. 3, times n)
    """

    confident: I64
    joint: F64

    @property
    def noise(self) -> F64:
        """P(given i | true j), (K, K) float64; columns sum to 1, or to 0 where no row is of class j."""
        return _divide(self.joint, self.joint.sum(axis=0, keepdims=True))

    @property
    def inverse_noise(self) -> F64:
        """P(true j | given i), (K, K) float64; lines sum to 1, or to 0 where no row has label i."""
        return _divide(self.joint, self.joint.sum(axis=1, keepdims=True))

    @property
    def wrong(self) -> float:
        """Estimated number of rows whose label is not their class: the sum off the joint's diagonal."""
        return float(self.joint.sum() - np.trace(self.joint))


def _divide(a: F64, b: F64) -> F64:
    shares: F64 = np.divide(a, b, out=np.zeros_like(a), where=b > 0)
    return shares


def _check(p: F64, label: I64) -> None:
    if p.ndim != 2 or p.shape[0] != label.size:
        raise UsageError(f"p has shape {p.shape}; ({label.size}, K) is needed, a row per label")
    if label.size and (label.min() < 0 or label.max() >= p.shape[1]):
        raise UsageError(f"labels run from {label.min()} to {label.max()}, but p has {p.shape[1]} columns")
    if not np.isfinite(p).all():
        raise UsageError("p holds NaN or infinity; give finite probabilities")


def confident_thresholds(p: F64, label: I64) -> F64:
    """Return each class's mean probability over the rows that carry its label, (K,) float64 (eq. 2).

    A class that no row carries gets infinity: nothing is confidently of it.
    """
    classes = p.shape[1]
    count = np.bincount(label, minlength=classes)
    total = np.bincount(label, weights=p[np.arange(label.size), label], minlength=classes)
    thresholds: F64 = np.divide(total, count, out=np.full(classes, np.inf), where=count > 0)
    return thresholds


def confident_class(p: F64, label: I64) -> I64:
    """Return the class that each row confidently belongs to, (n,) int64, or -1 (eq. 1).

    That is a class whose probability reaches its threshold. Where several do, the row's most likely class is meant,
    as in cleanlab; the paper takes the most likely of those that reach it. Ties go to the lowest class.
    """
    reached = p >= confident_thresholds(p, label) - _SLACK
    several = reached.sum(axis=1) > 1
    found = np.where(several, p.argmax(axis=1), reached.argmax(axis=1))
    return np.where(reached.any(axis=1), found, -1).astype(np.int64)


def fit_noise(p: F64, label: I64) -> NoiseModel:
    """Return the counts of given and true labels; p and label as above, O(nK).

    Raises:
        UsageError: shapes do not fit, a label is out of range, or p is not finite
    """
    _check(p, label)
    classes = p.shape[1]
    found = confident_class(p, label) if label.size else label
    sure = found >= 0
    cell = label[sure] * classes + found[sure]
    confident = np.bincount(cell, minlength=classes * classes).reshape(classes, classes).astype(np.int64)
    np.fill_diagonal(confident, np.maximum(np.diag(confident), 1))
    count = np.bincount(label, minlength=classes)
    joint = confident * (count / confident.sum(axis=1))[:, None]
    return NoiseModel(confident, joint)


def label_issues(p: F64, label: I64, model: NoiseModel, by: str = "noise_rate") -> B1:
    """Return which labels are likely wrong, (n,) bool, as many as the joint says (section 3.2 of the paper).

    by: "noise_rate", for each pair i → j its joint count of rows of label i with the largest p_j - p_i;
    "class", for each class its count off the diagonal, those with the smallest p_i; "both", what both name
    A row whose most likely class is its own label is never named. Ties go to the lowest row.
    """
    _check(p, label)
    if by not in {"noise_rate", "class", "both"}:
        raise UsageError(f"by is {by!r}; 'noise_rate', 'class' or 'both' is allowed")
    counts = _whole(model.joint)
    issue = np.zeros(label.size, dtype=bool)
    order = np.argsort(label, kind="stable")
    edges = np.searchsorted(label[order], np.arange(p.shape[1] + 1))
    for i in range(p.shape[1]):
        own = order[edges[i] : edges[i + 1]]
        issue[own] = _worst_of_class(p[own], i, counts[i], by)
    issue &= p.argmax(axis=1) != label if label.size else issue
    return issue


def _worst_of_class(p: F64, i: int, counts: I64, by: str) -> B1:
    """Return which of the rows of label i, p (n_i, K), are named; counts: (K,), line i of the joint."""
    by_pair = np.zeros(p.shape[0], dtype=bool)
    if by != "class":
        for j in np.flatnonzero(counts):
            if j != i:
                by_pair[_lowest(p[:, i] - p[:, j], counts[j])] = True
    if by == "noise_rate":
        return by_pair
    by_class = np.zeros(p.shape[0], dtype=bool)
    by_class[_lowest(p[:, i], counts.sum() - counts[i])] = True
    return by_class if by == "class" else by_class & by_pair


def _lowest(values: F64, count: int) -> I64:
    """Return the places of the `count` smallest values; of equals the first."""
    return np.argsort(values, kind="stable")[:count]


def _whole(joint: F64) -> I64:
    """Return the joint in whole rows, each line with its sum: the largest remainders go up, first of equals."""
    floor = np.floor(joint + 1e-9)
    left = np.rint(joint.sum(axis=1) - floor.sum(axis=1)).astype(np.int64)
    rank = np.argsort(np.argsort(-(joint - floor), axis=1, kind="stable"), axis=1, kind="stable")
    whole: I64 = (floor + (rank < left[:, None])).astype(np.int64)
    return whole


def label_quality(p: F64, label: I64) -> dict[str, F32]:
    """Return QUALITY_COLUMNS, each (n,) float32 in [0, 1]; higher means that the label is likelier right.

    self_confidence: p_y; normalized_margin: (p_y - max of the others + 1) / 2
    weighted_entropy: log(1 + s) / s with s = H(p) / (log K · p_y): the entropy counts more where p_y is low
    """
    _check(p, label)
    rows, tiny = np.arange(label.size), np.finfo(np.float64).tiny
    own = p[rows, label]
    others = p.copy()
    others[rows, label] = -np.inf if p.shape[1] > 1 else 0.0
    margin = (own - others.max(axis=1, initial=-np.inf) + 1.0) / 2.0
    entropy = -(p * np.log(np.maximum(p, tiny))).sum(axis=1) / max(np.log(p.shape[1]), tiny)
    ratio = np.maximum(np.maximum(entropy, 0.0) / np.maximum(own, 1e-12), 1e-12)
    columns = {"self_confidence": own, "normalized_margin": margin, "weighted_entropy": np.log1p(ratio) / ratio}
    return {name: value.astype(np.float32) for name, value in columns.items()}
