"""Curves as plain geometry: gain over time, and what a budget covers; the template draws them as SVG."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from curate.report.figures import round_steps
from curate_kernels.arrays import F32, F64, I64

if TYPE_CHECKING:
    import polars as pl

    from curate.pool import Pool

_LEFT, _RIGHT, _TOP, _BOTTOM = 34.0, 344.0, 8.0, 122.0
_BINS = 60
_ASKED, _MOST_PICKED = 2000, 10_000  # samples that must be covered, and picks that are looked at


@dataclass(frozen=True, slots=True)
class Curve:
    """Lines over one x-axis. lines: (kind, name, points of an SVG polyline); ticks are (position, text)."""

    name: str
    about: str
    lines: list[tuple[str, str, str]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    rules: list[tuple[float, str]]


def gain_over_time(pool: Pool, rows: pl.DataFrame) -> Curve | None:
    """Return the mean gain of what arrived, as measured then and as it is now, over the order of arrival."""
    table = pool.frame(["gain", "gain_arrival"])
    series = []
    for kind, name, column in (("seen", "when it arrived", "gain_arrival"), ("selected", "now", "gain")):
        values = table[column].fill_null(float("nan")).to_numpy().astype(np.float64)
        if np.isfinite(values).sum() < _BINS:
            return None
        edge = np.linspace(0, values.size, min(_BINS, values.size) + 1).astype(np.int64)
        parts = [values[a:b][np.isfinite(values[a:b])] for a, b in itertools.pairwise(edge)]
        x = np.array([(a + b) / 2 for (a, b), part in zip(itertools.pairwise(edge), parts, strict=True) if part.size])
        series.append((kind, name, x, np.array([part.mean() for part in parts if part.size])))
    about = "Mean distance to the nearest kept samples, over the order of arrival. It falls as the pool fills."
    return _curve("Gain over time", about, series, (0.0, float(rows.height)), _revisions(pool))


def coverage(pool: Pool, uids: Sequence[str], seed: int = 0) -> Curve | None:
    """Return how near the admitted samples have a chosen one, against the number of choices, best first.

    uids: of the choices in rank order, of which the first 10,000 are looked at; a random order stands beside them
    """
    table = pool.frame(["row", "uid", "decision"])
    place = {uid: i for i, uid in enumerate(table["uid"].to_list())}
    picked = np.array([place[uid] for uid in uids if uid in place], dtype=np.int64)[:_MOST_PICKED]
    admitted = np.flatnonzero((table["decision"] == "admit").to_numpy())
    if picked.size < 4 or admitted.size < picked.size:
        return None
    rng = np.random.default_rng(seed)
    asked = _vectors(pool, np.sort(rng.permutation(admitted)[:_ASKED]))
    budgets = np.unique(np.geomspace(1, picked.size, 24).round().astype(np.int64))
    series = [
        (kind, name, budgets.astype(np.float64), _covered(asked, _vectors(pool, order), budgets))
        for kind, name, order in (
            ("seen", "at random", rng.permutation(admitted)[: picked.size]),
            ("selected", "as selected", picked),
        )
    ]
    about = (
        f"Mean cosine of {asked.shape[0]:,} admitted samples to the nearest chosen one, against how many are chosen."
    )
    return _curve("Coverage against budget", about, series, (0.0, float(picked.size)), [])


def _covered(asked: F32, chosen: F32, budgets: I64) -> F64:
    best = np.full(asked.shape[0], -1.0, dtype=np.float32)
    means, start = [], 0
    for stop in budgets.tolist():
        for low in range(start, stop, 1024):
            np.maximum(best, (asked @ chosen[low : min(low + 1024, stop)].T).max(axis=1), out=best)
        means.append(float(best.mean()))
        start = stop
    return np.array(means)


def _vectors(pool: Pool, ordinals: I64) -> F32:
    from curate.pool import vectors

    order = np.argsort(ordinals, kind="stable")
    table = pool.take(ordinals[order].tolist(), ["image"])
    rows = vectors(table.column(0), table.schema.field("image").type.list_size)
    out = np.empty_like(rows)
    out[order] = rows
    return out


def _revisions(pool: Pool, most: int = 300) -> list[tuple[float, str]]:
    """Return (rows so far, what) of each version that revised decisions; none where there are too many versions."""
    versions = pool.versions()
    if len(versions) > most:
        return []
    rows = 0
    found: list[tuple[float, str]] = []
    rows_of: dict[int, int] = {}
    for entry in versions:
        event = pool.event(entry["version"])
        if event["what"] == "batch":
            rows += event["rows"]
        elif event["what"] == "rollback":
            rows = rows_of.get(event["equals"], rows)
            found = [(at, what) for at, what in found if at <= rows]
        if event["what"] in ("checkpoint", "review", "forget", "rollback"):
            found.append((float(rows), event["what"]))
        rows_of[entry["version"]] = rows
    shift = pool.rows - rows  # versions before a takedown are gone, and their batches with them
    return [(at + shift, what) for at, what in found]


def _curve(
    name: str,
    about: str,
    series: Sequence[tuple[str, str, F64, F64]],
    span: tuple[float, float],
    rules: Sequence[tuple[float, str]],
) -> Curve:
    values = np.concatenate([y for _, _, _, y in series])
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.05
    low, high = low - margin, high + margin

    def x_at(x: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (x - span[0]) / max(span[1] - span[0], 1e-9), 2)

    def y_at(y: float) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * (y - low) / (high - low), 2)

    lines = [
        (kind, label, " ".join(f"{x_at(a)},{y_at(b)}" for a, b in zip(x.tolist(), y.tolist(), strict=True)))
        for kind, label, x, y in series
    ]
    return Curve(
        name,
        about,
        lines,
        [(x_at(x), f"{x:,.0f}") for x in round_steps(*span)],
        [(y_at(y), f"{y:g}".replace("-", "−")) for y in round_steps(low, high)],
        [(x_at(x), what) for x, what in rules],
    )
