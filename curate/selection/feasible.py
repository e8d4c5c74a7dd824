"""Whether constraints can be met at all, and where not, which ones and by how much."""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, hstack, identity

from curate.errors import UsageError
from curate.selection.accept import Plan, Taken
from curate.selection.constraints import Limits
from curate_kernels.arrays import F64, I64

_FEW = 500  # kinds; a program over as many takes milliseconds


def check_feasible(plan: Plan) -> None:
    """Raise UsageError, saying which constraints cannot be met and by how much, where no selection meets them all."""
    have = np.bincount(plan.kind, minlength=len(plan.kinds)).astype(np.int64)
    kept = plan.start()
    problems = [*_alone(plan, have, kept), *(_by_column(plan, have, kept) if plan.exact else _minima(plan, kept))]
    if not problems and not _obvious(plan):
        at = kept_kinds(plan, kept)
        if not completable(plan, have, at):
            problems = _least_breach(plan, have, at)
    if problems:
        raise UsageError("no selection meets the constraints: " + "; ".join(problems))


def least_rows(limits: Limits, n: int) -> int:
    """Return the fewest rows of a selection from n candidates that meets the constraints.

    Raises UsageError, as `check_feasible`, where no selection of any size meets them.
    """
    plan = Plan(limits, n, n)
    plan.exact = False  # any number of rows will do
    check_feasible(plan)
    have = np.bincount(plan.kind, minlength=len(plan.kinds)).astype(np.int64)
    rows, low, high = _program(plan)
    size = np.array([kind.size for kind in plan.kinds], dtype=np.float64)
    found = milp(
        size,
        integrality=np.ones(size.size),
        bounds=Bounds(kept_kinds(plan, plan.start()), have),
        constraints=LinearConstraint(rows, low, high),
    )
    least: int = round(found.fun)
    return least


def _obvious(plan: Plan) -> bool:
    """Tell whether sums suffice, or the candidates taken as they come meet everything."""
    if plan.exact and len(set(plan.column)) <= 1:
        return True
    return _short_first(plan, list(range(len(plan.kind)))) is not None


def _alone(plan: Plan, have: I64, kept: Taken) -> list[str]:
    """Return what is wrong with single bounds, and with what must be kept."""
    problems = []
    reach = _reach(plan, have)
    for number, bound in enumerate(plan.limits.bounds):
        if reach[number] < bound.low:
            short = bound.low - reach[number]
            problems.append(f"{bound} needs at least {bound.low} rows and has {reach[number]}: {short} too few")
        if 0 <= bound.high < kept.count[number]:
            over = kept.count[number] - bound.high
            problems.append(
                f"{bound} may have at most {bound.high} rows and {kept.count[number]} must be kept: {over} too many"
            )
    if kept.left < 0:
        rows = plan.count - kept.left
        problems.append(f"{rows} rows must be kept and the budget is {plan.count}: {-kept.left} too many")
    return problems


def _reach(plan: Plan, have: I64) -> list[int]:
    """Return how many candidates count for each bound."""
    reach = [0] * len(plan.low)
    for kind, units in zip(plan.kinds, have.tolist(), strict=True):
        for bound, rows in kind.counts:
            reach[bound] += rows * units
    return reach


def _minima(plan: Plan, kept: Taken) -> list[str]:
    """Return which columns' minima need more rows than the budget leaves."""
    names = {plan.column[i]: bound.column for i, bound in enumerate(plan.limits.bounds)}
    return [
        f"the minima of {names[column]} and what must be kept add up to {plan.count - kept.left + short} rows and the"
        f" budget is {plan.count}: {short - kept.left} too many"
        for column, short in enumerate(kept.missing)
        if 0 <= kept.left < short
    ]


def _by_column(plan: Plan, have: I64, kept: Taken) -> list[str]:
    """Return what is wrong with the sums of each column: minima above the budget, maxima below it."""
    problems = _minima(plan, kept)
    total, reach = len(plan.kind), _reach(plan, have)
    for column in sorted(set(plan.column)):
        bounds = [i for i, c in enumerate(plan.column) if c == column]
        most = total - sum(max(0, reach[i] - plan.high[i]) for i in bounds)
        if most < plan.count:
            name = plan.limits.bounds[bounds[0]].column
            problems.append(
                f"the maxima of {name} allow {most} rows and the budget is {plan.count}: {plan.count - most} too few"
            )
    return problems


def kept_kinds(plan: Plan, taken: Taken) -> I64:
    """Return how many units of each kind are taken."""
    kinds = [plan.kind[unit] for unit in taken.units]
    return np.bincount(np.array(kinds, dtype=np.int64), minlength=len(plan.kinds)).astype(np.int64)


def completable(plan: Plan, have: I64, taken: I64) -> bool:
    """Tell whether some selection meets everything and has at least `taken` units of each kind, of those in `have`."""
    rows, low, high = _program(plan)
    found = milp(
        np.zeros(len(plan.kinds)),
        integrality=np.ones(len(plan.kinds)),
        bounds=Bounds(taken, have),
        constraints=LinearConstraint(rows, low, high),
    )
    return bool(found.success)


def _program(plan: Plan) -> tuple[csr_array, F64, F64]:
    """Return the constraints as low ≤ rows @ units-of-each-kind ≤ high; the last one is the budget."""
    place, column, value = [], [], []
    for number, kind in enumerate(plan.kinds):
        for bound, count in (*kind.counts, (len(plan.low), kind.size)):
            place.append(bound)
            column.append(number)
            value.append(float(count))
    rows = csr_array((value, (place, column)), shape=(len(plan.low) + 1, len(plan.kinds)))
    low = np.array([*plan.low, plan.count if plan.exact else 0], dtype=np.float64)
    return rows, low, np.array([*plan.high, plan.count], dtype=np.float64)


