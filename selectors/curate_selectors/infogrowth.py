"""InfoGrowth: Dataset Growth, ECCV 2024, arXiv:2405.18347.

Gain (their eq. for the k-NN estimate): g(e) = (1/k) sum_{j in N_k(e)} (1 - cos(e, e_j)), N_k among everything kept
before; the mean of the image's and the text's gain for pairs. Selection: w = clip(g / quantile_.99(g), 0, 1), then
m draws without replacement with probability proportional to w.

A gain frozen at arrival favours early samples; `InfoGrowth` corrects that (`drift.py`), `InfoGrowthReference` does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from curate_kernels.admit import admit_batch
from curate_kernels.arrays import F32, I64
from curate_kernels.topk import push_topk
from curate_selectors.drift import Drift, sample_rows
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, need_labels, need_rows
from curate_selectors.sampling import draw
from curate_selectors.tiles import joined
from curate_selectors.types import Batch, Candidates, Decision, Selection

_BLOCK = 256
_TILE = 8192


@dataclass(frozen=True, slots=True)
class InfoGrowth:
    """The online rule and the sampler.

    k: neighbours in the gain; epsilon, epsilon_text: near-duplicate distance (1 - cosine) of images and of captions
    epsilon_alike: that of images whose perceptual hashes are near
    quantile: gains at or above this quantile get weight 1
    """

    k: int = 4
    epsilon: float = 0.0
    epsilon_text: float = 0.0
    epsilon_alike: float = 0.0
    quantile: float = 0.99
    # (least, top): a batch's row enters where log(min(gain, top)) + luck reaches least. Of bounded pools: the engine's.
    bar: tuple[float, float] = field(default=(-np.inf, np.inf), metadata={"internal": True})

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SelectorError(f"k is {self.k}; it must be at least 1")
        if not 0 < self.quantile <= 1:
            raise SelectorError(f"quantile is {self.quantile}; it must lie in (0, 1]")

    def decide(self, batch: Batch) -> Decision:
        """Admit each row that is free and duplicates nothing; peak memory O(b²)."""
        b = batch.stage.shape[0]
        admitted = np.zeros(b, dtype=np.bool_)
        twin = np.full(b, -1, dtype=np.int64)
        gain_image = np.full(b, np.nan, dtype=np.float32)
        gain_text = np.full(b, np.nan, dtype=np.float32)
        admit_batch(
            batch.stage,
            batch.kept_twin,
            batch.top_image,
            batch.top_text,
            batch.image @ batch.image.T,
            batch.text @ batch.text.T,
            batch.pixel,
            batch.alike,
            batch.has_text,
            np.array([self.epsilon, self.epsilon_text, max(self.epsilon, self.epsilon_alike)], dtype=np.float32),
            batch.luck,
            np.array(self.bar, dtype=np.float64),
            admitted,
            twin,
            gain_image,
            gain_text,
        )
        gain = np.where(batch.has_text, (gain_image + gain_text) / 2, gain_image).astype(np.float32)
        return Decision(admitted, twin, gain, gain_image, gain_text)

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Sample `count` rows by gain; the gains come from `scores["gain"]`, else from x in the order given.

        Memory O(n); without gains O(n d).
        """
        check_count(data, count)
        if "gain" in data.scores:
            gain = np.asarray(data.scores["gain"], dtype=np.float32)
            if gain.shape != (data.n,) or not np.isfinite(gain).all():
                raise SelectorError(f"scores['gain'] must be {data.n} finite numbers; its shape is {gain.shape}")
        else:
            gain = self.gains(need_rows(data, "infogrowth"))
        return self.sampled(gain, count, seed)

    def sampled(self, gain: F32, count: int, seed: int) -> Selection:
        """Return `count` draws in proportion to clipped gains (n,)."""
        top = float(np.quantile(gain, self.quantile)) if gain.size else 1.0
        weight = np.clip(gain / top, 0.0, 1.0) if top > 0 else np.ones(gain.size, dtype=np.float32)
        with np.errstate(divide="ignore"):
            index, chance = draw(np.log(weight.astype(np.float64)), count, seed)
        return Selection(index, gain[index], np.ones(count, dtype=np.float32), chance)

    def begin(self, most: int | None, seed: int) -> Arrivals:
        """Return the pass over rows that arrive; all are kept, as gains are distances to them."""
        return Arrivals(self, seed)

    def gains(self, x: F32) -> F32:
        """Return the gains of rows x (n, d) in the order given."""
        return self.settled(x, stream_gains(x, self.k))

    def settled(self, x: F32, frozen: F32) -> F32:
        """Return the gains (n,) that rows x (n, d) had when they arrived, corrected for drift."""
        size, at = np.arange(x.shape[0], dtype=np.int64), sample_rows(x.shape[0])
        at = at[at >= self.k]  # earlier gains are measured against fewer neighbours than they have now
        return Drift.fit(size[at], frozen[at], gains_now(x, at, self.k)).correct(size, frozen)


