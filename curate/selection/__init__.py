"""Choosing a subset: on plain arrays (`curate.select`), and from a pool into a manifest (`curate select`)."""

from __future__ import annotations

from curate.budgets import Amount, Budget, parse_budget
from curate.selection.arrays import select
from curate.selection.constraints import Constraints, Quota
from curate.selection.pools import Selected, select_from_pool

__all__ = [
    "Amount",
    "Budget",
    "Constraints",
    "Quota",
    "Selected",
    "parse_budget",
    "select",
    "select_from_pool",
]
