"""Cross-modal V-information of an image and its caption, both ways, from one set of sums.

PVI(x -> y) = log2 q(y|x) - log2 q(y) in bits (Ethayarajh et al. 2022, eq. 4), with the linear-Gaussian family on
principal components: low when the caption says nothing about its image. No temperature, no CLIP needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.errors import UsageError
from curate.recipe import ScoreTable
from curate.scoring.gaussian import LinearGaussian
from curate.scoring.moments import PairMoments, principal_axes
from curate_kernels.arrays import B1, F32, F64, I64, as_rows

RIDGES = tuple(float(r) for r in np.logspace(-1, 2, 7))
PAIR_COLUMNS = ("s0_text", "s1_text", "pvi_text", "s0_image", "s1_image", "pvi_image")

RIDGE_ROWS = 2048  # that the ridges are chosen on
_TILE = 4096
_STALE = 1.01  # factor by which the sums outgrow a fit before it is renewed


_Families = tuple[LinearGaussian, LinearGaussian, LinearGaussian, LinearGaussian]


@dataclass(frozen=True, slots=True)
class Basis:
    """A view's centre, its first principal axes, and one scale that makes the mean squared norm 1."""

    mean: F64  # (p,)
    axes: F64  # (p, m), already scaled

    @classmethod
    def fit(cls, n: float, total: F64, square: F64, dims: int) -> Basis:
        """Return the basis of a view from its sums."""
        mean = total / n
        covariance = square / n - np.outer(mean, mean)
        axes = principal_axes(covariance, dims)
        # A view that does not vary stays at rounding noise: it is not blown up to unit scale.
        floor = 1e-6 * max(float(np.trace(square)) / n, 1e-12)
        scale = np.sqrt(max(float((axes * (covariance @ axes)).sum()), floor))
        return cls(mean, axes / scale)

    def project(self, x: F32) -> F64:
        """Return the rows of x (m, p) in this basis, (m, dims) float64."""
        projected: F64 = (x.astype(np.float64) - self.mean) @ self.axes
        return projected


@dataclass(slots=True)
class _Sums:
    """Sums over projected pairs; targets are the first components of the other view."""

    n: float
    x: F64  # (p+1, p+1) with intercept
    y: F64  # (q+1, q+1) with intercept
    xy: F64  # (p+1, q+1)