@dataclass(frozen=True, slots=True)
class InfoGrowthReference(InfoGrowth):
    """The published form: gains stay as they were at arrival (`scores["gain_arrival"]`, else from x in order)."""

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Sample `count` rows by the gain that each had when it arrived. Memory as `infogrowth`."""
        if "gain_arrival" in data.scores:
            data = replace(data, scores={"gain": data.scores["gain_arrival"]})
        else:
            data = replace(data, scores={k: v for k, v in data.scores.items() if k != "gain"})
        return InfoGrowth.select(self, data, count, seed)

    def settled(self, x: F32, frozen: F32) -> F32:
        """Return the gains (n,) as they were at arrival."""
        return frozen


class Arrivals:
    """Rows as they arrive, each with its gain against all before it."""

    def __init__(self, made: InfoGrowth, seed: int) -> None:
        self._made, self._seed = made, seed
        self._x: F32 = np.zeros((0, 0), dtype=np.float32)  # room for more rows than there are
        self._n = 0
        self._gain: list[F32] = []  # of whole blocks

    def add(self, rows: F32) -> None:
        """Take the next rows (b, d). Raises SelectorError for NaN, infinity or another d than before."""
        rows = joined(self._x[:0] if self._n else None, rows)
        n = self._n + rows.shape[0]
        if n > self._x.shape[0]:
            more = np.zeros((2 * n - self._n, rows.shape[1]), dtype=np.float32)
            self._x = np.concatenate([self._x[: self._n].reshape(self._n, rows.shape[1]), more])
        self._x[self._n : n] = rows
        self._n = n
        while (len(self._gain) + 1) * _BLOCK <= n:
            self._gain.append(_block_gains(self._x[:n], len(self._gain) * _BLOCK, self._made.k))

    def chosen(self, count: int) -> Selection:
        """Return `count` draws of all rows so far."""
        x = self._x[: self._n]
        rest = [_block_gains(x, at, self._made.k) for at in range(len(self._gain) * _BLOCK, self._n, _BLOCK)]
        frozen = np.concatenate([np.zeros(0, dtype=np.float32), *self._gain, *rest])
        return self._made.sampled(self._made.settled(x, frozen), count, self._seed)


@dataclass(frozen=True, slots=True)
class InfoGrowthLabelled(InfoGrowthReference):
    """The published form for labelled images: 1 - p is added to the gain, where p is the share of the own class.

    p is counted among the k nearest rows before; a row without a label, or that nothing precedes, has no such term. It
    doubles the share of wrong labels where no gate has refused them.
    """

    begin = None  # type: ignore[assignment]  # a pass is given no labels

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Sample `count` rows by both terms, as they were when each row arrived in the order given. Memory O(n d)."""
        x, label = need_rows(data, "infogrowth-labelled"), need_labels(data, "infogrowth-labelled")
        gain = self.gains(x) + class_surprise(x, label, self.k)
        return InfoGrowth.select(self, replace(data, scores={"gain": gain}), count, seed)


