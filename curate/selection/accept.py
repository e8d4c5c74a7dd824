"""Which rows of a ranking are taken so that all constraints hold: the first selection, in the ranking's order.

Going down the ranking, a row is taken if what is taken so far can still be completed. Rows that count for the same
bounds (and, where groups go whole, groups that do) are of one kind; once a kind cannot be taken any more it never can,
since the room only shrinks. With one bounded column a few sums tell what can be completed. Where columns overlap those
sums are necessary only; a selection that they lead to is right all the same if it is complete, else an integer
program over the kinds decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from curate.selection.constraints import Limits
from curate_kernels.arrays import I64


@dataclass(frozen=True, slots=True)
class Kind:
    """Units that are alike: rows in one unit, and (bound, rows that count for it), of bounded values only."""

    size: int
    counts: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Taken:
    """What is taken: units in order, rows of each bound, rows left in the budget, rows missing by column."""

    units: list[int]
    count: list[int]
    left: int
    missing: list[int]
    stopped: bool = False  # a whole group did not fit: only what minima ask for is still taken
    closed: set[int] = field(default_factory=set)  # kinds of which nothing more can be taken


class Plan:
    """The constraints on n candidates for one budget. `exact`: it must be met, as it can be without whole groups."""

    def __init__(self, limits: Limits, n: int, count: int) -> None:
        self.limits, self.count, self.exact = limits, count, limits.unit is None
        if limits.unit is None:
            self.unit: I64 = np.arange(n, dtype=np.int64)
        else:
            self.unit = np.unique(limits.unit, return_inverse=True)[1].reshape(-1).astype(np.int64)
        self.low = [bound.low for bound in limits.bounds]
        self.high = [n if bound.high < 0 else bound.high for bound in limits.bounds]
        number = {column: i for i, column in enumerate(sorted({bound.column for bound in limits.bounds}))}
        self.column = [number[bound.column] for bound in limits.bounds]
        self.kinds, self.kind = _kinds(limits, self.unit)
        self.keep = list(dict.fromkeys(self.unit[limits.keep].tolist()))

    def start(self) -> Taken:
        """Return what must be kept."""
        missing = [0] * (max(self.column, default=-1) + 1)
        for bound, low in enumerate(self.low):
            missing[self.column[bound]] += low
        taken = Taken([], [0] * len(self.low), self.count, missing)
        for unit in self.keep:
            self.take(unit, taken)
        return taken

    def take(self, unit: int, taken: Taken) -> None:
        """Add a unit."""
        kind = self.kinds[self.kind[unit]]
        for bound, rows in kind.counts:
            short = max(0, self.low[bound] - taken.count[bound])
            taken.missing[self.column[bound]] -= min(short, rows)
            taken.count[bound] += rows
        taken.left -= kind.size
        taken.units.append(unit)

    def follow(self, order: Iterable[int], taken: Taken, barred: Iterable[int] = ()) -> None:
        """Take the units of a ranking, in order, that the sums allow; units of `barred` kinds are passed over."""
        have = set(taken.units)
        taken.closed |= set(barred)
        for unit in order:
            if taken.left <= 0 or len(taken.closed) == len(self.kinds):
                break
            kind = self.kind[unit]
            if kind in taken.closed or unit in have:
                continue
            if self.fits(self.kinds[kind], taken):
                self.take(unit, taken)
                have.add(unit)
            else:
                taken.closed.add(kind)

    def fits(self, kind: Kind, taken: Taken) -> bool:
        """Tell whether the sums allow one more unit of a kind."""
        if any(taken.count[bound] + rows > self.high[bound] for bound, rows in kind.counts):
            return False
        after = list(taken.missing)
        for bound, rows in kind.counts:
            after[self.column[bound]] -= min(max(0, self.low[bound] - taken.count[bound]), rows)
        if taken.stopped and after == taken.missing:
            return False
        if kind.size + max(after, default=0) > taken.left:
            taken.stopped = not self.exact
            return False
        return True

    def complete(self, taken: Taken, whole_order: bool) -> bool:
        """Tell whether what is taken meets everything; `whole_order`: there is nothing left to take from."""
        if any(taken.missing):
            return False
        return taken.left == 0 or (not self.exact and (taken.stopped or whole_order))

    def rows(self, taken: Taken) -> I64:
        """Return the rows of what is taken, units in order, rows of a unit ascending."""
        if self.limits.unit is None:
            return np.array(taken.units, dtype=np.int64)
        order = np.argsort(self.unit, kind="stable")
        ends = np.cumsum(np.bincount(self.unit, minlength=len(self.kind)))
        parts = [order[ends[u] - self.kinds[self.kind[u]].size : ends[u]] for u in taken.units]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _kinds(limits: Limits, unit: I64) -> tuple[list[Kind], list[int]]:
    """Return the kinds, and the kind of each unit."""
    if limits.unit is None:
        if not limits.of.shape[0]:
            return [Kind(1, ())], [0] * unit.size
        patterns, kind = np.unique(limits.of, axis=1, return_inverse=True)
        return [Kind(1, tuple((int(b), 1) for b in p if b >= 0)) for p in patterns.T], kind.reshape(-1).tolist()
    units = int(unit.max(initial=-1)) + 1
    counts: list[dict[int, int]] = [{} for _ in range(units)]
    for column in limits.of:
        for u, bound in zip(unit.tolist(), column.tolist(), strict=True):
            if bound >= 0:
                counts[u][bound] = counts[u].get(bound, 0) + 1
    sizes = np.bincount(unit, minlength=units).tolist()
    number: dict[Kind, int] = {}
    found = [Kind(size, tuple(sorted(c.items()))) for size, c in zip(sizes, counts, strict=True)]
    kind_of = [number.setdefault(kind, len(number)) for kind in found]
    return list(number), kind_of
