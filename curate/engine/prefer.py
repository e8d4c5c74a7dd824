"""Which of several duplicates is kept: a better copy that came later takes the place of the one that was kept."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from curate_kernels.arrays import B1, F64, I64

if TYPE_CHECKING:
    from curate.engine.core import Engine

_LOG = logging.getLogger("curate")


def columns(engine: Engine) -> list[str]:
    """Return the pool's columns that the rule of the recipe reads, beside those of every checkpoint."""
    rule = engine.recipe.dedup.keep
    if rule in ("first", "largest", "aligned"):
        return []
    return [rule if rule in engine.pool.columns else "meta"]


def values(engine: Engine, table: Any, pvi: Any) -> F64 | None:
    """Return what each row is worth (n,), NaN where that is not known, or None where the first is always kept.

    table: a polars frame with the rows' columns; pvi: (n,)
    """
    rule = engine.recipe.dedup.keep
    if rule == "first":
        return None
    if rule == "aligned":
        return np.asarray(pvi, dtype=np.float64)
    if rule == "largest":
        found = (table["width"].cast(float) * table["height"].cast(float)).to_list()
    elif rule in table.columns:
        found = table[rule].to_list()
    else:
        found = [json.loads(text).get(rule) for text in table["meta"].to_list()]
    worth = np.array([_number(value) for value in found], dtype=np.float64)
    if worth.size and np.isnan(worth).all():
        _LOG.warning("dedup.keep is %r, and no row has such a number; the first of several duplicates is kept", rule)
    return worth


def _number(value: Any) -> float:
    """Return a number, or the one that a text holds, as in CSV; else NaN."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def successors(worth: F64, uid: list[str], twin: Any, usable: B1, kept: B1) -> tuple[I64, I64]:
    """Return kept rows that have a better duplicate, and the best of each (the first of equals); both (r,).

    worth: (n,); uid, twin: n names, twin[i] of what row i duplicates
    usable: (n,) rows that may take a place; kept: (n,) rows whose place they may take
    """
    place = {uid[i]: i for i in np.flatnonzero(kept).tolist()}
    best: dict[int, int] = {}
    for i in np.flatnonzero(usable & np.isfinite(worth)).tolist():
        held = place.get(twin[i])
        if held is not None and not worth[best.get(held, held)] >= worth[i]:
            best[held] = i
    order = sorted(best)
    return np.array(order, dtype=np.int64), np.array([best[i] for i in order], dtype=np.int64)
