"""Closeness of rows to a set of target embeddings. Higher means closer, for every score here."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import qr

from curate.errors import UsageError
from curate.scoring.race import Race
from curate_kernels.arrays import F32, F64, as_rows

_TILE = 2048


def normsim_2(x: Any, target: Any) -> F64:
    """Return NormSim_2 (n,) float64: the 2-norm of a row's cosines with all targets (Wang et al., arXiv 2405.19547).

    x: (n, d), target: (t, d), unit rows
    """
    rows, targets = _pair(x, target)
    out = np.empty(rows.shape[0])
    for part, sim in _tiles(rows, _compact(targets)):
        out[part] = np.sqrt(np.einsum("ij,ij->i", sim, sim, dtype=np.float64))
    return out


def normsim_inf(x: Any, target: Any) -> F64:
    """Return NormSim_∞ (n,) float64: a row's largest absolute cosine with any target (arXiv 2405.19547); 0 of none.

    x: (n, d), target: (t, d), unit rows
    """
    rows, targets = _pair(x, target)
    out = np.zeros(rows.shape[0])
    for start in range(0, targets.shape[0], _TILE):
        for part, sim in _tiles(rows, targets[start : start + _TILE]):
            out[part] = np.maximum(out[part], np.abs(sim).max(axis=1))
    return out


def vas(x: Any, gram: F64, n: float) -> F64:
    """Return the variance alignment score f'Σf (n,) float64 with Σ = gram / n (Wang et al., arXiv 2402.02055).

    It is NormSim_2² / n of the target that the sums are over.

    x: (n, d) unit rows; gram: (d, d) float64, Σ f f' over the target's rows; n: number of them

    Raises:
        UsageError: shapes do not fit, or n is not positive.
    """
    rows = as_rows(x)
    if gram.shape != (rows.shape[1], rows.shape[1]) or n <= 0:
        raise UsageError(f"rows {rows.shape} with sums {gram.shape} over {n:g} targets; (d, d) sums of ≥ 1 row needed")
    out = np.empty(rows.shape[0])
    for start in range(0, rows.shape[0], _TILE):
        part = rows[start : start + _TILE].astype(np.float64)
        out[start : start + _TILE] = np.einsum("ij,ij->i", part @ gram, part) / n
    return out


def importance(x: Any, target: Race, raw: Race) -> F64:
    """Return log p_target(x) / p_raw(x) (n,) float64: importance weights as DSIR's, with hash codes for n-grams.

    Xie et al., NeurIPS 2023 (arXiv 2302.03169). Each density is (S + 2^-bits) / (n + 1) with S the mean counter: one
    more row, spread over all cells evenly, so an empty sketch or cell gives a finite ratio.

    x: (n, d); target, raw: sketches with the same centre, seed and shape

    Raises:
        UsageError: the two sketches hash differently, or x does not fit them.
    """
    target.check_same_hashes(raw)
    codes = target.codes(x)
    prior = 2.0**-target.bits
    log_target, log_raw = (np.log((s.query_codes(codes) + prior) / (s.n + 1.0)) for s in (target, raw))
    ratio: F64 = log_target - log_raw
    return ratio


def _pair(x: Any, target: Any) -> tuple[F32, F32]:
    rows, targets = as_rows(x), as_rows(target, "target")
    if rows.shape[1] != targets.shape[1]:
        raise UsageError(f"rows {rows.shape} and targets {targets.shape} have different numbers of dimensions")
    return rows, targets


def _compact(targets: F32) -> F32:
    """Return at most d rows with the same norms of products: R of targets = QR."""
    if targets.shape[0] <= targets.shape[1]:
        return targets
    factor: F64 = qr(targets.astype(np.float64), mode="r", check_finite=False)[0]
    return np.ascontiguousarray(factor[: targets.shape[1]], dtype=np.float32)


def _tiles(rows: F32, targets: F32) -> Any:
    for start in range(0, rows.shape[0], _TILE):
        part = slice(start, start + _TILE)
        yield part, rows[part] @ targets.T
