"""What a recipe's [select] table, and the command line's options over it, mean for `select_from_pool`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.errors import UsageError
from curate.files import lines_of
from curate.select_table import SelectTable
from curate.selection.constraints import Constraints, Quota


def settings(table: SelectTable) -> dict[str, Any]:
    """Return a [select] table as the arguments of `select_from_pool`; the files that it names are read.

    Raises UsageError when one cannot be read.
    """
    quotas = tuple(Quota(**given) for given in table.constraint)
    constraints = Constraints(quotas, _listed(table.keep), _listed(table.drop), table.group, table.group_rule)
    return {
        "method": table.method,
        "budget": table.budget,
        "seed": table.seed,
        "params": table.params,
        "target": table.target or None,
        "constraints": constraints,
    }


def _listed(path: str) -> tuple[str, ...]:
    return tuple(lines_of(Path(path))) if path else ()


def quota_tables(least: Sequence[str], most: Sequence[str]) -> list[dict[str, Any]]:
    """Return the constraint tables of COLUMN=N or COLUMN:VALUE=N texts. Raises UsageError for any other."""
    tables: dict[tuple[str, str | None], dict[str, Any]] = {}
    for word, texts in (("min", least), ("max", most)):
        for text in texts:
            name, equals, number = text.rpartition("=")
            column, colon, value = name.partition(":")
            if not equals or not column or not number.strip().isdecimal():
                raise UsageError(f"--{word} {text!r} is not understood; write COLUMN=N, or COLUMN:VALUE=N")
            table = tables.setdefault((column, value if colon else None), {"column": column})
            table |= ({"value": value} if colon else {}) | {word: int(number)}
    return list(tables.values())
