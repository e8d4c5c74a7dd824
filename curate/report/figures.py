"""Histograms as plain geometry; the template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import B1, F64

_LEFT, _RIGHT = 6.0, 354.0
_UP, _DOWN = 82.0, 32.0  # heights of the tallest bar of the admitted, above the axis, and of the refused, below it
_BINS = 48
_TAIL = 0.005  # share of the values on either side that the outermost bars collect
_MOST_RULES = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin: where it stands, and the heights of its admitted part and of its refused part."""

    x: float
    width: float
    admitted: float
    refused: float
    label: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """A score's distribution. `ticks` and `rules` (the thresholds) are positions on the x-axis."""

    name: str
    about: str
    summary: str
    bars: list[Bar]
    ticks: list[tuple[float, str]]
    rules: list[float]


def histogram(name: str, about: str, values: F64, admitted: B1, thresholds: Mapping[str, float]) -> Histogram:
    """Return the histogram of finite scores, with a rule at each threshold.

    The admitted and the refused have a scale each: a few refused rows among many would not be seen otherwise.

    values: (n,) f64, finite, n > 0; admitted: (n,) bool; thresholds: by label, or under "" for all rows.
    Of many thresholds the lowest, the median and the highest are drawn.
    """
    cuts = sorted(thresholds.values())
    low, high = _range(values, cuts)
    edges = np.linspace(low, high, _BINS + 1)
    inside = np.clip(values, low, high)
    parts = [np.histogram(inside[side], edges)[0] for side in (admitted, ~admitted)]
    up, down = (height / max(int(part.max()), 1) for height, part in zip((_UP, _DOWN), parts, strict=True))
    step = (_RIGHT - _LEFT) / _BINS
    bars = [
        Bar(
            round(_LEFT + i * step, 2),
            round(step - 0.8, 2),
            round(int(parts[0][i]) * up, 2),
            round(int(parts[1][i]) * down, 2),
            f"{edges[i]:.3g} to {edges[i + 1]:.3g}: {parts[0][i]:,} admitted, {parts[1][i]:,} refused",
        )
        for i in range(_BINS)
        if parts[0][i] + parts[1][i]
    ]

    def place(value: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low), 2)

    drawn = cuts if len(cuts) <= _MOST_RULES else [cuts[0], cuts[len(cuts) // 2], cuts[-1]]
    summary = f"{values.size:,} rows, median {np.median(values):.2f}, 1 % below {np.quantile(values, 0.01):.2f}"
    summary += f" and 1 % above {np.quantile(values, 0.99):.2f}{_thresholds(cuts)}"
    ticks = [(place(value), f"{value:g}".replace("-", "−")) for value in round_steps(low, high)]
    return Histogram(name, about, summary.replace("-", "−"), bars, ticks, [place(value) for value in drawn])


def _range(values: F64, cuts: list[float]) -> tuple[float, float]:
    """Return the span of the values without their tails, wide enough for the thresholds, never empty."""
    low, high = (float(q) for q in np.quantile(values, (_TAIL, 1 - _TAIL)))
    low, high = min([low, *cuts]), max([high, *cuts])
    margin = 0.02 * (high - low) or 0.5
    return low - margin, high + margin


def round_steps(low: float, high: float) -> list[float]:
    """Return round numbers between two bounds, four to nine of them: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * max(factor for factor in (1, 2, 5) if factor * power <= rough * 1.0001)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _thresholds(cuts: list[float]) -> str:
    if not cuts:
        return ""
    if cuts[0] == cuts[-1]:
        return f"; threshold {cuts[0]:.2f}"
    return f"; {len(cuts)} thresholds, one a class, from {cuts[0]:.2f} to {cuts[-1]:.2f}"