def class_surprise(x: F32, label: I64, k: int) -> F32:
    """Return 1 - the share of the own class among the k nearest rows before, (n,) float32; 0 where that is unknown.

    x: (n, d) float32 unit rows; label: (n,) int64, -1 unknown. O(n²d) time, O(n) memory.
    """
    out = np.zeros(x.shape[0], dtype=np.float32)
    for start in range(0, x.shape[0], _BLOCK):
        block = x[start : start + _BLOCK]
        top = np.full((block.shape[0], k), -np.inf, dtype=np.float32)
        found = np.full((block.shape[0], k), -1, dtype=np.int64)
        for base in range(0, start, _TILE):
            tile = x[base : min(base + _TILE, start)]
            push_topk(block @ tile.T, np.ones(tile.shape[0], dtype=np.bool_), base, top, found)
        inside = np.where(np.tri(block.shape[0], k=-1, dtype=np.bool_), block @ block.T, np.float32(-np.inf))
        push_topk(inside, np.ones(block.shape[0], dtype=np.bool_), start, top, found)
        own = label[start : start + _BLOCK, None]
        voters = (found >= 0) & (label[found] >= 0) & (own >= 0)
        other = (voters & (label[found] != own)).sum(axis=1)
        out[start : start + _BLOCK] = other / np.maximum(voters.sum(axis=1), 1)
    return out


def gains_now(x: F32, at: I64, k: int) -> F32:
    """Return the gain (m,) of the rows `at` against all other rows of x (n, d): mean distance to the k nearest."""
    out = np.empty(at.size, dtype=np.float32)
    alive = np.ones(min(_TILE, x.shape[0]), dtype=np.bool_)
    for start in range(0, at.size, _BLOCK):
        rows = at[start : start + _BLOCK]
        top = np.full((rows.size, k), -np.inf, dtype=np.float32)
        found = np.full((rows.size, k), -1, dtype=np.int64)
        for base in range(0, x.shape[0], _TILE):
            sim = x[rows] @ x[base : base + _TILE].T
            own = np.flatnonzero((rows >= base) & (rows < base + _TILE))
            sim[own, rows[own] - base] = -np.inf
            push_topk(sim, alive[: sim.shape[1]], base, top, found)
        out[start : start + _BLOCK] = mean_distance(top)
    return out


def mean_distance(similarity: F32) -> F32:
    """Return the gain (b,) of rows with these similarities (b, k) to their nearest, -inf padding; 1 where all is."""
    known = np.isfinite(similarity)
    total = np.where(known, 1.0 - similarity, 0.0).sum(axis=1)
    gain: F32 = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), 1.0).astype(np.float32)
    return gain


def stream_gains(x: F32, k: int) -> F32:
    """Return each row's gain against all rows before it, as the online rule gives when it admits everything.

    x: (n, d) float32 unit rows. O(n²d) time, O(n) memory.
    """
    blocks = [_block_gains(x, start, k) for start in range(0, x.shape[0], _BLOCK)]
    return np.concatenate([np.zeros(0, dtype=np.float32), *blocks])


def _block_gains(x: F32, start: int, k: int) -> F32:
    """Return the gains (b,) of the block of rows from `start` on against all rows of x (n, d) before each."""
    never = np.full(3, -2.0, dtype=np.float32)  # no similarity reaches 1 + 2
    block = x[start : start + _BLOCK]
    b = block.shape[0]
    gain = np.empty(b, dtype=np.float32)
    top = np.full((b, k), -np.inf, dtype=np.float32)
    row = np.full((b, k), -1, dtype=np.int64)
    for base in range(0, start, _TILE):
        tile = x[base : min(base + _TILE, start)]
        push_topk(block @ tile.T, np.ones(tile.shape[0], dtype=np.bool_), base, top, row)
    none = np.full(b, -1, dtype=np.int64)
    admit_batch(
        np.zeros(b, dtype=np.uint8),
        none,
        top,
        top,
        block @ block.T,
        np.zeros((b, b), dtype=np.float32),
        none,
        np.zeros((b, b), dtype=np.bool_),
        np.zeros(b, dtype=np.bool_),
        never,
        np.zeros(b),
        np.array([-np.inf, np.inf]),
        np.empty(b, dtype=np.bool_),
        np.empty(b, dtype=np.int64),
        gain,
        np.empty(b, dtype=np.float32),
    )
    return gain
