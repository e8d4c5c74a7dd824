"""Curves and bars as plain geometry; the template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 460.0, 10.0, 230.0
COLOURS = (
    "#4477aa", "#cc6677", "#117733", "#ddaa33", "#882255", "#44aa99", "#999933", "#aa4499", "#332288", "#888888",
)  # fmt: skip
"""Told apart by the colour-blind too (Tol's scheme); beyond ten, lines are dashed."""
_DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True, slots=True)
class Line:
    """One selector's curve: SVG points of the mean and of the band; marks (x, y, words) at its budgets."""

    name: str
    colour: str
    dash: str
    points: str
    band: str
    marks: list[tuple[float, float, str]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A measure against the budget. ticks: (position, words) on both axes; level: height of everything's mean."""

    title: str
    note: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    level: float | None


def style(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return a colour and a dash for each selector, the same in every chart of a page."""
    size = len(COLOURS)
    return {name: (COLOURS[i % size], _DASHES[i // size % len(_DASHES)]) for i, name in enumerate(names)}


def budget_chart(table: Mapping[str, Any], styles: Mapping[str, tuple[str, str]], full: str | None) -> Chart:
    """Return the chart of one table of results; full: the selector that takes everything, drawn as a level."""
    rows = [row for row in table["rows"] if row["selector"] != full]
    level = next((row["mean"] for row in table["rows"] if row["selector"] == full), None)
    budgets = sorted({row["budget"] for row in rows}) or [1.0]
    ends = [v for row in rows for v in (row["mean"], row["low"], row["high"]) if v is not None]
    ends += [level] if level is not None else []
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    low, high = low - room, high + room

    def x(budget: float) -> float:
        first, last = math.log(budgets[0]), math.log(budgets[-1])
        share = (math.log(budget) - first) / (last - first) if last > first else 0.5
        return round(_LEFT + share * (_RIGHT - _LEFT), 2)

    def y(value: float) -> float:
        return round(_BOTTOM - (value - low) / (high - low) * (_BOTTOM - _TOP), 2)

    lines = []
    for name, (colour, dash) in styles.items():
        mine = sorted((row for row in rows if row["selector"] == name), key=lambda row: row["budget"])
        if mine:
            marks = [(x(r["budget"]), y(r["mean"]), f"{name}, {r['budget']:.0%}: {_words(r)}") for r in mine]
            tops = [(x(r["budget"]), y(r["high"])) for r in mine if r["high"] is not None]
            bottoms = [(x(r["budget"]), y(r["low"])) for r in mine if r["low"] is not None]
            points = _points([mark[:2] for mark in marks])
            lines.append(Line(name, colour, dash, points, _points(tops + bottoms[::-1]), marks))
    return Chart(
        title=f"{table['dataset']}, {table['corruption']}: {table['measure']}",
        note="lower is better" if table["lower"] else "higher is better",
        lines=lines,
        x_ticks=[(x(budget), f"{100 * budget:g} %") for budget in budgets],
        y_ticks=[(y(value), f"{value:.3g}") for value in _round_values(low, high)],
        level=None if level is None else y(level),
    )


def _words(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f}), {row['n']} seeds"


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{px:g},{py:g}" for px, py in places)


def _round_values(low: float, high: float) -> list[float]:
    """Return three to six round numbers between two."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 5)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a stacked bar: where it begins and how long it is, in % of the width, and what it says."""

    left: float
    width: float
    colour: str
    words: str


def class_bars(counts: Mapping[str, float]) -> list[Bar]:
    """Return the classes of a selection as one stacked bar."""
    total, at, bars = sum(counts.values()) or 1.0, 0.0, []
    for i, (name, count) in enumerate(counts.items()):
        width = 100 * count / total
        words = f"{name}: {count:.0f}, {width:.1f} %"
        bars.append(Bar(round(at, 3), round(width, 3), COLOURS[i % len(COLOURS)], words))
        at += width
    return bars
