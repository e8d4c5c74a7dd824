"""What a budget means: a count of rows, a share of the candidates, or stored bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral, Real

from curate.errors import UsageError

Budget = int | float | str
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, slots=True)
class Amount:
    """A budget as a number of rows or of stored bytes; the other one is None."""

    rows: int | None = None
    bytes: int | None = None


def parse_budget(budget: Budget, candidates: int) -> Amount:
    """Return what a budget means for this many candidates.

    An int is a count, a float in (0, 1] a share, a str `500`, `5%`, `0.5%` or `2GB` (10⁹ bytes; B, KB, MB, GB, TB).
    A share is rounded down, but is at least one row. Raises UsageError for anything else, or more than there are.
    """
    rows: int | None = None
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d+)?)\s*(%|[kKmMgGtT]?[bB])?\s*", budget)
        if match is None:
            raise UsageError(f"budget {budget!r} is not understood; write a share (5%), a count (500) or bytes (2GB)")
        number, unit = float(match[1]), (match[2] or "").upper()
        if unit in _UNITS:
            return Amount(bytes=int(number * _UNITS[unit]))
        if unit == "%":
            if not 0 < number <= 100:
                raise UsageError(f"budget {budget!r} must lie above 0% and at most at 100%")
            rows = int(candidates * number / 100 + 1e-9)
        elif "." in match[1]:
            raise UsageError(f"budget {budget!r} is a fraction of a row; write {number * 100:g}% for a share")
        else:
            return _counted(int(match[1]), candidates)
    elif isinstance(budget, bool) or not isinstance(budget, Real):
        raise UsageError(f"budget {budget!r} must be an int, a float or a str")
    elif not isinstance(budget, Integral):
        if not 0 < budget <= 1:
            raise UsageError(f"budget {budget!r} is a share and must lie in (0, 1]; write an int for a count")
        rows = int(candidates * budget + 1e-9)
    else:
        return _counted(int(budget), candidates)
    return Amount(rows=max(rows, min(1, candidates)))


def _counted(rows: int, candidates: int) -> Amount:
    if not 0 <= rows <= candidates:
        raise UsageError(f"a budget of {rows} was asked, and there are {candidates} candidates")
    return Amount(rows=rows)
