"""What each training row is worth on a validation set: KNN-Shapley, and data Shapley inside a short training run.

Both need a validation set whose labels are trusted. Higher means more valuable; below 0 a row does harm.
"""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from curate.errors import UsageError
from curate_kernels.arrays import F32, F64, I64, as_rows
from curate_kernels.shapley import knn_shapley

_CHUNK_BYTES = 64 << 20
_BYTES_PER_PAIR = 24  # distance, sort key, order


def knn_values(x: F32, label: I64, valid: F32, valid_label: I64, *, k: int = 5, own: I64 | None = None) -> F64:
    """Return the KNN-Shapley value of each row, its mean over the validation points, (n,) float64.

    x: (n, d) float32; label: (n,) int64; valid: (m, d) float32; valid_label: (m,) int64; Euclidean distance, of
    equally near rows the lowest counts as nearer. The values sum to the mean share 1/k of right neighbours.
    own: (m,) int64, row of x that a validation point is itself (it is left out for that point), or -1

    Validation points go in chunks of at most 64 MB (one point takes 24 n bytes); O(m n (d + log n)) time.

    Raises:
        UsageError: shapes do not fit, k < 1, or there is no validation point
    """
    x, valid = as_rows(x, "x"), as_rows(valid, "valid")
    _check(x, label, valid, valid_label)
    if k < 1:
        raise UsageError(f"k is {k}; at least 1 neighbour is needed")
    n, m = x.shape[0], valid.shape[0]
    out = np.zeros(n)
    if n == 0:
        return out
    step = max(1, _CHUNK_BYTES // (_BYTES_PER_PAIR * n))
    norm = np.einsum("ij,ij->i", x, x)
    for start in range(0, m, step):
        part = slice(start, start + step)
        alone = np.full(valid[part].shape[0], -1) if own is None else own[part]
        for rows, leave in ((np.flatnonzero(alone < 0), False), (np.flatnonzero(alone >= 0), True)):
            if rows.size:
                order = _order(norm - 2.0 * (valid[part][rows] @ x.T), alone[rows] if leave else None)
                knn_shapley(order, label, valid_label[part][rows], k, out)
    out /= m
    return out


def _order(distance: F32, own: I64 | None) -> I64:
    """Return the columns of each line by distance, of equals the lowest first; `own` (b,) is left out of its line.

    Sorting keys of (distance, column) is several times faster than a stable argsort.
    """
    distance += 0.0  # -0 becomes 0
    bits = distance.view(np.int32).astype(np.int64)
    bits ^= (bits >> 31) & 0x7FFFFFFF  # integers in the order of the floats, negative ones too
    bits <<= 32
    bits |= np.arange(distance.shape[1])
    if own is not None:
        bits[np.arange(own.size), own] = np.iinfo(np.int64).max - (2**32 - 1) + own
    bits.sort(axis=1)
    bits &= 0xFFFFFFFF
    return bits if own is None else np.ascontiguousarray(bits[:, :-1])


def in_run_values(
    x: F32, label: I64, valid: F32, valid_label: I64, classes: int, *, steps: int = 50, second_order: bool = False
) -> F64:
    """Return what each row took off the validation loss while a softmax probe was trained, (n,) float64 nats.

    In-run data Shapley (Wang et al., ICLR 2025, arXiv 2406.11011): a step w - η ḡ over all rows lowers the mean
    validation loss by η G·ḡ - η²/2 ḡ'Hḡ + O(η³), and row i's Shapley value of that is η/n g_i·(G - η/2 Hḡ).
    For the linear probe g_i = x_i (p_i - y_i)', so g_i·g_v = (x_i·x_v)(p_i - y_i)·(p_v - y_v): no gradient of a row
    is ever formed, O((n + m) d K) a step.

    x: (n, d) float32; valid: (m, d) float32; labels in 0 … classes-1. The training starts from 0, full batches,
    η = 1/L with the loss's smoothness L = λmax(x'x/n)/2: deterministic, and the loss never rises.
    second_order: keep the term with H; without it the values sum to the drop up to O(η²)

    Raises:
        UsageError: shapes do not fit, a label is out of range, or there is no validation point
    """
    x, valid = as_rows(x, "x"), as_rows(valid, "valid")
    _check(x, label, valid, valid_label)
    if max(label.max(initial=-1), valid_label.max(initial=-1)) >= classes:
        raise UsageError(f"a label is above {classes - 1}; classes is {classes}")
    n, m = x.shape[0], valid.shape[0]
    train, held = x.astype(np.float64), valid.astype(np.float64)
    values, weight = np.zeros(n), np.zeros((x.shape[1], classes))
    smooth = float(np.linalg.eigvalsh(train.T @ train)[-1]) / max(n, 1) / 2.0 if train.size else 0.0
    if smooth <= 0.0:
        return values
    rate = 1.0 / smooth
    for _ in range(steps):
        error, _p = _errors(train, weight, label)
        held_error, held_p = _errors(held, weight, valid_label)
        mean_step = train.T @ error / n
        toward = held.T @ held_error / m
        if second_order:
            along = held @ mean_step
            curved = held_p * (along - (held_p * along).sum(axis=1, keepdims=True))
            toward -= rate / 2.0 * (held.T @ curved / m)
        values += rate / n * ((train @ toward) * error).sum(axis=1)
        weight -= rate * mean_step
    return values


def _errors(x: F64, weight: F64, label: I64) -> tuple[F64, F64]:
    """Return p - onehot(y) and p, both (n, K)."""
    p: F64 = softmax(x @ weight, axis=1)
    error = p.copy()
    error[np.arange(label.size), label] -= 1.0
    return error, p


def _check(x: F32, label: I64, valid: F32, valid_label: I64) -> None:
    if label.shape != (x.shape[0],) or valid_label.shape != (valid.shape[0],):
        raise UsageError(f"{x.shape[0]} and {valid.shape[0]} rows have labels {label.shape} and {valid_label.shape}")
    if valid.shape[0] == 0 or valid.shape[1] != x.shape[1]:
        raise UsageError(f"valid has shape {valid.shape}; at least one row of {x.shape[1]} dimensions is needed")
