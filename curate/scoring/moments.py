"""Additive statistics: sums that merge across workers, resume after a stop, and subtract on a takedown."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.linalg import eigh

from curate_kernels.arrays import F32, F64, I64

_TILE = 8192  # rows taken to float64 at a time


@dataclass(slots=True)
class PairMoments:
    """Sums over (x, y) pairs, in float64: n, Σx, Σy, Σxxᵀ, Σxyᵀ, Σyyᵀ with x of p and y of d dimensions."""

    n: float
    x: F64  # (p,)
    y: F64  # (d,)
    xx: F64  # (p, p)
    xy: F64  # (p, d)
    yy: F64  # (d, d)

    @classmethod
    def zeros(cls, p: int, d: int) -> PairMoments:
        """Return the sums over nothing."""
        return cls(0.0, np.zeros(p), np.zeros(d), np.zeros((p, p)), np.zeros((p, d)), np.zeros((d, d)))

    def add(self, x: F32, y: F32, sign: float = 1.0) -> None:
        """Add the rows of x (m, p) and y (m, d); with sign -1 take them out again."""
        left, right = x.astype(np.float64), y.astype(np.float64)
        self.n += sign * x.shape[0]
        self.x += sign * left.sum(axis=0)
        self.y += sign * right.sum(axis=0)
        self.xx += sign * (left.T @ left)
        self.xy += sign * (left.T @ right)
        self.yy += sign * (right.T @ right)

    def merge(self, other: PairMoments) -> None:
        """Add another's sums."""
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))

    def arrays(self) -> dict[str, F64]:
        """Return the sums as named arrays, to be saved."""
        return {f.name: np.asarray(getattr(self, f.name), dtype=np.float64) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, F64]) -> PairMoments:
        """Return the sums that `arrays()` gave."""
        return cls(float(arrays["n"]), *(arrays[f.name].copy() for f in fields(cls)[1:]))


@dataclass(slots=True)
class ClassMoments:
    """Sums over labelled rows, in float64: per-class counts and Σx, and Σxxᵀ over all classes."""

    count: F64  # (K,)
    x: F64  # (K, p)
    xx: F64  # (p, p)

    @classmethod
    def zeros(cls, p: int) -> ClassMoments:
        """Return the sums over nothing, of no class."""
        return cls(np.zeros(0), np.zeros((0, p)), np.zeros((p, p)))

    def add(self, x: F32, label: I64, classes: int, sign: float = 1.0) -> None:
        """Add rows x (m, p) with label (m,) in 0 … classes-1; with sign -1 take them out again."""
        self._grow(classes)
        rows = x.astype(np.float64)
        np.add.at(self.count, label, sign)
        np.add.at(self.x, label, sign * rows)
        self.xx += sign * (rows.T @ rows)

    def merge(self, other: ClassMoments) -> None:
        """Add another's sums over the same numbering of classes."""
        self._grow(other.count.shape[0])
        self.count[: other.count.shape[0]] += other.count
        self.x[: other.count.shape[0]] += other.x
        self.xx += other.xx

    def _grow(self, classes: int) -> None:
        more = classes - self.count.shape[0]
        if more > 0:
            self.count = np.concatenate([self.count, np.zeros(more)])
            self.x = np.concatenate([self.x, np.zeros((more, self.x.shape[1]))])

    def arrays(self) -> dict[str, F64]:
        """Return the sums as named arrays, to be saved."""
        return {"count": self.count, "x": self.x, "xx": self.xx}

    @classmethod
    def from_arrays(cls, arrays: dict[str, F64]) -> ClassMoments:
        """Return the sums that `arrays()` gave."""
        return cls(arrays["count"].copy(), arrays["x"].copy(), arrays["xx"].copy())


def class_sums(x: F32, label: I64, classes: int) -> ClassMoments:
    """Return the sums over rows x (n, p) with label (n,) in 0 … classes-1, a few thousand rows at a time."""
    moments = ClassMoments.zeros(x.shape[1])
    for low in range(0, x.shape[0], _TILE):
        moments.add(x[low : low + _TILE], label[low : low + _TILE], classes)
    return moments


def principal_axes(covariance: F64, dims: int) -> F64:
    """Return the `dims` leading eigenvectors (p, dims) of a covariance (p, p), largest first.

    Each is turned so that its largest entry is positive, so that the same sums give the same axes.
    """
    p = covariance.shape[0]
    _, vectors = eigh((covariance + covariance.T) / 2, subset_by_index=[p - dims, p - 1])
    axes = vectors[:, ::-1]
    turned: F64 = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(dims)])
    return turned
