"""One method, one budget, all constraints: what `select` and `select_from_pool` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from curate.budgets import Amount
from curate.errors import UsageError
from curate.selection.accept import Plan
from curate.selection.constraints import Limits
from curate.selection.feasible import check_feasible, least_rows
from curate.selection.feasible import take as take_ranked
from curate_kernels.arrays import F32, I64
from curate_selectors.protocols import SubsetSelector
from curate_selectors.registry import entry, make
from curate_selectors.types import Candidates, Selection

Rank = Callable[[int], Selection]


def choose(
    data: Candidates,
    method: str,
    amount: Amount,
    sizes: I64 | None,
    seed: int,
    params: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> Selection:
    """Run a selector to a row or byte budget under constraints. Bytes are never exceeded.

    A nested ranking is taken until the first row that does not fit; of a method that is not nested, or under
    constraints, the count is found by bisection.
    """
    if "subset" not in entry(method).kind:
        raise UsageError(f"method {method!r} decides online only; it cannot choose from a finished set")
    if seed < 0:
        raise UsageError(f"the seed is {seed}; it must be 0 or more")
    selector: SubsetSelector = make(method, **(params or {}))
    draws = entry(method).draws_as(selector)

    def rank(count: int) -> Selection:
        return selector.select(data, count, seed)

    def take(count: int) -> Selection:
        return rank(count) if limits is None else constrained(rank, data.n, count, limits, draws)

    if amount.bytes is None:
        return take(amount.rows or 0)
    if sizes is None:
        raise UsageError("a budget in bytes needs sizes= (stored bytes of each candidate)")
    if limits is None and entry(method).nested_as(selector):
        chosen = _prefix(rank, sizes, amount.bytes)
        if int(sizes[chosen.index].sum()) <= amount.bytes:  # always so, unless a method says wrongly that it is nested
            return chosen
    least = 0 if limits is None else least_rows(limits, data.n)
    return _bisected(take, sizes, amount.bytes, least)


def _prefix(rank: Rank, sizes: I64, budget: int) -> Selection:
    most = _most(sizes, budget)
    chosen = rank(most)
    fits = int(np.searchsorted(np.cumsum(sizes[chosen.index]), budget, side="right"))
    # A smaller selection is a prefix of a larger one, but its inclusion probabilities are its own.
    return chosen if fits == most else rank(fits)


def _most(sizes: I64, budget: int) -> int:
    return int(np.searchsorted(np.cumsum(np.sort(sizes)), budget, side="right"))


def _bisected(take: Rank, sizes: I64, budget: int, least: int) -> Selection:
    """Return a selection that fits, of as many rows as bisection finds; `least` rows are the fewest there can be."""
    chosen = take(least)
    over = int(sizes[chosen.index].sum()) - budget
    if over > 0:
        raise UsageError(
            f"the constraints ask for {least} rows, which take {over} bytes more than the budget {budget} as the method"
            " ranks them; give more bytes, or lower the minima"
        )
    fits, beyond = least, max(least, _most(sizes, budget)) + 1
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        try:
            larger = take(middle)
        except UsageError:  # maxima allow no selection of so many rows
            beyond = middle
            continue
        if int(sizes[larger.index].sum()) <= budget:
            fits, chosen = middle, larger
        else:
            beyond = middle
    return chosen


def constrained(rank: Rank, n: int, count: int, limits: Limits, draws: bool = False) -> Selection:
    """Return the first selection of `count` rows in a method's ranking that meets the constraints.

    What must be kept comes first, then the ranking's rows in its order: a row is taken where what is taken so far can
    still be completed (nearly so for many kinds of rows in overlapping columns, see `feasible.take`). The ranking is
    asked for in growing parts; what a method that is not nested picks only for a larger count follows what it picks
    for the smaller one. With whole groups there may be fewer rows than `count`: the first group that does not fit ends
    the selection, but for what minima ask for.

    draws: the method takes rows by chance, so that a row's probability under constraints follows from no known rule

    Raises UsageError, saying which constraints cannot be met and by how much.
    """
    plan = Plan(limits, n, count)
    check_feasible(plan)
    order = np.zeros(0, dtype=np.int64)
    gain, weight = np.full(n, np.nan, dtype=np.float32), np.ones(n, dtype=np.float32)
    part = min(n, count)
    while True:
        chosen = rank(part)
        new = ~np.isin(chosen.index, order, assume_unique=True)
        order = np.concatenate([order, chosen.index[new]])
        gain[chosen.index[new]], weight[chosen.index[new]] = chosen.gain[new], chosen.weight[new]
        taken = plan.start()
        plan.follow(plan.unit[order].tolist(), taken)
        if plan.complete(taken, whole_order=part == n):
            break
        if part == n:
            taken = take_ranked(plan, plan.unit[order])
            break
        part = min(n, 2 * part + 1)
    rows = plan.rows(taken)
    return Selection(rows, gain[rows], weight[rows], _probability(rows, n, limits, draws))


def _probability(rows: I64, n: int, limits: Limits, draws: bool) -> F32:
    """Return the chance of each row: NaN where a method draws and constraints move its draws by no known rule."""
    chance = np.full(rows.size, np.nan if draws and rows.size < n else 1.0, dtype=np.float32)
    chance[np.isin(rows, limits.keep)] = 1.0
    return chance
