"""V-information without labels: how well a block of an embedding is predicted by the rest of it.

Under a joint Gaussian of the embedding e with scatter M, Theta = M^-1 and z = Theta (e - mean), block b given the rest
has the quadratic form z_b' Theta_bb^-1 z_b and alone e_b' M_bb^-1 e_b, so one product e Theta serves all blocks. With
the normal-inverse-Wishart posterior in the place of the Gaussian (the Student-t of `gaussian.py`, the same densities):

    s0_self = mean over blocks of -log2 q(e_b)                 how unusual the blocks are
    s1_self = mean over blocks of -log2 q(e_b | all others)    how unusual they are together
    pvi_self = s0_self - s1_self                               low: the parts of this row do not belong together

V-information: Xu et al., ICLR 2020 (arXiv 2002.10689); pointwise form: Ethayarajh et al., ICML 2022 (2110.08420).
Globally whitened coordinates, or principal components, have a diagonal covariance: then no family of this kind sees
anything, `pvi_self` is about 0 everywhere, and `setlevel.collapsed` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from curate.errors import UsageError
from curate.scoring.gaussian import LinearGaussian, best_ridge, pair_sums, principal_components
from curate_kernels.arrays import F32, F64, I64, as_rows, unit_rows
from curate_kernels.vinfo import student_log2, student_loo_log2

SELF_COLUMNS = ("s0_self", "s1_self", "pvi_self")
_CHUNK = 1024


class BlockGaussian:
    """The joint family of one group of rows, from n, Σx and Σxxᵀ alone.

    total: (D,) float64; square: (D, D) float64; blocks: slices that part the D coordinates, two or more
    prior: (D, D) float64 covariance that counts as `weight` rows; (S + weight · prior) / (n + weight) is the estimate.
    Without a prior it is mean variance times identity, weighted by oracle approximating shrinkage (Chen et al., IEEE
    TSP 2010, eq. 23), which needs no more than these sums.
    """

    def __init__(
        self, n: float, total: F64, square: F64, blocks: Sequence[slice], prior: F64 | None = None, weight: float = 0.0
    ) -> None:
        if n < 2:
            raise UsageError(f"{n:g} rows have no covariance; at least 2 are needed")
        self._centre = total / n
        scatter = square - np.outer(total, total) / n
        if prior is None:
            prior, weight = shrinkage_target(n, scatter)
        scatter = scatter + weight * prior
        self._n, self._rows, self._blocks = n, n + weight, list(blocks)
        self._theta, self._logdet = _inverse(scatter)
        self._own = [_whiten(scatter[b, b]) for b in self._blocks]
        self._given = [_whiten(self._theta[b, b]) for b in self._blocks]

    def score(self, x: F32, seen: bool = True) -> dict[str, F32]:
        """Return SELF_COLUMNS (m,) float32 in bits; higher `pvi_self` means that the parts fit together.

        x: (m, D) float32; seen: the rows are in the sums and get exact leave-one-out (the prior held fixed).
        """
        s0, s1 = np.zeros(x.shape[0]), np.zeros(x.shape[0])
        for low in range(0, x.shape[0], _CHUNK):
            rows = slice(low, low + _CHUNK)
            s0[rows], s1[rows] = self._surprises(x[rows] - self._centre.astype(np.float32), seen)
        return dict(zip(SELF_COLUMNS, (s.astype(np.float32) for s in (s0, s1, s0 - s1)), strict=True))

    def _surprises(self, e: F32, seen: bool) -> tuple[F64, F64]:
        d, dims = e.shape[1], [b.stop - b.start for b in self._blocks]
        z = e @ self._theta.astype(np.float32)
        whole = np.einsum("ij,ij->i", e, z, dtype=np.float64)
        joint = self._log2(whole, d, self._logdet, seen)
        s0, s1 = np.zeros(e.shape[0]), np.zeros(e.shape[0])
        for b, k, (own, own_logdet), (given, given_logdet) in zip(
            self._blocks, dims, self._own, self._given, strict=True
        ):
            alone, conditional = _square(e[:, b] @ own.astype(e.dtype)), _square(z[:, b] @ given.astype(e.dtype))
            # By Schur's complement the rest alone has the quadratic form of all less the block's, and so its log|.|.
            rest = self._log2(np.maximum(whole - conditional, 0.0), d - k, self._logdet + given_logdet, seen)
            s0 -= self._log2(alone, k, own_logdet, seen)
            s1 -= joint - rest
        return s0 / len(dims), s1 / len(dims)

    def _log2(self, quad: F64, d: int, logdet: float, seen: bool) -> F64:
        out = np.empty(quad.size)
        leverage = np.full(quad.size, 1.0 / self._n)
        (student_loo_log2 if seen else student_log2)(leverage, quad, self._rows, d, logdet, out)
        return out


def shrinkage_target(n: float, scatter: F64) -> tuple[F64, float]:
    """Return the target (D, D), a mean variance on the diagonal, and the number of rows that it counts for.

    scatter: (D, D) float64, centred, of n rows. Chen et al. 2010, eq. 23; a share of 0.999 at most.
    """
    d = scatter.shape[0]
    covariance = scatter / n
    trace = float(np.trace(covariance))
    square = float((covariance * covariance).sum())
    excess = (n + 1 - 2 / d) * (square - trace * trace / d)
    share = 1.0 if excess <= 0 else ((1 - 2 / d) * square + trace * trace) / excess
    share = min(max(share, 1e-6), 0.999)
    return np.eye(d) * max(trace / d, 1e-12), n * share / (1 - share)


def equal_blocks(dims: int, count: int) -> list[slice]:
    """Return `count` slices of nearly equal size that part `dims` coordinates; fewer where there are fewer."""
    edges = np.linspace(0, dims, min(count, dims) + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def block_information(
    x: F32,
    blocks: int | Sequence[slice] = 8,
    clusters: int | I64 | None = None,
    prior: float | None = None,
    seed: int = 0,
) -> dict[str, F32]:
    """Return SELF_COLUMNS (n,) float32 bits of every row, leave-one-out; low `pvi_self`: the parts do not fit.

    x: (n, D) float32, raw coordinates (not whitened, not principal components). blocks: how many, or the slices.
    clusters: a count for seeded spherical k-means, or each row's cluster (n,) int64; by default one for every
    8 max(D, 32) rows, 32 at most (with fewer rows each, local covariances find fewer of the rows put together wrongly
    than one for all). Each has its own mean and covariance, shrunk to the one within all clusters, which counts as
    `prior` rows (D by default); with one cluster the target is the mean variance.

    Raises:
        UsageError: fewer than two blocks, or assignments of another length.
    """
    x = as_rows(x)
    n, d = x.shape
    parts = equal_blocks(d, blocks) if isinstance(blocks, int) else list(blocks)
    if len(parts) < 2:
        raise UsageError(f"{len(parts)} block of {d} coordinates; at least 2 are needed, to predict one from the rest")
    if n < 2:
        return {name: np.zeros(n, np.float32) for name in SELF_COLUMNS}
    if clusters is None:
        clusters = min(max(n // (8 * max(d, 32)), 1), 32)
    which = spherical_kmeans(x, clusters, seed) if isinstance(clusters, int) else np.asarray(clusters, dtype=np.int64)
    if which.shape != (n,):
        raise UsageError(f"clusters has shape {which.shape}; one number for each of the {n} rows is needed")
    groups = _join_small([np.flatnonzero(which == c) for c in np.unique(which)])
    out = {name: np.empty(n, dtype=np.float32) for name in SELF_COLUMNS}
    within, weight = _within(x, groups, d if prior is None else prior)
    for rows in groups:
        total, square = _sums(x, rows)
        for name, values in BlockGaussian(rows.size, total, square, parts, within, weight).score(x[rows]).items():
            out[name][rows] = values
    return out


def token_information(
    tokens: F32, grid: int = 2, dims: int = 64, shape: tuple[int, int] | None = None
) -> dict[str, F32]:
    """Return SELF_COLUMNS of images whose blocks are the cells of a grid: is each region predicted by the others?

    tokens: (n, T, d) float32 patch tokens, row by row, without a class token. shape: (height, width) in tokens with
    height · width = T; a square by default. Tokens are averaged in grid x grid cells, whose vectors are projected to
    their first components, the same for all cells, `dims` at most and so few that 4 rows remain for each of all.

    Raises:
        UsageError: T is no square and no shape is given, or the grid is finer than the tokens or has one cell.
    """
    n, count, d = tokens.shape
    height, width = shape if shape is not None else (int(count**0.5), int(count**0.5))
    if height * width != count or not 2 <= grid <= min(height, width):
        raise UsageError(f"{count} tokens of shape {height} x {width} do not part into {grid} x {grid} cells")
    if n < 2:
        return {name: np.zeros(n, np.float32) for name in SELF_COLUMNS}
    image = tokens.reshape(n, height, width, d)
    rows, columns = equal_blocks(height, grid), equal_blocks(width, grid)
    cells = np.stack([image[:, r, c].mean(axis=(1, 2)) for r in rows for c in columns], axis=1)
    kept = max(1, min(dims, d, n // (4 * grid * grid)))
    flat = as_rows(cells.reshape(n * grid * grid, d), "tokens")
    reduced = principal_components(flat, kept).reshape(n, -1)
    return block_information(reduced, equal_blocks(kept * grid * grid, grid * grid), 1)


def cross_information(x: F32, y: F32, dims: int = 256, target_dims: int = 64) -> dict[str, F32]:
    """Return SELF_COLUMNS of a second view y given the first x: two encoders, or a crop and its whole image.

    x: (n, p) float32; y: (n, d) float32, of the same images. Both are projected to their first components, at least
    four rows for each of x and eight for each of y; ridge by leave-one-out likelihood, scores by exact leave-one-out.

    Raises:
        UsageError: x and y have different numbers of rows.
    """
    x, y = as_rows(x, "x"), as_rows(y, "y")
    n = x.shape[0]
    if y.shape[0] != n:
        raise UsageError(f"x has {n} rows, y {y.shape[0]}; both must describe the same images")
    if n < 2:
        return {name: np.zeros(n, np.float32) for name in SELF_COLUMNS}
    left = principal_components(x, max(1, min(dims, x.shape[1], n // 4)))
    right = principal_components(y, max(1, min(target_dims, y.shape[1], n // 8)))
    moments = pair_sums(left, right)
    s1 = -LinearGaussian.fit(moments, best_ridge(moments, left, right)).leave_one_out(left, right)
    s0 = -LinearGaussian.null(moments).leave_one_out(left[:, :0], right)
    return dict(zip(SELF_COLUMNS, (s.astype(np.float32) for s in (s0, s1, s0 - s1)), strict=True))


def spherical_kmeans(x: F32, count: int, seed: int, rounds: int = 15) -> I64:
    """Return each row's cluster (n,) int64 by cosine similarity; deterministic, ties to the lowest number.

    x: (n, d) float32. Starts from `count` random rows (Dhillon & Modha, Machine Learning 2001, section 3.1); a cluster
    that loses all its rows starts again at the row that is least like its own centre.
    """
    unit = unit_rows(x)
    count = min(count, unit.shape[0])
    centres = unit[np.sort(np.random.default_rng(seed).permutation(unit.shape[0])[:count])]
    which = np.full(unit.shape[0], -1, dtype=np.int64)
    for _ in range(rounds):
        before, (which, likeness) = which, _nearest(unit, centres)
        if np.array_equal(before, which):
            break
        size = np.bincount(which, minlength=count)
        order = np.argsort(which, kind="stable")
        full = np.flatnonzero(size)
        sums = np.zeros_like(centres)
        sums[full] = np.add.reduceat(unit[order], (np.cumsum(size) - size)[full], axis=0)
        empty = np.flatnonzero(size == 0)
        sums[empty] = unit[np.argsort(likeness, kind="stable")[: empty.size]]
        centres = unit_rows(sums)
    return which


def _nearest(unit: F32, centres: F32) -> tuple[I64, F32]:
    which = np.empty(unit.shape[0], dtype=np.int64)
    likeness = np.empty(unit.shape[0], dtype=np.float32)
    for low in range(0, unit.shape[0], _CHUNK):
        rows = slice(low, low + _CHUNK)
        similarity = unit[rows] @ centres.T
        which[rows] = similarity.argmax(axis=1)
        likeness[rows] = similarity.max(axis=1)
    return which, likeness


def _join_small(groups: list[I64], least: int = 16) -> list[I64]:
    """Return the groups with those of fewer than `least` rows as one; the largest takes that in if it is small, too."""
    small, large = [g for g in groups if g.size < least], [g for g in groups if g.size >= least]
    if not small:
        return groups
    rest = np.sort(np.concatenate(small))
    if rest.size >= least or not large:
        return [*large, rest]
    biggest = max(range(len(large)), key=lambda k: large[k].size)
    large[biggest] = np.sort(np.concatenate([large[biggest], rest]))
    return large


def _within(x: F32, groups: list[I64], weight: float) -> tuple[F64 | None, float]:
    """Return the shrunk covariance within the groups and its weight; nothing where there is one group only."""
    if len(groups) == 1:
        return None, 0.0
    scatter = np.zeros((x.shape[1], x.shape[1]))
    for rows in groups:
        total, square = _sums(x, rows)
        scatter += square - np.outer(total, total) / rows.size
    n = float(x.shape[0])
    target, count = shrinkage_target(n, scatter)
    return (scatter + count * target) / (n + count), weight


def _sums(x: F32, rows: I64) -> tuple[F64, F64]:
    total, square = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
    for low in range(0, rows.size, 4 * _CHUNK):
        part = x[rows[low : low + 4 * _CHUNK]].astype(np.float64)
        total += part.sum(axis=0)
        square += part.T @ part
    return total, square


def _inverse(matrix: F64) -> tuple[F64, float]:
    """Return the inverse and the log determinant of a positive definite matrix."""
    factor, logdet = _whiten(matrix)
    return np.asarray(factor @ factor.T), logdet


def _whiten(matrix: F64) -> tuple[F64, float]:
    """Return L^-T of matrix = L L', and the log determinant: |x L^-T|^2 = x' matrix^-1 x."""
    factor = cholesky((matrix + matrix.T) / 2, lower=True)
    whiten: F64 = solve_triangular(factor, np.eye(matrix.shape[0]), lower=True).T
    return whiten, 2.0 * float(np.log(np.diag(factor)).sum())


def _square(rows: F32) -> F64:
    squares: F64 = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return squares
