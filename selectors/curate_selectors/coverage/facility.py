"""Facility location: every candidate near to a pick, Σ_i max_{j in S} s_ij with s = max(0, cosine).

Greedy picks reach 1 - 1/e of the best value (Nemhauser, Wolsey & Fisher 1978); the lazy form makes the same picks
(Minoux 1978); among ln(1/ε) n / m random candidates a pick, 1 - 1/e - ε is left (Mirzasoleiman et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_kernels.greedy import cover_lists, cover_rows, cover_some
from curate_selectors.coverage.graph import nearest_rows
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.parts import ascending, over_parts, random_parts, some_rows
from curate_selectors.types import Candidates, Selection

_DENSE = 16_384  # rows whose similarities are held at once, 1 GiB
_SPARSE = 64


@dataclass(frozen=True, slots=True)
class FacilityLocation:
    """Greedy maximisation of facility location.

    neighbors: nearest neighbours that can cover a row; 0: every row can, for 16,384 candidates at most
    epsilon: 0 for the exact greedy picks, else stochastic greedy with this loss, .1 at most; needs neighbors = 0; not
        nested
    parts: 2 or more for GreeDi: greedy in random parts, then among what they picked (Mirzasoleiman et al. 2013); not
        nested
    """

    neighbors: int = 64
    epsilon: float = 0.0
    parts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 0.1:
            raise SelectorError(f"epsilon is {self.epsilon}; it must lie in 0 … .1, as larger ones pick at random")
        if self.neighbors < 0 or self.parts < 1:
            raise SelectorError(f"neighbors is {self.neighbors}, parts {self.parts}; at least 0 and 1 are needed")
        if self.epsilon and self.neighbors:
            raise SelectorError("epsilon needs all similarities: set neighbors = 0, and parts for many rows")

    @property
    def nested(self) -> bool:
        """Tell whether a smaller selection is a prefix of a larger one."""
        return self.parts == 1 and not self.epsilon

    @property
    def spread(self) -> bool:
        """Tell whether parts may be worked on elsewhere."""
        return self.parts > 1

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows, greedy order; gain is what each adds to the objective.

        Memory O(n neighbors), with neighbors = 0 O(n²), 1 GiB at most. Time O(n² d / 2), in p parts a p-th of it.
        """
        check_count(data, count)
        rng = np.random.default_rng(seed)
        if self.parts > 1:
            picked, gain = self._in_parts(data, count, seed, rng)
        else:
            x = need_rows(data, "facility-location")
            picked, gain = self._greedy(x, x, count, rng)
        return in_order(picked, gain.astype(np.float32))

    def _greedy(self, x: F32, covered: F32, count: int, rng: np.random.Generator) -> tuple[I64, F64]:
        """Return picks among the rows x and their gains; covered: x itself, or other rows to cover."""
        picked, gain = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float64)
        near = np.zeros(covered.shape[0], dtype=np.float32)
        if count == 0:
            return picked, gain
        if covered is x and self.neighbors:
            cover_lists(*_lists(x, self.neighbors), near, picked, gain)
        elif x.shape[0] * covered.shape[0] > _DENSE * _DENSE:
            raise SelectorError(f"{x.shape[0]} rows are too many for neighbors = 0; give neighbors, or more parts")
        elif self.epsilon:
            cover_some(x @ covered.T, self._draw(x.shape[0], count, rng), near, picked, gain)
        else:
            cover_rows(x @ covered.T, near, picked, gain)
        return picked, gain

    def _draw(self, n: int, count: int, rng: np.random.Generator) -> F64:
        return rng.random((count, min(n, int(np.ceil(n / count * np.log(1 / self.epsilon))))))

    def _in_parts(self, data: Candidates, count: int, seed: int, rng: np.random.Generator) -> tuple[I64, F64]:
        """Pick in each part, then among these, unless one part's picks are better.

        Values are measured on as many rows as fit beside the picks in 1 GiB, and told for all.
        """
        owner = random_parts(data.n, self.parts, rng)
        told = [{"count": count, "seed": [seed, part]} for part in range(self.parts)]
        parts = list(over_parts(data, "facility-location", owner, self._of_part, told))
        found = [np.flatnonzero(owner == part)[own["picked"]] for part, own in enumerate(parts)]
        some, x = ascending(found, [own["x"] for own in parts])
        room = max(1, _DENSE * _DENSE // max(some.size, 1))
        sample = some_rows(data, "facility-location", np.sort(rng.permutation(data.n)[:room]))
        picked, gain = self._greedy(x, sample, count, rng)
        best, most = some[picked], gain
        for picks, own in zip(found, parts, strict=True):
            if picks.size == count and (gains := _gains(own["x"], sample)).sum() > most.sum():
                best, most = picks, gains
        return best, most * (data.n / max(sample.shape[0], 1))

    def _of_part(self, x: F32, told: dict[str, Any]) -> dict[str, Any]:
        picked, _ = self._greedy(x, x, min(told["count"], x.shape[0]), np.random.default_rng(told["seed"]))
        return {"picked": picked, "x": x[picked]}


def _gains(rows: F32, covered: F32) -> F64:
    """Return what each row adds, in this order, to the cover of other rows."""
    near = np.zeros(covered.shape[0], dtype=np.float32)
    gain = np.empty(rows.shape[0])
    for i, row in enumerate(rows):
        sim = covered @ row
        gain[i] = np.maximum(sim - near, 0).sum(dtype=np.float64)
        np.maximum(near, sim, out=near)
    return gain


def _lists(x: F32, k: int) -> tuple[I64, np.ndarray, F32]:
    """Return for each row those that have it among their k nearest, itself among them, as `cover_lists` reads them."""
    n = x.shape[0]
    sim, row = nearest_rows(x, min(k, max(n - 1, 1)))
    keep = (row >= 0) & (sim > 0)
    by = np.concatenate([row[keep], np.arange(n)])
    covered = np.concatenate([np.repeat(np.arange(n, dtype=np.int32), keep.sum(axis=1)), np.arange(n, dtype=np.int32)])
    value = np.concatenate([sim[keep], np.einsum("ij,ij->i", x, x)])
    order = np.argsort(by, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(by, minlength=n))]).astype(np.int64)
    return start, covered[order].astype(np.int32), value[order].astype(np.float32)
