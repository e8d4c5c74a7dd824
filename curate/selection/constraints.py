"""What a selection must keep to, whatever the method: minima and maxima by column, rows to keep or drop, groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.errors import UsageError
from curate_kernels.arrays import I64


@dataclass(frozen=True, slots=True)
class Quota:
    """At least `min` and at most `max` rows of each value of a column, or of one value.

    A quota that names a value replaces the column's general one for it, but not what a group rule allows. Rows without
    a value are in no quota.
    """

    column: str
    min: int = 0
    max: int | None = None
    value: str | None = None

    def __post_init__(self) -> None:
        if not self.column:
            raise UsageError("a constraint names no column")
        for name, number in (("min", self.min), ("max", self.max)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
                raise UsageError(f"{name} of the constraint on {self.column!r} is {number!r}; it must be 0 or more")
        if self.max is not None and self.max < self.min:
            raise UsageError(f"the constraint on {self.column!r} has min {self.min} above max {self.max}")
        if not self.min and self.max is None:
            raise UsageError(f"the constraint on {self.column!r} has neither min nor max")


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a selection must keep to.

    quotas: minima and maxima of any columns
    keep, drop: rows that must be in or out; in a pool keys, SOURCE:KEY or uids, on arrays row numbers
    group, group_rule: column of what belongs together (patient, lesion), and `whole` (all of a group's candidates or
        none, so that some rows fewer than asked may be chosen) or `at-most:3` (no group counts more often)
    """

    quotas: tuple[Quota, ...] = ()
    keep: Sequence[Any] = ()
    drop: Sequence[Any] = ()
    group: str = ""
    group_rule: str = "whole"

    def __post_init__(self) -> None:
        self.at_most()  # raises where the rule is none

    def at_most(self) -> int:
        """Return how often a group may count, 0 where groups go whole. Raises UsageError for any other rule."""
        if self.group_rule == "whole":
            return 0
        match = re.fullmatch(r"at-most:([1-9]\d{0,8})", self.group_rule)
        if match is None:
            raise UsageError(f"the group rule is {self.group_rule!r}; it must be whole, or at-most:3 (any number)")
        return int(match[1])

    def all_quotas(self) -> list[Quota]:
        """Return the quotas, that of the group rule among them."""
        own = [Quota(self.group, max=self.at_most())] if self.group and self.at_most() else []
        return [*self.quotas, *own]

    def columns(self) -> set[str]:
        """Return the names of the columns that are read."""
        return {quota.column for quota in self.all_quotas()} | ({self.group} if self.group else set())

    def nested(self) -> bool:
        """Tell whether a method's ranking stays nested under these constraints."""
        whole = self.group and not self.at_most()
        return not whole and len(self.columns()) <= 1 and not any(quota.min for quota in self.quotas)


@dataclass(frozen=True, slots=True)
class Bound:
    """One value of a column, with how many of its rows there must at least and may at most be (`high` < 0: any)."""

    column: str
    value: str
    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.column} {self.value!r}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Constraints on n candidates.

    bounds: every value that is bounded; of: (columns, n) int64, the bound that a row counts for in each column, or -1
    keep: rows that must be in, ascending; unit: (n,) int64, rows of one number go together, or None
    """

    bounds: tuple[Bound, ...]
    of: I64
    keep: I64
    unit: I64 | None


def limits_of(given: Constraints, columns: Mapping[str, Sequence[Any]], n: int, keep: I64) -> Limits:
    """Return the constraints on n candidates with these columns; `keep` are rows that must be in.

    Raises UsageError where the quotas of one value contradict each other or the group rule.
    """
    bounds: list[Bound] = []
    of: list[I64] = []
    by_column: dict[str, list[Quota]] = {}
    for quota in given.all_quotas():
        by_column.setdefault(quota.column, []).append(quota)
    for column, quotas in by_column.items():
        values = [text_of(value) for value in columns[column]]
        most = given.at_most() if column == given.group else 0
        found = _bounds(column, quotas, most, sorted({value for value in values if value is not None}))
        number = {bound.value: len(bounds) + i for i, bound in enumerate(found)}
        of.append(np.array([-1 if value is None else number.get(value, -1) for value in values], dtype=np.int64))
        bounds += found
    unit = _units([text_of(value) for value in columns[given.group]]) if given.group and not given.at_most() else None
    table = np.array(of, dtype=np.int64).reshape(len(of), n)
    return Limits(tuple(bounds), table, np.unique(keep).astype(np.int64), unit)


def text_of(value: Any) -> str | None:
    """Return a column's value as constraints name it: text, or None where there is none."""
    return None if value is None or value != value else str(value)  # noqa: PLR0124 (NaN: nothing there)


def _bounds(column: str, quotas: list[Quota], at_most: int, values: list[str]) -> list[Bound]:
    """Return the bounds of one column's values; at_most: the group rule's, 0 for none, which no quota lifts."""
    general = [quota for quota in quotas if quota.value is None]
    named: dict[str, list[Quota]] = {}
    for quota in quotas:
        if quota.value is not None:
            named.setdefault(quota.value, []).append(quota)
    found = []
    for value in sorted({*named, *values}):
        mine = named.get(value, general)
        low = max((quota.min for quota in mine), default=0)
        highs = [quota.max for quota in mine if quota.max is not None] + ([at_most] if at_most else [])
        high = min(highs, default=-1)
        if 0 <= high < low:
            raise UsageError(
                f"no selection meets the constraints: {column} {value!r} needs at least {low} rows and may have at most"
                f" {high}; lower the minimum, or raise the maximum or the group rule"
            )
        if low or high >= 0:
            found.append(Bound(column, value, low, high))
    return found


def _units(values: list[str | None]) -> I64:
    """Return one number per group; a row without a group is one of its own."""
    number: dict[str, int] = {}
    out = np.empty(len(values), dtype=np.int64)
    lone = 0
    for i, value in enumerate(values):
        if value is None:
            lone -= 1
            out[i] = lone
        else:
            out[i] = number.setdefault(value, len(number))
    return out
