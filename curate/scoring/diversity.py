"""How much a row adds to what is there, and how diverse a set is. Higher means newer, more diverse; the radius: worse.

Leverage and gain saturate once much more than d rows are in the sums: they show new directions, `novelty` new places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from curate.errors import UsageError
from curate.scoring.nearest import nearest
from curate_kernels.arrays import F64, as_rows

_TILE = 4096


def novelty(x: Any, reference: Any = None) -> F64:
    """Return 1 - cosine (n,) float64 to the nearest row of the reference, or to the nearest other row of x.

    In [0, 2]; 1 where there is no other row. Higher means farther from everything.

    x: (n, d), reference: (m, d), unit rows, float32 or float16
    """
    if reference is None:
        sim, _ = nearest(x, k=1, exclude_self=True)
    else:
        sim, _ = nearest(reference, x, k=1)
    near = sim[:, 0].astype(np.float64)
    return np.where(np.isfinite(near), np.clip(1.0 - near, 0.0, 2.0), 1.0)


def ridge_leverage(x: Any, gram: F64, ridge: float, inside: bool = False) -> F64:
    """Return f'(σ²I + Σ f f')⁻¹f (n,) float64: how little the rows in the sums span this direction.

    Cohen, Musco and Pachocki, APPROX 2016 (arXiv 1604.05448). In [0, |f|²/σ²]; higher means newer. With `inside`, the
    rows are in the sums and each is taken out of them exactly: h/(1-h) (Sherman and Morrison).
    log(1 + leverage) is the gain in log det(I + σ⁻²Σ f f'): `logdet_gain`.

    x: (n, d); gram: (d, d) float64, Σ f f'; ridge: σ² > 0

    Raises:
        UsageError: the sums have another shape, or the ridge is not positive.
    """
    rows = as_rows(x)
    if gram.shape != (rows.shape[1], rows.shape[1]) or not ridge > 0:
        raise UsageError(f"rows {rows.shape}, sums {gram.shape}, ridge {ridge}: (d, d) sums and a ridge > 0 needed")
    factor = cholesky((gram + gram.T) / 2 + ridge * np.eye(gram.shape[0]), lower=True)
    out = np.empty(rows.shape[0])
    for start in range(0, rows.shape[0], _TILE):
        part = rows[start : start + _TILE].astype(np.float64)
        half = solve_triangular(factor, part.T, lower=True)
        most = np.einsum("ij,ij->i", part, part) / ridge  # what an empty sum gives; rounding could exceed it
        leverage = np.einsum("ij,ij->j", half, half)
        if inside:
            leverage = leverage / np.maximum(1.0 - leverage, 1e-15)
        out[start : start + _TILE] = np.minimum(leverage, most)
    return out


def logdet_gain(x: Any, gram: F64, ridge: float, inside: bool = False) -> F64:
    """Return log(1 + f'(σ²I + Σ f f')⁻¹f) (n,) float64, nats: what a row adds to log det(I + σ⁻²Σ f f').

    Arguments and errors as for `ridge_leverage`; with `inside`, what the set would lose without the row.
    """
    return np.log1p(ridge_leverage(x, gram, ridge, inside))


def vendi(gram: F64, n: float, q: float = 1.0) -> float:
    """Return the Vendi score of order q: the effective number of different rows, 1 … min(n, d); 0 of no rows.

    (Σ λ^q)^(1/(1-q)) over the eigenvalues λ of XᵀX/n, which are those of the similarity matrix / n: exp of the Shannon
    entropy for q = 1 (Friedman and Dieng, arXiv 2210.02410), orders: Pasarkar and Dieng (2310.12952).

    gram: (d, d) float64, XᵀX of unit rows; n: number of rows; q: order > 0, also infinity

    Raises:
        UsageError: q is not positive, or the trace is not n, so the rows had not norm 1.
    """
    if not q > 0:
        raise UsageError(f"order q = {q}; a number above 0 is needed, or infinity")
    if n <= 0:
        return 0.0
    trace = float(np.trace(gram))
    if abs(trace / n - 1.0) > 0.01:
        raise UsageError(f"sums over {n:g} rows have trace {trace:g}; the Vendi score needs rows of norm 1")
    share = np.linalg.eigvalsh((gram + gram.T) / 2) / trace
    share = share[share > 1e-15 * share.shape[0]]  # rounding leaves tiny values of either sign
    if q == 1:
        return float(np.exp(-(share * np.log(share)).sum()))
    if np.isinf(q):
        return float(1.0 / share.max())
    return float((share**q).sum() ** (1.0 / (1.0 - q)))


def coverage_radius(x: Any, chosen: Any, quantiles: tuple[float, ...] = (0.5, 0.9, 0.99, 1.0)) -> F64:
    """Return quantiles of the distance 1 - cosine from every row to its nearest chosen row, (len(quantiles),) float64.

    Quantile 1 is the radius that covers everything: what k-centre minimises (Sener and Savarese, arXiv 1708.00489).
    Lower means better covered; infinite where nothing is chosen, 0 where there is nothing to cover.

    x: (n, d), chosen: (m, d), unit rows, float32 or float16
    """
    if not len(x):
        return np.zeros(len(quantiles))
    if not len(chosen):
        return np.full(len(quantiles), np.inf)
    sim, _ = nearest(chosen, x, k=1)
    distance = np.maximum(1.0 - sim[:, 0].astype(np.float64), 0.0)
    # A distance that occurs, never one between two: infinite ones would make NaN.
    radii: F64 = np.quantile(distance, quantiles, method="inverted_cdf")
    return radii
