"""GLISTER: rows whose gradient step lowers the loss on a validation set (Killamsetty et al., AAAI 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_target
from curate_selectors.training.probe import Labelled, softmax
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class Glister:
    """Greedily the rows of the largest first-order gain ⟨g_i, ∇L_val⟩; arXiv:2012.10630, algorithm 2 with Taylor gains.

    After every `step` picks the probe takes their gradient step, and the validation gradient is computed anew: what the
    picks taught is not asked for again. The validation set is the target, of which rows count
    whose label candidates have too; without a target all candidates. Rows without a label come last.

    epochs: of the probe's training; step: picks between two updates; rate: of the step that a pick makes
    """

    epochs: int = 3
    step: int = 16
    rate: float = 0.05

    def __post_init__(self) -> None:
        if self.step < 1 or not self.rate > 0:
            raise SelectorError(f"step is {self.step}, rate {self.rate}; at least 1 and above 0 are needed")
        if self.epochs < 1:
            raise SelectorError(f"epochs is {self.epochs}; it must be at least 1")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is the gain at the pick. Time O(count/step · n C d), memory O(n (C + d))."""
        check_count(data, count)
        known = Labelled.of(data, "glister")
        aim, aim_y = _validation(data, known)
        weight = known.trained(self.epochs, seed)
        error = known.errors(weight)
        free = np.ones(known.y.size, dtype=np.bool_)
        picks: list[int] = []
        gain = np.zeros(data.n, dtype=np.float32)
        while len(picks) < min(count, known.y.size):
            value = _gains(known, error, _gradient(known, weight, aim, aim_y))
            order = np.argsort(np.where(free, -value, np.inf), kind="stable")[: min(self.step, int(free.sum()))]
            picks += order.tolist()
            free[order] = False
            gain[known.rows[order]] = value[order]
            weight = weight - self.rate * error[order].T.astype(np.float64) @ known.features(known.x[order])
        index = known.then_others(np.array(picks, dtype=np.int64), data.n)[:count]
        return in_order(index, gain[index])


def _validation(data: Candidates, known: Labelled) -> tuple[F32, I64]:
    """Return the validation rows and their classes. Raises SelectorError where no row of the target has a known one."""
    if data.target is None or not known.y.size:
        return known.x, known.y
    target = need_target(data, "glister")
    label = data.target_label
    if label is None or label.shape != (target.shape[0],):
        raise SelectorError(f"method 'glister' needs labels of the target, one of each of its {target.shape[0]} rows")
    assert data.label is not None
    names = np.unique(data.label[known.rows])
    place = np.minimum(np.searchsorted(names, label), names.size - 1)
    there = names[place] == label
    if not there.any():
        raise SelectorError("no row of the target has a label that a candidate has; method 'glister' needs some")
    return target[there], place[there].astype(np.int64)


def _gradient(known: Labelled, weight: F64, x: F32, y: I64) -> F64:
    """Return the mean gradient of the validation loss, (C, d + 1)."""
    total = np.zeros_like(weight)
    for start in range(0, y.size, 4096):
        features, at = known.features(x[start : start + 4096]), y[start : start + 4096]
        p = softmax(features @ weight.T)
        p[np.arange(at.size), at] -= 1
        total += p.T @ features
    return total / max(y.size, 1)


def _gains(known: Labelled, error: F32, gradient: F64) -> F32:
    """Return ⟨δ ⊗ x̃, gradient⟩ of every labelled row, (m,) float32."""
    out = np.zeros(known.y.size, dtype=np.float32)
    for part, features in known.tiles():
        out[part] = ((error[part] @ gradient) * features).sum(axis=1)
    return out