def _least_breach(plan: Plan, have: I64, taken: I64) -> list[str]:
    """Return the constraints that a selection breaks which breaks them by the fewest rows in all."""
    rows, low, high = _program(plan)
    kinds, bounds = len(plan.kinds), rows.shape[0]
    slack = identity(bounds, format="csr")
    found = milp(
        np.concatenate([np.zeros(kinds), np.ones(2 * bounds)]),
        integrality=np.ones(kinds + 2 * bounds),
        bounds=Bounds(
            np.concatenate([taken, np.zeros(2 * bounds)]), np.concatenate([have, np.full(2 * bounds, np.inf)])
        ),
        constraints=LinearConstraint(hstack([rows, slack, -slack]), low, high),
    )
    short, over = (np.round(found.x[kinds + i * bounds : kinds + (i + 1) * bounds]).astype(int) for i in (0, 1))
    problems = []
    for number, bound in enumerate(plan.limits.bounds):
        if short[number]:
            problems.append(f"the minimum {bound.low} of {bound} is missed by {short[number]} beside the others")
        if over[number]:
            problems.append(f"the maximum {bound.high} of {bound} is exceeded by {over[number]} beside the others")
    if short[-1] or over[-1]:
        word = f"missed by {short[-1]}" if short[-1] else f"exceeded by {over[-1]}"
        problems.append(f"the budget {plan.count} is {word} beside the others")
    return problems


def take(plan: Plan, order: I64) -> Taken:
    """Return a selection of a whole ranking of units where the sums alone led astray, as they may if columns overlap.

    With at most 500 kinds it is the first one in the ranking's order. Beyond, units of the values that came short go
    first, best first; if that does not help either, an integer program finds the selection of the least summed rank.
    The constraints can be met (`check_feasible`).
    """
    units = list(dict.fromkeys(order.tolist()))  # a whole group stands where its best row does
    if len(plan.kinds) <= _FEW:
        return take_exactly(plan, units)
    return _short_first(plan, units) or _nearest(plan, units)


def _short_first(plan: Plan, order: list[int]) -> Taken | None:
    """Return a selection in which the values that come short are served first, None where that does not suffice."""
    short: set[int] = set()
    while True:
        taken = plan.start()
        for unit in order if short else ():
            kind = plan.kinds[plan.kind[unit]]
            wanted = any(bound in short and taken.count[bound] < plan.low[bound] for bound, _ in kind.counts)
            if wanted and unit not in plan.keep and plan.fits(kind, taken):
                plan.take(unit, taken)
        plan.follow(order, taken)
        if plan.complete(taken, whole_order=True):
            return _in_order(plan, order, set(taken.units))
        missing = {bound for bound, low in enumerate(plan.low) if taken.count[bound] < low}
        if missing <= short:
            return None
        short |= missing


def _nearest(plan: Plan, order: list[int]) -> Taken:
    """Return the selection of the least summed rank: each unit is a variable of the program, 0 or 1."""
    of = np.array(plan.kind, dtype=np.int64)
    rows, low, high = _program(plan)
    kept = np.zeros(of.size)
    kept[plan.keep] = 1
    rank = np.zeros(of.size)
    rank[order] = np.arange(of.size) / max(of.size, 1)
    # Whole groups may fill less than the budget: a row more is worth any rank.
    worth = 0.0 if plan.exact else 2.0
    size = np.array([kind.size for kind in plan.kinds], dtype=np.float64)[of]
    found = milp(
        rank - worth * size,
        integrality=np.ones(of.size),
        bounds=Bounds(kept, np.ones(of.size)),
        constraints=LinearConstraint(rows.tocsc()[:, of], low, high),
    )
    return _in_order(plan, order, set(np.flatnonzero(found.x > 0.5).tolist()))


def _in_order(plan: Plan, order: list[int], units: set[int]) -> Taken:
    """Return what is taken with the units that must be kept first, then in the ranking's order."""
    taken = plan.start()
    have = set(taken.units)
    for unit in order:
        if unit in units and unit not in have:
            plan.take(unit, taken)
    return taken


def take_exactly(plan: Plan, order: list[int]) -> Taken:
    """Return the first selection of a whole ranking of units, deciding by integer programs where sums do not suffice.

    A kind that can be taken no more is found by bisection over what the sums would take: O(kinds · log n) programs at
    worst.
    """
    have = np.bincount(plan.kind, minlength=len(plan.kinds)).astype(np.int64)
    sure = plan.start().units
    barred: set[int] = set()
    while True:
        taken = _restart(plan, sure)
        plan.follow(order, taken, barred)
        if plan.complete(taken, whole_order=True):
            return taken
        good, bad = len(sure), len(taken.units)
        if good == bad:  # what is sure can be completed
            raise AssertionError("a selection that could be completed was not")
        while bad - good > 1:
            middle = (good + bad) // 2
            part = _restart(plan, taken.units[:middle])
            good, bad = (middle, bad) if completable(plan, have, kept_kinds(plan, part)) else (good, middle)
        barred.add(plan.kind[taken.units[good]])
        sure = taken.units[:good]


def _restart(plan: Plan, units: list[int]) -> Taken:
    taken = plan.start()
    for unit in units[len(taken.units) :]:
        plan.take(unit, taken)
    return taken
