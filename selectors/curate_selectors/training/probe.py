"""A linear probe's short training, and the gradients of its loss, in factors.

The loss is -log softmax(W x̃)_y with x̃ = [centred and scaled x, 1]. A row's gradient is the outer product of δ = p - y
and x̃, so inner products of gradients are (δ·δ')(x̃·x̃') and no gradient of C·(d+1) numbers is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import need_labels, need_rows
from curate_selectors.types import Candidates

_BATCH = 128
_RATE = 1.0  # the Hessian of a row is at most ½ ‖x̃‖², about 1
_TILE = 4096


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labelled candidates: rows (m,) of them, x (m, d) float32, y (m,) int64 classes 0 … classes - 1.

    centre, scale: what turns x into features
    """

    rows: I64
    x: F32
    y: I64
    classes: int
    centre: F64
    scale: float

    @classmethod
    def of(cls, data: Candidates, method: str) -> Labelled:
        """Return the labelled ones of the candidates. Raises SelectorError when none of them has a label."""
        x, label = need_rows(data, method), need_labels(data, method)
        rows = np.flatnonzero(label >= 0)
        if data.n and not rows.size:
            raise SelectorError(f"method {method!r} needs labels, and every one is unknown")
        y = np.unique(label[rows], return_inverse=True)[1].reshape(-1).astype(np.int64)
        part = x[rows]
        centre = part.mean(axis=0, dtype=np.float64) if rows.size else np.zeros(x.shape[1])
        spread = sum(float(((part[s : s + _TILE] - centre) ** 2).sum()) for s in range(0, rows.size, _TILE))
        scale = np.sqrt(rows.size / spread) if spread > 1e-12 * rows.size else 1.0
        return cls(rows, part, y, int(y.max(initial=-1)) + 1, centre, float(scale))

    def features(self, x: F32) -> F64:
        """Return x̃ of rows x (b, d): (b, d + 1) float64, of mean square norm 2."""
        scaled = (x.astype(np.float64) - self.centre) * self.scale
        return np.concatenate([scaled, np.ones((x.shape[0], 1))], axis=1)

    def tiles(self) -> Iterator[tuple[slice, F64]]:
        """Yield the features of all rows, a few thousand together."""
        for start in range(0, self.y.size, _TILE):
            part = slice(start, start + _TILE)
            yield part, self.features(self.x[part])

    def errors(self, weight: F64) -> F32:
        """Return δ = p - y of every row under weights (C, d + 1), (m, C) float32."""
        out = np.empty((self.y.size, self.classes), dtype=np.float32)
        for part, features in self.tiles():
            out[part] = softmax(features @ weight.T)
        out[np.arange(self.y.size), self.y] -= 1
        return out

    def norms(self) -> F64:
        """Return ‖x̃‖ of every row, (m,) float64."""
        parts = [np.linalg.norm(features, axis=1) for _, features in self.tiles()]
        return np.concatenate([np.zeros(0), *parts])

    def train(self, epochs: int, seed: int) -> Iterator[F64]:
        """Yield the weights (C, d + 1) after each epoch of stochastic gradient descent, from small random ones."""
        rng = np.random.default_rng(seed)
        weight = 0.01 * rng.normal(size=(self.classes, self.centre.size + 1))
        for _ in range(epochs):
            order = rng.permutation(self.y.size)
            for start in range(0, order.size, _BATCH):
                batch = order[start : start + _BATCH]
                features = self.features(self.x[batch])
                p = softmax(features @ weight.T)
                p[np.arange(batch.size), self.y[batch]] -= 1
                weight = weight - (_RATE / batch.size) * (p.T @ features)
            yield weight

    def trained(self, epochs: int, seed: int) -> F64:
        """Return the weights after the last epoch."""
        weight = np.zeros((self.classes, self.centre.size + 1))
        for after in self.train(epochs, seed):
            weight = after
        return weight

    def then_others(self, order: I64, n: int) -> I64:
        """Return candidates in order: the labelled rows `order` (numbers of `rows`), then those without a label."""
        mine = self.rows[order]
        return np.concatenate([mine, np.setdiff1d(np.arange(n), self.rows)]).astype(np.int64)


def softmax(score: F64) -> F64:
    """Return the softmax of each row, (b, C) float64."""
    score = score - score.max(axis=1, keepdims=True)
    np.exp(score, out=score)
    out: F64 = score / score.sum(axis=1, keepdims=True)
    return out
