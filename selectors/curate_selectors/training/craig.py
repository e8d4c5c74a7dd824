"""CRAIG: medoids of the gradients, weighted by how many rows each stands for (Mirzasoleiman et al., ICML 2020)."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count
from curate_selectors.training.byclass import by_class
from curate_selectors.training.probe import Labelled
from curate_selectors.types import Candidates, Selection

_BLOCK = 512
_ENTRIES = 1 << 18  # distances at once; 2 MB of float64


@dataclass(frozen=True, slots=True)
class Craig:
    """Per class, greedily the rows that bring Σ_i min_j ‖g_i - g_j‖ down most; arXiv:1906.01827, equation 12.

    Gradients are those of a probe's last layer after a short training. A pick's weight is the number of rows that are
    nearest to it, itself among them, so a class's weights sum to its size. Each class gets its share of the budget.

    epochs: of the probe's training
    """

    epochs: int = 5

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise SelectorError(f"epochs is {self.epochs}; it must be at least 1")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` medoids; gain is what each took off the sum. O(n_c² (C + d)) a class, memory O(n (C + d))."""
        check_count(data, count)
        known = Labelled.of(data, "craig")
        error = known.errors(known.trained(self.epochs, seed)).astype(np.float64)

        def pick(rows: I64, many: int) -> tuple[I64, F32, F32]:
            return _medoids(_Gradients(error[rows], known.features(known.x[rows])), many)

        return by_class(data, known, count, pick)


class _Gradients:
    """Distances between the gradients δ ⊗ x̃ of the rows of a class."""

    def __init__(self, error: F64, features: F64) -> None:
        self._error, self._features = error, features
        self._square = (error * error).sum(axis=1) * (features * features).sum(axis=1)
        self.size = error.shape[0]
        self.block = max(1, min(_BLOCK, _ENTRIES // max(self.size, 1)))
        self.bound = 2.0 * float(np.sqrt(self._square.max(initial=0.0)))

    def to(self, rows: I64) -> F64:
        """Return the distances of all gradients to those of `rows`, (n, b) float64."""
        inner = (self._error @ self._error[rows].T) * (self._features @ self._features[rows].T)
        square = self._square[:, None] + self._square[rows] - 2.0 * inner
        square[rows, np.arange(rows.size)] = 0.0  # the root makes 1e-8 of a rounding error of 1e-16
        out: F64 = np.sqrt(np.maximum(square, 0.0))
        return out


def _medoids(of: _Gradients, many: int) -> tuple[I64, F32, F32]:
    """Return places, gains and weights of greedy medoids; lazily, as gains only shrink."""
    picks: list[int] = []
    gains: list[float] = []
    if not many:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32)
    near = np.full(of.size, of.bound)
    nearest = np.zeros(of.size, dtype=np.int64)
    starts = range(0, of.size, of.block)
    first = [(near[:, None] - of.to(np.arange(s, min(s + of.block, of.size)))).sum(axis=0) for s in starts]
    heap = [(-float(np.float32(gain)), place, 0) for place, gain in enumerate(np.concatenate(first))]
    heapq.heapify(heap)
    while len(picks) < many:
        size = min(4, of.block)
        while heap[0][2] < len(picks):  # bring the best bounds up to date, more and more of them together
            size = min(2 * size, of.block)
            _refresh(of, near, heap, size, len(picks))
        gain, place, _ = heapq.heappop(heap)
        distance = of.to(np.array([place]))[:, 0]
        closer = distance < near if picks else np.ones(of.size, dtype=np.bool_)
        closer[place] = True  # a pick stands for itself, however near another one is
        near[closer] = distance[closer]
        nearest[closer] = len(picks)
        picks.append(place)
        gains.append(-gain)
    weight = np.bincount(nearest, minlength=many).astype(np.float32)
    return np.array(picks, dtype=np.int64), np.array(gains, dtype=np.float32), weight


def _refresh(of: _Gradients, near: F64, heap: list[tuple[float, int, int]], size: int, now: int) -> None:
    """Compute the gains of at most `size` stale entries at the top of the heap anew."""
    stale: list[int] = []
    while heap and len(stale) < size and heap[0][2] < now:
        stale.append(heapq.heappop(heap)[1])
    gain = np.maximum(near[:, None] - of.to(np.array(stale)), 0.0).sum(axis=0).astype(np.float32)
    for place, value in zip(stale, gain.tolist(), strict=True):
        heapq.heappush(heap, (-value, place, now))