class PairModel:
    """Scores of (image, caption) pairs, and their update by rows that arrive after the fit.

    The bases and ridges stay as fitted; `add` keeps the regression sums current, so that `predictive` is prequential
    (each row is scored before it is added; methods: MNIW posterior, block updates). The families are renewed when the
    rows have grown by a hundredth, at that addition: so they are a function of what was added, not of what was scored.
    """

    def __init__(self, moments: PairMoments, table: ScoreTable, ridges: tuple[float, float] = (1.0, 1.0)) -> None:
        n = moments.n
        # At least four rows per predicting component and eight per predicted one.
        dims = [min(table.image_dims, moments.x.shape[0]), min(table.text_dims, moments.y.shape[0])]
        p, q = (min(wanted, max(2, int(n) // 4)) for wanted in dims)
        self._image = Basis.fit(n, moments.x, moments.xx, p)
        self._text = Basis.fit(n, moments.y, moments.yy, q)
        self._targets = max(1, min(table.target_dims, p, q, int(n) // 8))
        self.ridges = ridges
        self._sums = self._project_sums(moments)
        self._families: _Families | None = None
        self._fitted = self._sums.n

    def _project_sums(self, m: PairMoments) -> _Sums:
        a, b = self._image, self._text
        xx = a.axes.T @ (m.xx - np.outer(m.x, m.x) / m.n) @ a.axes
        yy = b.axes.T @ (m.yy - np.outer(m.y, m.y) / m.n) @ b.axes
        xy = a.axes.T @ (m.xy - np.outer(m.x, m.y) / m.n) @ b.axes
        return _Sums(m.n, _with_intercept(m.n, xx), _with_intercept(m.n, yy), _with_intercept(m.n, xy))

    def project(self, image: F32, text: F32) -> tuple[F64, F64]:
        """Return both views in the model's bases: (m, p) and (m, q) float64."""
        return self._image.project(image), self._text.project(text)

    def add(self, x: F64, y: F64) -> None:
        """Add projected rows to the sums."""
        self._fit_once()
        one = np.ones((x.shape[0], 1))
        left, right = np.concatenate([one, x], axis=1), np.concatenate([one, y], axis=1)
        self._sums.n += x.shape[0]
        self._sums.x += left.T @ left
        self._sums.y += right.T @ right
        self._sums.xy += left.T @ right
        if self._sums.n >= _STALE * self._fitted:
            self.renew()

    def renew(self) -> None:
        """Fit the families on all rows added so far, as rows that are scored as seen must be in the fit."""
        self._families, self._fitted = self._fit(self.ridges), self._sums.n

    def _fit_once(self) -> _Families:
        if self._families is None:
            self.renew()
        assert self._families is not None
        return self._families

    def _fit(self, ridges: tuple[float, float]) -> _Families:
        s, t = self._sums, 1 + self._targets
        return (
            LinearGaussian(s.n, s.x, s.xy[:, 1:t], s.y[1:t, 1:t], ridges[0]),
            LinearGaussian(s.n, s.x[:1, :1], s.xy[:1, 1:t], s.y[1:t, 1:t], 0.0),
            LinearGaussian(s.n, s.y, s.xy.T[:, 1:t], s.x[1:t, 1:t], ridges[1]),
            LinearGaussian(s.n, s.y[:1, :1], s.xy.T[:1, 1:t], s.x[1:t, 1:t], 0.0),
        )

    def choose_ridges(self, x: F64, y: F64) -> None:
        """Set each direction's ridge to the one with the largest mean leave-one-out likelihood on projected rows."""
        t = self._targets
        best = [(-np.inf, 1.0), (-np.inf, 1.0)]
        for ridge in RIDGES:
            text, _, image, _ = self._fit((ridge, ridge))
            values = (text.leave_one_out(x, y[:, :t]).mean(), image.leave_one_out(y, x[:, :t]).mean())
            best = [max(old, (float(value), ridge)) for old, value in zip(best, values, strict=True)]
        self.ridges = (best[0][1], best[1][1])
        self._families = None

    def score(self, x: F64, y: F64, seen: B1) -> dict[str, F32]:
        """Return PAIR_COLUMNS and `pvi` (the mean of both ways) in bits for projected rows.

        seen: (m,) bool; rows that are in the sums are scored by exact leave-one-out, others by the predictive.
        """
        bits = []
        for family, given, target in self._directions(x, y):
            value = np.empty(x.shape[0])
            value[seen] = family.leave_one_out(given[seen], target[seen])
            value[~seen] = family.predictive(given[~seen], target[~seen])
            bits.append(value)
        columns = {
            "s0_text": -bits[1],
            "s1_text": -bits[0],
            "pvi_text": bits[0] - bits[1],
            "s0_image": -bits[3],
            "s1_image": -bits[2],
            "pvi_image": bits[2] - bits[3],
        }
        columns["pvi"] = (columns["pvi_text"] + columns["pvi_image"]) / 2
        return {name: value.astype(np.float32) for name, value in columns.items()}

    def mismatched(self, x: F64, y: F64, seen: B1, other: I64, own: I64 | None = None) -> F32:
        """Return the `pvi` of pairs that no row is, (m,) float32: image own[i] with the caption of row other[i].

        x, y, seen: as for `score`; own: row i for the i-th pair where it is not given, and never other[i].
        Both rows are left out of the sums where they were seen, for of such a pair nothing right is in them.
        """
        own = np.arange(x.shape[0]) if own is None else own
        ways = ((own, other), (own, other), (other, own), (other, own))
        bits = [
            family.crossed(given, target, row, asked, seen)
            for (family, given, target), (row, asked) in zip(self._directions(x, y), ways, strict=True)
        ]
        pvi: F32 = ((bits[0] - bits[1] + bits[2] - bits[3]) / 2).astype(np.float32)
        return pvi

    def _directions(self, x: F64, y: F64) -> tuple[tuple[LinearGaussian, F64, F64], ...]:
        """Return each family with what it is given and what it predicts: text, text alone, image, image alone."""
        text, text0, image, image0 = self._fit_once()
        t, nothing = self._targets, np.zeros((x.shape[0], 0))
        return ((text, x, y[:, :t]), (text0, nothing, y[:, :t]), (image, y, x[:, :t]), (image0, nothing, x[:, :t]))


def pair_information(
    image: F32, text: F32, table: ScoreTable, counted: B1 | None = None, trims: int = 1
) -> dict[str, F32]:
    """Return PAIR_COLUMNS and `pvi` of n pairs, each (n,) float32 bits: higher `pvi` means a better match.

    image: (n, p), text: (n, d) float32; counted: (n,) bool, rows that the family learns from, all if not given
    trims: how often the family is fitted again without the pairs that it finds uninformative (PVI < 0)
    Rows that the last fit has seen are scored by exact leave-one-out, all others by the predictive.

    Raises:
        UsageError: image, text and counted differ in length.
    """
    image, text = as_rows(image, "image"), as_rows(text, "text")
    n = image.shape[0]
    counted = np.ones(n, dtype=np.bool_) if counted is None else counted
    if text.shape[0] != n or counted.shape != (n,):
        raise UsageError(f"image has {n} rows, text {text.shape[0]}, counted {counted.shape}; they must be the same")
    columns = {name: np.full(n, np.nan, dtype=np.float32) for name in (*PAIR_COLUMNS, "pvi")}
    seen = counted.copy()
    moments = PairMoments.zeros(image.shape[1], text.shape[1])
    for rows in _tiles(n):
        moments.add(image[rows][seen[rows]], text[rows][seen[rows]])
    for trim in range(trims + 1 if counted.any() else 0):
        model = PairModel(moments, table)
        sample = spread(np.flatnonzero(seen), RIDGE_ROWS)
        model.choose_ridges(*model.project(image[sample], text[sample]))
        for rows in _tiles(n):
            for name, values in model.score(*model.project(image[rows], text[rows]), seen[rows]).items():
                columns[name][rows] = values
        if trim == trims or not columns["pvi"][counted].mean() > 0:
            break  # a family that predicts no better than the marginal has nothing to choose by
        fit = counted & (columns["pvi"] >= 0)
        for change, sign in ((fit & ~seen, 1.0), (seen & ~fit, -1.0)):
            for rows in _tiles(n):
                moments.add(image[rows][change[rows]], text[rows][change[rows]], sign)
        seen = fit
    return columns


def spread(rows: I64, most: int) -> I64:
    """Return at most `most` of these rows, evenly spread over their order."""
    return rows[np.unique(np.linspace(0, rows.size - 1, min(most, rows.size)).astype(np.int64))]


def _tiles(n: int) -> list[slice]:
    return [slice(low, low + _TILE) for low in range(0, n, _TILE)]


def _with_intercept(n: float, centred: F64) -> F64:
    """Return the sums of centred rows bordered by those of the constant 1: n in the corner, zeros beside it."""
    out = np.zeros((centred.shape[0] + 1, centred.shape[1] + 1))
    out[0, 0] = n
    out[1:, 1:] = centred
    return out
