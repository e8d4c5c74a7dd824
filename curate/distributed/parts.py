"""What goes between the driver and the owners of kept rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from curate.neighbors.flat import asked
from curate_kernels.arrays import B1, F32, I64, U8
from curate_kernels.search import U16, Asked, Rotated


class Part(NamedTuple):
    """Rows with their numbers (n,), ascending.

    rows: (n, d), captions: (n, t), bits of float16; flags: (n,), bit 0: may be returned, bit 1: has a caption
    """

    numbers: I64
    rows: U16
    captions: U16
    flags: U8

    @classmethod
    def blank(cls, numbers: I64, width: int, beside: int) -> Part:
        """Return rows of zeros, with captions of the width `beside`."""
        rows, captions = (np.zeros((numbers.size, wide), dtype=np.uint16) for wide in (width, beside))
        return cls(numbers, rows, captions, np.zeros(numbers.size, dtype=np.uint8))

    def map(self, change: Callable[[Any], Any]) -> Part:
        """Return what becomes of the four arrays."""
        return Part(change(self.numbers), change(self.rows), change(self.captions), change(self.flags))

    def at(self, which: Any) -> Part:
        """Return some of the rows."""
        return self.map(lambda array: array[which])

    def write(self, where: Any, part: Part) -> None:
        """Set what some rows hold; their numbers stay."""
        self.rows[where], self.captions[where], self.flags[where] = part.rows, part.captions, part.flags

    def wider(self, width: int, beside: int) -> Part:
        """Return the rows with zeros behind them."""
        out = Part.blank(self.numbers, width, beside)
        out.rows[:, : self.rows.shape[1]] = self.rows
        out.captions[:, : self.captions.shape[1]] = self.captions
        out.flags[:] = self.flags
        return out


def joined(parts: Sequence[Part]) -> Part:
    """Return the rows of one or more parts in order of their numbers."""
    filled = [part for part in parts if part.numbers.size] or list(parts[:1])
    order = np.argsort(np.concatenate([part.numbers for part in filled]), kind="stable")
    numbers, flags = (np.concatenate([getattr(part, name) for part in filled])[order] for name in ("numbers", "flags"))
    rows, captions = (np.concatenate([getattr(part, name) for part in filled])[order] for name in ("rows", "captions"))
    return Part(numbers, rows, captions, flags)


class Query(NamedTuple):
    """What is asked of every owner; see `Asked` and `Kept`. turned: None where there are no lists."""

    queries: F32
    captions: F32
    captioned: B1
    least: tuple[float, float]
    k: int
    need: int
    turned: Rotated | None

    def ask(self) -> Asked:
        """Return it with room for an answer."""
        return asked(self.queries, self.k, self.captions, self.captioned, self.least)

    def turn(self) -> Rotated:
        """Return copies of the rotated queries: a kernel would be compiled again for arrays that cannot be written."""
        assert self.turned is not None
        return Rotated(self.turned.planes.copy(), self.turned.unit.copy(), self.turned.error.copy())


class Best(NamedTuple):
    """An answer: (b, k) best similarities, and (b,) similarity and number of the twin, -inf and -1 for none."""

    best: F32
    twin_sim: F32
    twin: I64


class Rough(NamedTuple):
    """Rows that are near by estimate, (b, c), best first: estimate, number (-1: none), similarity, may be the twin."""

    rough: F32
    numbers: I64
    sims: F32
    same: B1

    def best(self, k: int, least: float) -> Best:
        """Return the best k of the rows, and the twin: the most similar that may be, of equals the lowest."""
        count = min(k, self.sims.shape[1])
        best = np.full((self.sims.shape[0], k), -np.inf, dtype=np.float32)
        best[:, :count] = -np.sort(-self.sims, axis=1)[:, :count]
        near = np.where(self.same & (self.sims.astype(np.float64) >= least), self.sims, np.float32(-np.inf))
        first = np.lexsort((self.numbers, -near), axis=1)[:, :1]
        sim, twin = (np.take_along_axis(array, first, axis=1)[:, 0] for array in (near, self.numbers))
        return Best(best, sim, np.where(sim > -np.inf, twin, -1))


def best_known(parts: Sequence[Rough], count: int) -> Rough:
    """Return the `count` best by estimate of several parts; of equal ones the lowest, as in one process."""
    rough, numbers, sims, same = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    order = np.lexsort((numbers, -rough), axis=1)[:, :count]
    return Rough(*(np.take_along_axis(array, order, axis=1) for array in (rough, numbers, sims, same)))


def enter(ask: Asked, found: Best) -> None:
    """Enter what a part of the kept set gave."""
    both = np.concatenate([ask.best, found.best], axis=1)
    ask.best[:] = -np.sort(-both, axis=1)[:, : ask.best.shape[1]]
    lower = (found.twin_sim == ask.twin_sim) & (found.twin < ask.twin_row)
    better = (found.twin >= 0) & ((found.twin_sim > ask.twin_sim) | lower)
    ask.twin_sim[better], ask.twin_row[better] = found.twin_sim[better], found.twin[better]
