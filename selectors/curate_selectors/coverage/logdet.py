"""Log-determinant of the picks' kernel, greedily (Chen, Zhang & Zhou 2018, arXiv:1709.05135)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_selectors.coverage.blocks import TAKEN, largest
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.parts import ascending, over_parts, random_parts
from curate_selectors.types import Candidates, Selection

_TILE = 8192


@dataclass(frozen=True, slots=True)
class LogDet:
    """Greedy MAP of a determinantal point process with kernel X Xᵀ + ridge I: f(S) = log det(I + X_S X_Sᵀ / ridge).

    A row's gain is log(1 + h), h = xᵀ A⁻¹ x with A = ridge I + Σ x xᵀ over the picks. A pick j lowers every h by
    (xᵀ u)², u = A⁻¹ x_j / √(1 + h_j); √ridge xᵀ u is the number that Chen's algorithm appends to c_i, here from d
    numbers and not from all picks before (the low-rank form). As h only falls, picks are made among the rows with the
    largest h as long as none outside had more; then one matrix product brings all rows up to date.

    ridge: variance that every row keeps; at least 1e-4, as picks beyond the d-th add nothing without it, and float32
        products tell gains to some 1e-7 / ridge
    block: rows among which picks are made at once
    parts: 2 or more for GreeDi: greedy in random parts, then among what they picked (Mirzasoleiman et al. 2013); not
        nested
    """

    ridge: float = 0.1
    block: int = 512
    parts: int = 1

    def __post_init__(self) -> None:
        if self.parts < 1:
            raise SelectorError(f"parts is {self.parts}; at least 1 is needed")
        if not self.ridge >= 1e-4 or self.block < 1:
            raise SelectorError(f"ridge is {self.ridge}, block {self.block}; at least 1e-4 and 1 are needed")

    @property
    def nested(self) -> bool:
        """Tell whether a smaller selection is a prefix of a larger one."""
        return self.parts == 1

    @property
    def spread(self) -> bool:
        """Tell whether parts may be worked on elsewhere."""
        return self.parts > 1

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows, greedy order; gain is what each adds to f. Time O(count n d), memory O(n + d²).

        The seed draws the parts, where there are several.
        """
        check_count(data, count)
        if self.parts > 1:
            index, gain = self._in_parts(data, count, seed)
        else:
            index, gain = self._greedy(need_rows(data, "log-det"), count)
        return in_order(index, gain.astype(np.float32))

    def _in_parts(self, data: Candidates, count: int, seed: int) -> tuple[I64, F64]:
        """Pick in each part, then among these, unless one part's picks are better."""
        owner = random_parts(data.n, self.parts, np.random.default_rng(seed))
        parts = list(over_parts(data, "log-det", owner, self._of_part, [{"count": count}] * self.parts))
        found = [np.flatnonzero(owner == part)[own["picked"]] for part, own in enumerate(parts)]
        some, x = ascending(found, [own["x"] for own in parts])
        index, gain = self._greedy(x, count)
        best, most = some[index], gain
        for picks, own in zip(found, parts, strict=True):
            if picks.size == count and own["gain"].sum() > most.sum():
                best, most = picks, own["gain"]
        return best, most

    def _of_part(self, x: F32, told: dict[str, Any]) -> dict[str, Any]:
        picked, gain = self._greedy(x, min(told["count"], x.shape[0]))
        return {"picked": picked, "gain": gain, "x": x[picked]}

    def _greedy(self, x: F32, count: int) -> tuple[I64, F64]:
        """Return picks among the rows x (n, d), and what each adds to f."""
        # Rows of norm 1 are equal to begin with: what their squares sum to beyond that is rounding.
        h = np.round(np.einsum("ij,ij->i", x, x, dtype=np.float64), 5) / self.ridge
        inverse = np.eye(x.shape[1]) / self.ridge
        index, gain = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float64)
        done = 0
        while done < count:
            done += self._among(x, h, inverse, index[done:], gain[done:])
        return index, np.log1p(gain)

    def _among(self, x: F32, h: F64, inverse: F64, index: I64, gain: F64) -> int:
        """Pick among the rows with the largest h, write which and their h, renew h and A⁻¹, and return how many."""
        block, outside, outside_row = largest(h, self.block)
        rows, own = x[block], h[block]
        steps = np.empty((min(block.size, index.size), x.shape[1]), dtype=np.float64)
        found: list[int] = []
        while len(found) < index.size:
            best = int(own.argmax())
            row = int(block[best])
            if own[best] < max(outside, 0.0) or (own[best] == outside and row > outside_row):
                break
            gain[len(found)] = own[best]
            before = steps[: len(found)]
            step = (inverse @ x[row] - (before @ x[row]) @ before) / np.sqrt(1 + own[best])
            steps[len(found)] = step
            own = np.where(own < 0, TAKEN, np.maximum(own - (rows @ step.astype(np.float32)) ** 2, 0))
            own[best] = TAKEN
            found.append(row)
        steps = steps[: len(found)]
        inverse -= steps.T @ steps
        _lower(x, steps.T.astype(np.float32), h)
        index[: len(found)] = found
        h[found] = TAKEN
        return len(found)


def _lower(x: F32, steps: F32, h: F64) -> None:
    """Lower the h of every free row by the squares of xᵀ u. steps: (d, t) float32."""
    for start in range(0, x.shape[0], _TILE):
        part = h[start : start + _TILE]
        fall = np.square(x[start : start + _TILE] @ steps).sum(axis=1)
        np.copyto(part, np.maximum(part - fall, 0), where=part >= 0)
