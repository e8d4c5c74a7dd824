"""Choosing a subset: on plain arrays (`curate.select`), and from a pool into a manifest (`curate select`)."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate.errors import UsageError
from curate.files import digest
from curate.manifest import COLUMNS, write_manifest
from curate.pool import VIEWS, Pool
from curate_kernels.arrays import F32, I64, as_rows, unit_rows
from curate_selectors.protocols import SubsetSelector
from curate_selectors.registry import entry, make
from curate_selectors.types import Candidates, Selection

Budget = int | float | str
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SCORES = ("gain_image", "gain_text", "pvi", "pvi_text", "pvi_image", "s0_label", "s1_label", "pvi_label")


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


def select(
    x: Any,
    *,
    method: str = "infogrowth",
    budget: Budget,
    labels: Sequence[Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    **params: Any,
) -> Selection:
    """Choose a subset of plain arrays.

    Args:
        x: (n, d) embeddings; rows are scaled to norm 1. None for methods that need none (then give labels or scores).
        method: a name of `curate.methods()`; params are the fields of its dataclass.
        budget: int = count, float in (0, 1] = share, str as on the command line; bytes need sizes.
        labels: n class labels. scores: named columns of n numbers. sizes: n stored sizes in bytes.
        seed: the same input and seed give the same selection.

    Returns:
        Selection: index (m,) int64 in pick order, gain, weight and probability (m,) float32.

    Raises:
        UsageError: the budget makes no sense. ValueError: x has NaN or the wrong shape.
        UnknownSelectorError: no such method.
    """
    rows = None if x is None else unit_rows(as_rows(x))
    columns = {name: np.asarray(values, dtype=np.float32) for name, values in (scores or {}).items()}
    lengths = [len(v) for v in (rows, labels, sizes, *columns.values()) if v is not None]
    if len(set(lengths)) != 1:
        raise UsageError(f"x, labels, scores and sizes must have one length; they have {lengths or 'none'}")
    codes = None if labels is None else _codes([None if label is None else str(label) for label in labels])
    data = Candidates(n=lengths[0], x=rows, label=codes, scores=columns)
    stored = None if sizes is None else np.asarray(sizes, dtype=np.int64)
    return choose(data, method, parse_budget(budget, data.n), stored, seed, params)


def choose(
    data: Candidates, method: str, amount: Amount, sizes: I64 | None, seed: int, params: Mapping[str, Any] | None = None
) -> Selection:
    """Run a selector to a row or byte budget. A byte budget stops at the first pick that does not fit."""
    if "subset" not in entry(method).kind:
        raise UsageError(f"method {method!r} decides online only; it cannot choose from a finished set")
    if seed < 0:
        raise UsageError(f"the seed is {seed}; it must be 0 or more")
    selector: SubsetSelector = make(method, **(params or {}))
    if amount.bytes is None:
        return selector.select(data, amount.rows or 0, seed)
    if sizes is None:
        raise UsageError("a budget in bytes needs sizes= (stored bytes of each candidate)")
    most = int(np.searchsorted(np.cumsum(np.sort(sizes)), amount.bytes, side="right"))
    chosen = selector.select(data, most, seed)
    fits = int(np.searchsorted(np.cumsum(sizes[chosen.index]), amount.bytes, side="right"))
    # A smaller selection is a prefix of a larger one, but its inclusion probabilities are its own.
    return chosen if fits == most else selector.select(data, fits, seed)


@dataclass(frozen=True, slots=True)
class Selected:
    """What one selection from a pool gave. bytes: stored bytes of the chosen images."""

    manifest: str
    method: str
    selected: int
    candidates: int
    bytes: int
    seconds: float


def select_from_pool(
    pool: Pool | str | Path,
    out: str | Path,
    *,
    method: str = "infogrowth",
    budget: Budget = "10%",
    seed: int = 0,
    candidates: str = "admitted",
) -> Selected:
    """Choose among a pool's admitted rows and write a manifest.

    candidates: `admitted`, or `all` for every row that has an embedding, refused ones too.

    Raises:
        UsageError: the budget makes no sense, or there is nothing to choose from. UnknownSelectorError: no such method.
    """
    started = time.perf_counter()
    pool = pool if isinstance(pool, Pool) else Pool.open(pool)
    needs = entry(method).needs
    where = {"admitted": "decision = 'admit'", "all": "embedded"}.get(candidates)
    if where is None:
        raise UsageError(f"candidates are {candidates!r}; they must be 'admitted' or 'all'")
    names = [c for c in pool.columns if c not in (*VIEWS, "history", "meta", "detail")]
    table = pool.frame(names, where=where)
    if not table.height:
        raise UsageError(f"the pool at {pool.path} has no {candidates} rows to choose from")
    order = table["uid"].arg_sort().to_numpy()  # ties go to the lowest uid
    table = table[order]
    data = Candidates(
        n=table.height,
        x=pool.embeddings("image", where=where, order=order) if "embeddings" in needs else None,
        label=_codes(table["label"].to_list()),
        scores={
            name: table[name].fill_null(0.0).to_numpy().astype(np.float32)
            for name in ("gain", "gain_arrival")
            if name in table.columns
        },
    )
    chosen = choose(data, method, parse_budget(budget, data.n), table["size"].to_numpy().astype(np.int64), seed)
    rows = _manifest_rows(table, chosen)
    state = pool.state()
    info = {
        "method": method,
        "budget": str(budget),
        "seed": seed,
        "candidates": {"kind": candidates, "rows": data.n, "digest": digest(table["uid"].to_list())},
        "recipe_digest": digest(state["recipe"]),
        "encoders": {view: state[view] for view in VIEWS if state.get(view)},
        "sources": [{"id": name, "root": s["root"], "kind": s["kind"]} for name, s in sorted(state["sources"].items())],
    }
    path = write_manifest(out, rows, info)
    size = int(rows["size"].sum())
    return Selected(str(path), method, rows.height, data.n, size, round(time.perf_counter() - started, 3))


def _codes(labels: Sequence[str | None]) -> I64:
    names = sorted({name for name in labels if name is not None})
    number = {name: i for i, name in enumerate(names)}
    return np.array([-1 if name is None else number[name] for name in labels], dtype=np.int64)


def _manifest_rows(table: pl.DataFrame, chosen: Selection) -> pl.DataFrame:
    """Return the chosen rows in rank order with the manifest's columns, then the scores that have values."""
    column: dict[str, F32 | I64] = {
        "weight": chosen.weight,
        "inclusion_probability": chosen.probability,
        "rank": np.arange(chosen.index.size, dtype=np.int64),
    }
    rows = table[chosen.index].with_columns(pl.Series(name, values) for name, values in column.items())
    scores = [name for name in _SCORES if rows[name].null_count() < rows.height or name == "pvi"]
    return rows.select(*COLUMNS, *scores)
