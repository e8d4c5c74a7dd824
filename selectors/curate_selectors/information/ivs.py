"""Greedy set-level V-information: the subset whose linear-Gaussian model says most about a target set.

I_V(S → T) of the linear-Gaussian family (Xu et al., ICLR 2020, arXiv:2002.10689) is limited by the variance of its
predictions over T, tr(A⁻¹M) with A = λI + Σ_S x x' and M = Σ_T x x' / m. Taking x lowers it by x'A⁻¹MA⁻¹x / (1 +
x'A⁻¹x): the greedy V-optimal design, A-optimal with M = I (Atkinson & Donev, Optimum Experimental Designs, 1992).
No y is read: under homoscedastic noise the design alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64
from curate_selectors.errors import SelectorError
from curate_selectors.information.design import Design
from curate_selectors.inputs import check_count, in_order, need_rows, need_target
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class SetInformation:
    """Each pick lowers the mean variance of predictions on the target set (without one: on all candidates) the most.

    design: `V`, over the target set; `A`, over all directions alike
    ridge: λ in units of 1/d, the mean square of a unit row's entries
    """

    design: str = "V"
    ridge: float = 1.0

    def __post_init__(self) -> None:
        if self.design not in ("V", "A") or not self.ridge > 0:
            raise SelectorError(f"design {self.design!r}, ridge {self.ridge}: needed are 'V' or 'A' and ridge > 0")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` picks; gain is the variance that each took off. Time O(n d count), memory O(n + d²)."""
        del seed  # nothing is drawn
        check_count(data, count)
        x = need_rows(data, "ivs")
        index = np.empty(count, dtype=np.int64)
        gain = np.empty(count, dtype=np.float32)
        if not count or not x.shape[1]:
            return in_order(np.arange(count), np.zeros(count, dtype=np.float32))
        state = Design(x, self.ridge / x.shape[1], self._moment(data, x))
        free = np.ones(data.n, dtype=np.bool_)
        for step in range(count):
            value = np.where(free, state.v / (1.0 + state.h), -np.inf)
            index[step] = np.argmax(value)
            gain[step] = value[index[step]]
            free[index[step]] = False
            state.take(int(index[step]))
        return in_order(index, gain)

    def _moment(self, data: Candidates, x: F32) -> F64:
        if self.design == "A":
            return np.eye(x.shape[1])
        target = x if data.target is None else need_target(data, "ivs")
        moment = np.zeros((x.shape[1], x.shape[1]))
        for start in range(0, target.shape[0], 4096):
            tile = target[start : start + 4096].astype(np.float64)
            moment += tile.T @ tile
        moment /= target.shape[0]
        return moment
