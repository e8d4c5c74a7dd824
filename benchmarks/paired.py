"""Two functions in turn, after a warm-up of each; the median ratio over the pairs, and its spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Seconds of ours and of the baseline (medians), and baseline / ours pair by pair."""

    name: str
    ours: float
    baseline: float
    ratios: list[float]

    def line(self) -> str:
        low, mid, high = min(self.ratios), statistics.median(self.ratios), max(self.ratios)
        return f"{self.name:32} {self.ours:9.3f} s {self.baseline:9.3f} s   {mid:7.2f}x  ({low:.2f} … {high:.2f})"


def seconds(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    function()
    return clock() - started


def paired(
    name: str,
    ours: Callable[[], object],
    baseline: Callable[[], object],
    pairs: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Return how many times faster ours is than the baseline. clock: `time.process_time` for what runs in one thread"""
    ours()
    baseline()
    times = [(seconds(ours, clock), seconds(baseline, clock)) for _ in range(pairs)]
    return Ratio(
        name,
        statistics.median(t for t, _ in times),
        statistics.median(t for _, t in times),
        [theirs / mine for mine, theirs in times],
    )
