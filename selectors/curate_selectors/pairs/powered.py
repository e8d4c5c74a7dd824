"""CLIP-powered selection: alignment and local diversity. Yang et al., ICLR 2025, arXiv:2410.11215.

They learn a mask, one number per row, that minimises -Σ mask (α SAS + β SDS) under a penalty on its mean. The objective
is a sum over rows and the mean is given, so the best mask is 1 on the rows of the highest α SAS + β SDS: these are
taken at once, and no gradient is followed. The adapters that they tune before belong to the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_kernels.topk import push_topk
from curate_selectors.errors import SelectorError
from curate_selectors.infogrowth import gains_now, mean_distance
from curate_selectors.inputs import check_count, in_order, need_rows, need_score
from curate_selectors.sampling import Reservoir
from curate_selectors.tiles import row_tiles, sample_tile
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class ClipPowered:
    """The rows with the highest weighted sum of two z-scores.

    alignment: weight of the score `align`, how well caption and image fit
    diversity: weight of the mean distance to the k nearest other rows
    k: neighbours
    """

    alignment: float = 1.0
    diversity: float = 1.0
    k: int = 10

    def __post_init__(self) -> None:
        _check(self.alignment, self.diversity, self.k)

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return the `count` best rows; gain is the sum of the z-scores. Time O(n² d), memory O(n)."""
        del seed  # nothing is drawn
        check_count(data, count)
        x = need_rows(data, "clip-powered")
        align = need_score(data, "align", "clip-powered").astype(np.float64)
        local = gains_now(x, np.arange(data.n, dtype=np.int64), self.k).astype(np.float64)
        total = self.alignment * _z(align, align) + self.diversity * _z(local, local)
        index = np.argsort(-total, kind="stable")[:count]
        return in_order(index, total[index].astype(np.float32))


@dataclass(frozen=True, slots=True)
class ClipPoweredOnline:
    """The same in one pass: both scores are measured against a fixed sample of the rows, evenly spread over them.

    The sample also gives the mean and deviation of the z-scores, so that no row's value depends on when it came; the
    bar for the best `count` rises as they come.

    alignment, diversity, k: as of `clip-powered`; reference: rows in the sample
    """

    alignment: float = 1.0
    diversity: float = 1.0
    k: int = 10
    reference: int = 4096

    def __post_init__(self) -> None:
        _check(self.alignment, self.diversity, self.k)
        if self.reference < 2:
            raise SelectorError(f"reference is {self.reference}; it must be at least 2")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return the `count` best rows; gain is the sum of the z-scores. Memory O(count + reference · d)."""
        del seed  # nothing is drawn
        check_count(data, count)
        sample = sample_tile(data, "clip-powered-online", self.reference)
        step = max(-(-data.n // self.reference), 1)
        align = need_score(data, "align", "clip-powered-online").astype(np.float64)
        usual = gains_now(sample, np.arange(sample.shape[0], dtype=np.int64), self.k).astype(np.float64)
        kept = Reservoir(count)
        for start, rows in row_tiles(data, "clip-powered-online"):
            at = np.arange(start, start + rows.shape[0])
            local = _local(rows, sample, np.where(at % step == 0, at // step, -1), self.k)
            total = self.alignment * _z(align[at], align[::step]) + self.diversity * _z(local, usual)
            kept.add(total, np.zeros(total.size), total.astype(np.float32))
        chosen = kept.chosen()
        return in_order(chosen.index, chosen.gain)


def _check(alignment: float, diversity: float, k: int) -> None:
    if not (alignment >= 0 and diversity >= 0) or k < 1:
        raise SelectorError(f"alignment {alignment}, diversity {diversity}, k {k}: needed are weights ≥ 0 and k ≥ 1")


def _z(value: F64, among: F64) -> F64:
    """Return the values in standard deviations from the mean of `among`; 0 where all of those are equal."""
    if not among.size:
        return np.zeros_like(value)
    deviation = float(among.std())
    if deviation <= 1e-6:  # rounding of equal values
        return np.zeros_like(value)
    scaled: F64 = (value - float(among.mean())) / deviation
    return scaled


def _local(rows: F32, sample: F32, own: I64, k: int) -> F64:
    """Return the mean distance (b,) to the k nearest of the sample; own: (b,) the row's place in it, or -1."""
    sim = rows @ sample.T
    inside = np.flatnonzero(own >= 0)
    sim[inside, own[inside]] = -np.inf
    top = np.full((rows.shape[0], k), -np.inf, dtype=np.float32)
    found = np.full((rows.shape[0], k), -1, dtype=np.int64)
    push_topk(sim, np.ones(sample.shape[0], dtype=np.bool_), 0, top, found)
    return mean_distance(top).astype(np.float64)
