"""GradMatch: few weighted rows whose gradients sum to that of all (Killamsetty et al., ICML 2021, arXiv:2103.00123)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64, I64
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
        """Return `count` rows; gain is the correlation at the pick. O(k_c (n_c d + k_c²)) a class.

        Memory O(n d + k_c²)."""
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
    fit = NonNegative(gradient, aim, penalty, many)
    for done in range(many):
        left = aim - fit.weight[picks[:done]] @ gradient[picks[:done]]
        match = np.where(free, (gradient @ left).astype(np.float32), -np.inf)  # equal rows tie, whatever the rounding
        place = int(np.argmax(match))
        picks[done], gain[done], free[place] = place, match[place], False
        fit.add(place)
    return picks, gain, fit.weight[picks].astype(np.float32)


class NonNegative:
    """argmin over w ≥ 0 of ½ ‖aim - Σ w_i g_i‖² + ½ penalty ‖w‖², as rows g_i are added one by one.

    Active sets: Lawson and Hanson 1974, on the normal equations (Bro and de Jong, J. Chemometrics 1997). One Cholesky
    factor of the active rows' Gram matrix is carried along, inverted: O(k²) memory, and O(k²) time a row where no
    weight falls to 0.

    gradient: (n, p) float64, rows that may be added; aim: (p,) float64; penalty above 0; room: how many may be added
    """

    def __init__(self, gradient: F64, aim: F64, penalty: float, room: int) -> None:
        self.weight = np.zeros(gradient.shape[0])  # w, 0 for rows that were not added
        self._gradient, self._aim, self._penalty = gradient, aim, penalty
        self._added: list[int] = []
        self._on: list[int] = []  # active rows, in the order of the factor
        self._inverse = np.zeros((room, room))  # of the Cholesky factor: no product with it copies it
        self._most = 1e-300  # largest |⟨g_i, aim⟩| so far

    def add(self, row: int) -> None:
        """Add a row, and fit all weights anew."""
        self._added.append(row)
        self._most = max(self._most, abs(float(self._gradient[row] @ self._aim)))
        self._enter(row)
        for _ in range(3 * len(self._added) + 10):
            self._inside()
            idle = np.setdiff1d(self._added, self._on)
            left = self._aim - self.weight[self._on] @ self._gradient[self._on]
            slope = self._gradient[idle] @ left
            if not slope.size or slope.max() <= 1e-10 * self._most:
                break
            self._enter(int(idle[np.argmax(slope)]))

    def _enter(self, row: int) -> None:
        own, m = self._gradient[row], len(self._on)
        side = self._inverse[:m, :m] @ (self._gradient[self._on] @ own)
        # What a row adds to the others is at least the penalty, whatever the rounding.
        corner = np.sqrt(max(float(own @ own - side @ side), 0.0) + self._penalty)
        self._inverse[m, :m] = -(side @ self._inverse[:m, :m]) / corner
        self._inverse[m, m] = 1.0 / corner
        self._on.append(row)

    def _leave(self, at: int) -> None:
        """Take the active row at a place out: those after it enter anew."""
        self.weight[self._on[at]] = 0.0
        after = self._on[at + 1 :]
        del self._on[at:]
        for row in after:
            self._enter(row)

    def _inside(self) -> None:
        """Find the best weights on the active set that stay non-negative; what reaches 0 on the way leaves the set."""
        while self._on:
            m = len(self._on)
            inverse = self._inverse[:m, :m]
            best = (inverse @ (self._gradient[self._on] @ self._aim)) @ inverse
            if (best > 0).all():
                self.weight[self._on] = best
                return
            now, falls = self.weight[self._on], best <= 0
            now += float((now[falls] / np.maximum(now[falls] - best[falls], 1e-300)).min()) * (best - now)
            self.weight[self._on] = now
            gone = np.flatnonzero(falls & (now <= 1e-12 * max(float(now.max()), 1e-300)))
            for at in (gone if gone.size else np.flatnonzero(falls)[:1])[::-1].tolist():
                self._leave(at)
