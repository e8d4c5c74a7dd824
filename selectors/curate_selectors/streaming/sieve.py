"""Sieve-streaming: a (1/2 - ε)-approximation of the best set in one pass.

Badanidiyuru et al., Streaming Submodular Maximization, KDD 2014; Sieve-Streaming++: Kazemi et al., ICML 2019,
arXiv:1905.00948.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_kernels.sieve import sieve_rows
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order
from curate_selectors.tiles import row_tiles, sample_tile
from curate_selectors.types import Candidates, Selection

_TILE = 1024


@dataclass(frozen=True, slots=True)
class SieveStreaming:
    """Facility location over a sample of the rows: the mean of their similarity max(0, cosine) to the nearest pick.

    The sample is taken before the pass, evenly over the candidates, so that the objective does not change on the way.
    The sieve of the largest value is returned. If it took fewer than `count`, uniform draws among the others follow,
    which is why a smaller selection is not a prefix of a larger one.

    epsilon: ratio of neighbouring guesses of the best value, minus 1; reference: rows in the sample
    plus: sieves under the best value so far are dropped (Kazemi et al.): O(count / ε) rows in memory, else · log count
    """

    epsilon: float = 0.1
    reference: int = 1024
    plus: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < 1 or self.reference < 1:
            raise SelectorError(
                f"epsilon {self.epsilon}, reference {self.reference}: needed are 0 < epsilon < 1, reference ≥ 1"
            )

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` picks; gain is what each added to the mean similarity, 0 of those drawn to fill up."""
        check_count(data, count)
        reference = sample_tile(data, "sieve-streaming", self.reference)
        if not count:
            return in_order(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        sieves = Sieves(count, self.epsilon, self.plus, reference.shape[0])
        for start, rows in row_tiles(data, "sieve-streaming", _TILE):
            sieves.add(start, np.maximum(rows @ reference.T, 0.0))
        index, gain = sieves.best()
        drawn = np.random.default_rng(seed).permutation(data.n)
        rest = drawn[~np.isin(drawn, index)][: count - index.size]
        chosen = in_order(np.concatenate([index, rest]), np.concatenate([gain, np.zeros(rest.size, dtype=np.float32)]))
        chosen.probability[index.size :] = rest.size / max(data.n - index.size, 1)
        return chosen


class Sieves:
    """The sieves of one pass: exponents i of the guesses (1 + ε)^i, and what each took."""

    def __init__(self, count: int, epsilon: float, plus: bool, reference: int) -> None:
        self._count, self._plus, self._base = count, plus, math.log1p(epsilon)
        self._single = 0.0  # largest value of one row so far
        self._guess: list[int] = []
        self._best: F32 = np.zeros((0, reference), dtype=np.float32)
        self._value: F64 = np.zeros(0)
        self._size: I64 = np.zeros(0, dtype=np.int64)
        self._picks: list[list[tuple[I64, F32]]] = []  # of each sieve: rows and their gains, batch by batch

    def add(self, start: int, sim: F32) -> None:
        """Offer the rows from `start` on, with their similarities (b, reference) ≥ 0."""
        single = np.maximum.accumulate(np.maximum(sim.mean(axis=1, dtype=np.float64), self._single))
        with np.errstate(divide="ignore"):
            level = np.ceil(np.log(single) / self._base)  # lowest guess: changes a few times in a whole stream
        cuts = [0, *(np.flatnonzero(np.diff(level)) + 1).tolist(), sim.shape[0]]
        for first, last in pairwise(cuts):
            self._single = float(single[last - 1])
            self._guesses(self._single)
            self._offer(start + first, sim[first:last])

    def _guesses(self, single: float) -> None:
        """Keep the sieves from the largest single value (or the best value so far) to 2 count times the former."""
        if single <= 0:
            return
        least = max(single, float(self._value.max(initial=0.0))) if self._plus else single
        low = math.ceil(math.log(least) / self._base - 1e-9)
        high = math.floor(math.log(2 * self._count * single) / self._base + 1e-9)
        top = int(np.argmax(self._value)) if self._guess else -1  # never dropped, though its guess may be too low
        kept = [s for s, i in enumerate(self._guess) if i >= low or s == top]
        old = {self._guess[s] for s in kept}
        new = [i for i in range(low, high + 1) if i not in old]
        self._guess = [self._guess[s] for s in kept] + new
        self._picks = [self._picks[s] for s in kept] + [[] for _ in new]
        self._best = np.vstack([self._best[kept], np.zeros((len(new), self._best.shape[1]), dtype=np.float32)])
        self._value = np.concatenate([self._value[kept], np.zeros(len(new))])
        self._size = np.concatenate([self._size[kept], np.zeros(len(new), dtype=np.int64)])

    def _offer(self, start: int, sim: F32) -> None:
        guess = np.exp(self._base * np.array(self._guess, dtype=np.float64))
        gain = np.empty((sim.shape[0], guess.size), dtype=np.float32)
        sieve_rows(sim, guess, self._count, self._plus, self._best, self._value, self._size, gain)
        for s in np.flatnonzero((gain >= 0).any(axis=0)):
            rows = np.flatnonzero(gain[:, s] >= 0)
            self._picks[s].append((start + rows, gain[rows, s]))

    def best(self) -> tuple[I64, F32]:
        """Return the rows of the sieve with the largest value, in the order taken, and their gains."""
        picks = self._picks[int(np.argmax(self._value))] if self._picks else []
        none = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        index, gain = zip(none, *picks, strict=True)
        return np.concatenate(index), np.concatenate(gain)
