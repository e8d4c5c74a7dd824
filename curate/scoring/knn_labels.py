"""V-information of a label given the labels of nearest neighbours: smoothed votes.

q(y|x) = (n_y + κ π_y) / (k + κ) with n_y of the k neighbours in class y and π the class shares. The row itself is
never among its neighbours, so every value is out of sample. The vote is bounded, PVI ≥ log2(κ / (k + κ)), so one
strange row cannot dominate a mean; InfoGrowth's class gain 1 - p (arXiv 2405.18347) is the case κ = 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from curate.errors import UsageError
from curate_kernels.arrays import F32, F64, I64

VOTE_COLUMNS = ("s0_vote", "s1_vote", "pvi_vote")


def vote_weights(sim: F32, sharpness: float) -> F64:
    """Return exp(sharpness · (sim - best sim of the row)), (n, k) float64: 1 for the nearest, less for farther ones.

    sim: (n, k) float32, descending, -inf padding (weight 0); sharpness ≥ 0, and 0 weighs all neighbours alike
    """
    with np.errstate(invalid="ignore"):
        weight = np.exp(sharpness * (sim.astype(np.float64) - sim[:, :1].astype(np.float64)))
    weight[sim == -np.inf] = 0.0
    return weight


def vote_probability(votes: Any, total: Any, share: Any, kappa: float) -> F64:
    """Return q(y|x) = (votes + κ share) / (total + κ) of one class, from its votes, all votes and its share."""
    q: F64 = (votes + kappa * share) / (total + kappa)
    return q


def vote_shares(
    neighbor: I64, label: I64, classes: int, *, kappa: float = 2.0, weight: F64 | None = None
) -> tuple[F64, F64]:
    """Return q(y|x) and the leave-one-out class shares π of each row, both (n, K) float64.

    neighbor: (n, k) int64, rows of `label` and never the row itself, -1 padding; label: (n,) int64 in 0 … K-1
    weight: (n, k) float64 ≥ 0, what each neighbour's vote counts; 1 each if not given
    π_y = (n_y - [y = own] + 1/2) / (n - 1 + K/2), as in the LDA family
    """
    _check(neighbor, label, classes, kappa)
    n = label.size
    counts = np.bincount(label, minlength=classes).astype(np.float64)
    shares = np.tile(counts + 0.5, (n, 1))
    shares[np.arange(n), label] -= 1.0
    shares /= n - 1 + 0.5 * classes
    real = neighbor >= 0
    vote = np.where(real, 1.0 if weight is None else weight, 0.0)
    cell = np.arange(n)[:, None] * classes + label[np.where(real, neighbor, 0)]
    votes = np.bincount(cell.ravel(), weights=vote.ravel(), minlength=n * classes).reshape(n, classes)
    return vote_probability(votes, vote.sum(axis=1)[:, None], shares, kappa), shares


def _check(neighbor: I64, label: I64, classes: int, kappa: float) -> None:
    n = label.size
    if neighbor.ndim != 2 or neighbor.shape[0] != n:
        raise UsageError(f"neighbor has shape {neighbor.shape}; ({n}, k) is needed, one line per label")
    if kappa <= 0:
        raise UsageError(f"kappa is {kappa}; a smoothing above 0 is needed, else a label without votes is impossible")
    if n and (label.min() < 0 or label.max() >= classes):
        raise UsageError(f"labels run from {label.min()} to {label.max()}; 0 to {classes - 1} is allowed")
    if neighbor.size and neighbor.max() >= n:
        raise UsageError(f"neighbor names row {neighbor.max()}, but there are {n} rows")
    if (neighbor == np.arange(n)[:, None]).any():
        raise UsageError("neighbor names a row as its own neighbour; leave each row out of its own search")


def vote_bits(
    neighbor: I64, label: I64, classes: int, *, kappa: float = 2.0, weight: F64 | None = None
) -> dict[str, F32]:
    """Return VOTE_COLUMNS in bits, each (n,) float32; arguments as for `vote_shares`.

    s0_vote = -log2 π_y; s1_vote = -log2 q(y|x), higher means harder, at most log2((k + κ) / (κ π_y));
    pvi_vote = s0 - s1, higher means cleaner, at least log2(κ / (k + κ))
    """
    q, shares = vote_shares(neighbor, label, classes, kappa=kappa, weight=weight)
    rows = np.arange(label.size)
    s0, s1 = -np.log2(shares[rows, label]), -np.log2(q[rows, label])
    columns = {"s0_vote": s0, "s1_vote": s1, "pvi_vote": s0 - s1}
    return {name: value.astype(np.float32) for name, value in columns.items()}


def soft_pvi(target: F64, given: F64, null: F64) -> F32:
    """Return Σ_y q(y) [log2 g(y|x) - log2 g0(y)] of rows with soft labels, (m,) float32 bits: higher means cleaner.

    target: (m, K) float64, q, rows sum to 1 (a pseudo-label's posterior); given: (m, K), g; null: (K,) or (m, K), g0
    A class that the target gives no weight counts nothing, even where g or g0 is 0.
    """
    if target.shape != given.shape:
        raise UsageError(f"target has shape {target.shape}, given {given.shape}; both must be (rows, classes)")
    tiny = np.finfo(np.float64).tiny
    gain = np.log2(np.maximum(given, tiny)) - np.log2(np.maximum(null, tiny))
    bits: F32 = np.where(target > 0, target * gain, 0.0).sum(axis=1).astype(np.float32)
    return bits
