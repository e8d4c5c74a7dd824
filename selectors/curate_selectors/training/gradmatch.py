"""GradMatch: few weighted rows whose gradients sum to that of all (Killamsetty et al., ICML 2021, arXiv:2103.00123)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import B1, F32, F64, I64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count
from curate_selectors.training.byclass import by_class
from curate_selectors.training.probe import Labelled
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class GradMatch:
    """Orthogonal matching pursuit per class on the gradient of the class's own weights, (p_y - 1) x̃.

    Each pick correlates most with what the weighted picks leave of the class's summed gradient; then all weights are
    fitted again, none negative, with a ridge (algorithm 2, per class and last layer as in section 4). Each class gets
    its share of the budget. The weights are for training: they make the gradient unbiased as well as they can.

    epochs: of the probe's training; ridge: λ, in units of the class's mean squared gradient
    """

    epochs: int = 5
    ridge: float = 0.5

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise SelectorError(f"ridge is {self.ridge}; it must be above 0")
        if self.epochs < 1:
            raise SelectorError(f"epochs is {self.epochs}; it must be at least 1")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is the correlation at the pick. O(k_c (n_c d + k_c³)) a class, memory O(n d)."""
        check_count(data, count)
        known = Labelled.of(data, "gradmatch")
        error = known.errors(known.trained(self.epochs, seed))

        def pick(rows: I64, many: int) -> tuple[I64, F32, F32]:
            own = error[rows, known.y[rows]].astype(np.float64)
            return _pursue(own[:, None] * known.features(known.x[rows]), many, self.ridge)

        return by_class(data, known, count, pick)


def _pursue(gradient: F64, many: int, ridge: float) -> tuple[I64, F32, F32]:
    """Return places, correlations and weights of the picks for the sum of the rows of `gradient` (n, p)."""
    aim = gradient.sum(axis=0)
    penalty = ridge * max(float((gradient * gradient).sum()) / max(gradient.shape[0], 1), 1e-12)
    free = np.ones(gradient.shape[0], dtype=np.bool_)
    picks = np.zeros(many, dtype=np.int64)
    gain = np.zeros(many, dtype=np.float32)
    gram, bound = np.zeros((many, many)), np.zeros(many)
    weight: F64 = np.zeros(0)
    for done in range(many):
        left = aim - weight @ gradient[picks[:done]]
        match = np.where(free, (gradient @ left).astype(np.float32), -np.inf)  # equal rows tie, whatever the rounding
        place = int(np.argmax(match))
        picks[done], gain[done], free[place] = place, match[place], False
        column = gradient[picks[: done + 1]] @ gradient[place]
        gram[: done + 1, done] = gram[done, : done + 1] = column
        gram[done, done] += penalty
        bound[done] = gradient[place] @ aim
        weight = nonnegative(gram[: done + 1, : done + 1], bound[: done + 1], np.append(weight, 0.0))
    return picks, gain, weight.astype(np.float32)


def nonnegative(gram: F64, bound: F64, start: F64) -> F64:
    """Return argmin over w ≥ 0 of ½ wᵀ gram w - boundᵀ w for a positive definite gram (k, k), from a feasible w.

    Active sets: Lawson and Hanson 1974, on the normal equations (Bro and de Jong, J. Chemometrics 1997).
    """
    w = start.copy()
    active = w > 0
    tolerance = 1e-10 * max(float(np.abs(bound).max(initial=0.0)), 1e-300)
    for _ in range(3 * w.size + 10):
        w, active = _inside(gram, bound, w, active)
        slope = np.where(active, -np.inf, bound - gram @ w)
        if not slope.size or slope.max() <= tolerance:
            break
        active[int(np.argmax(slope))] = True
    return w


def _inside(gram: F64, bound: F64, w: F64, active: B1) -> tuple[F64, B1]:
    """Return the best w on the active set that stays non-negative; what reaches 0 on the way leaves the set."""
    while active.any():
        on = np.flatnonzero(active)
        best = np.linalg.solve(gram[np.ix_(on, on)], bound[on])
        if (best > 0).all():
            w = np.zeros_like(w)
            w[on] = best
            return w, active
        falls = best <= 0
        step = float((w[on][falls] / np.maximum(w[on][falls] - best[falls], 1e-300)).min())
        w = w.copy()
        w[on] += step * (best - w[on])
        gone = on[falls & (w[on] <= 1e-12 * max(float(w.max()), 1e-300))]
        active = active.copy()
        active[gone if gone.size else on[falls][:1]] = False
        w[~active] = 0.0
    return np.zeros_like(w), active
