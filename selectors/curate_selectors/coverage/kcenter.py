"""k-center: farthest-point traversal (Gonzalez 1985), the 2-approximation that Sener & Savarese (2018) use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_kernels.kcenter import pick_farthest
from curate_selectors.coverage.blocks import TAKEN, largest
from curate_selectors.errors import SelectorError
from curate_selectors.fill import fill
from curate_selectors.inputs import check_count, need_rows
from curate_selectors.parts import over_parts
from curate_selectors.types import Candidates, Selection

_LAST = 10  # one centre in so many is picked with all rows in sight


@dataclass(frozen=True, slots=True)
class KCenter:
    """Exact greedy k-center on cosine distance, evaluated lazily.

    A row's stored distance is an upper bound (more centres only bring it nearer), so only the rows with the largest
    bounds are brought up to date, a block at a time by one matrix product. Same picks as the plain loop, up to the
    rounding of float32 products. The first centre is the row nearest to the mean, so no seed is involved.

    With parts, for rows that do not fit memory: the centres of each contiguous part, then the centres of all those
    (Malkomes et al., NeurIPS 2015), for nine tenths of the count; the last tenth, among the rows of each part that are
    farthest from these. On clustered rows the one-level radius, as a Euclidean distance, is .96 of this one or more;
    with oversampling 4 it was .53 once. Where every part gives as many centres (oversampling is parts or more) it is
    within 4 times the least one of nine tenths as many centres. Not nested: parts give more centres to a larger count.

    block: rows brought up to date together
    parts: read one at a time; 1: one level, all rows in memory
    oversampling: centres that the parts give together, in units of `count`; they are held in memory
    """

    block: int = 512
    parts: int = 1
    oversampling: float = 16.0

    def __post_init__(self) -> None:
        if self.block < 1:
            raise SelectorError(f"block is {self.block}; it must be at least 1")
        if self.parts < 1 or not self.oversampling >= 1:
            raise SelectorError(f"parts is {self.parts}, oversampling {self.oversampling}; at least 1 each are needed")

    @property
    def nested(self) -> bool:
        """Whether a smaller selection is a prefix of a larger one."""
        return self.parts == 1

    @property
    def tiled(self) -> bool:
        """Whether one part is read at a time."""
        return self.parts > 1

    @property
    def spread(self) -> bool:
        """Whether parts may be worked on elsewhere."""
        return self.parts > 1

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` centres in order; gain is the distance to the nearest earlier one.

        Memory O(n + count d); with parts O((n / parts + oversampling count) d), the embeddings being all that can be
        sliced, of float16 too.
        """
        del seed  # nothing is drawn
        check_count(data, count)
        if self.parts == 1:
            index, gain = self._centres(need_rows(data, "kcenter"), count)
        else:
            index, gain = self._in_parts(data, count)
        ones = np.ones(count, dtype=np.float32)
        return Selection(index, gain, ones, ones.copy())

    def _in_parts(self, data: Candidates, count: int) -> tuple[I64, F32]:
        last = count // _LAST
        some, x = self._of_parts(data, count - last)
        index, gain = self._centres(x, count - last)
        if not last:
            return some[index], gain
        first, centres = some[index], x[index]
        some, x = self._farthest_of_parts(data, first, centres, last)
        index, more = self._farthest(x, centres, last)
        return np.concatenate([first, some[index]]), np.concatenate([gain, more])

    def _farthest_of_parts(self, data: Candidates, first: I64, centres: F32, count: int) -> tuple[I64, F32]:
        """Return the rows of each part that are picked first after these centres, ascending, and their embeddings."""
        size = -(-data.n // self.parts)
        taken = [np.sort(first[first // size == part]) for part in range(-(-data.n // size))]
        told = [
            {"count": count, "start": part * size, "centres": centres, "taken": own - part * size}
            for part, own in enumerate(taken)
        ]
        found = list(over_parts(data, "kcenter", np.arange(data.n) // size, self._farthest_of_part, told))
        return np.concatenate([part["index"] for part in found]), np.concatenate([part["x"] for part in found])

    def _farthest_of_part(self, x: F32, told: dict[str, Any]) -> dict[str, Any]:
        count = min(told["count"], x.shape[0] - told["taken"].size)
        found = np.sort(self._farthest(x, told["centres"], count, told["taken"])[0])
        return {"index": told["start"] + found, "x": x[found]}

    def _farthest(self, x: F32, centres: F32, count: int, taken: I64 | None = None) -> tuple[I64, F32]:
        """Return `count` rows of x (n, d) that are picked after other centres; taken: rows that are centres already."""
        index, gain = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
        bound = np.empty(x.shape[0], dtype=np.float32)
        for low in range(0, x.shape[0], self.block):
            near = (x[low : low + self.block] @ centres.T).max(axis=1)
            bound[low : low + self.block] = np.maximum(1.0 - near, 0.0)
        if taken is not None:
            bound[taken] = TAKEN
        farther(x, bound, np.zeros(x.shape[0], dtype=np.int64), index, gain, 0, self.block)
        return index, gain

    def _of_parts(self, data: Candidates, count: int) -> tuple[I64, F32]:
        """Return the centres of the parts, ascending, and their rows (m, d)."""
        size = max(-(-data.n // self.parts), 1)
        sizes = np.minimum(size, data.n - np.arange(0, data.n, size))
        share = np.ceil(fill(sizes, min(self.oversampling * count, float(data.n)))).astype(np.int64)
        told = [{"count": int(own), "start": part * size} for part, own in enumerate(share)]
        found = list(over_parts(data, "kcenter", np.arange(data.n) // size, self._of_part, told))
        index = np.concatenate([np.zeros(0, dtype=np.int64), *(part["index"] for part in found)])
        return index, np.concatenate([part["x"] for part in found]) if found else np.zeros((0, 0), dtype=np.float32)

    def _of_part(self, x: F32, told: dict[str, Any]) -> dict[str, Any]:
        found = np.sort(self._centres(x, told["count"])[0])
        return {"index": told["start"] + found, "x": x[found]}

    def _centres(self, x: F32, count: int) -> tuple[I64, F32]:
        index, gain = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.float32)
        if count:
            self._traverse(x, index, gain)
        return index, gain

    def _traverse(self, x: F32, index: I64, gain: F32) -> None:
        index[0] = int(np.argmax(x @ x.mean(axis=0)))
        bound = np.maximum(1.0 - x @ x[index[0]], 0.0).astype(np.float32)
        gain[0] = 1.0
        bound[index[0]] = TAKEN
        farther(x, bound, np.ones(x.shape[0], dtype=np.int64), index, gain, 1, self.block)


def farther(x: F32, bound: F32, fresh: I64, index: I64, gain: F32, done: int, size: int = 512) -> None:
    """Fill index and gain (m,) from `done` on with the rows of x (n, d) farthest from all centres before, in turn.

    bound: (n,) upper bound of each row's distance to the nearest centre, TAKEN of those that cannot be picked
    fresh: (n,) how many of the first centres each bound accounts for; both are brought up to date
    size: rows brought up to date together
    """
    while done < index.shape[0]:
        block, outside, outside_index = largest(bound, size)
        rows = x[block]
        oldest = int(fresh[block].min())
        if oldest < done:
            centres = x[index[min(oldest, done - 2) : done]] if done > 1 else np.repeat(x[index[:1]], 2, axis=0)
            near = (rows @ centres.T).max(axis=1)  # of one centre alone, equal rows' products differ in the last bit
            np.minimum(bound[block], np.maximum(1.0 - near, 0.0), out=near)
            bound[block] = near
            fresh[block] = done
        dist = bound[block]
        picked = np.empty(index.shape[0] - done, dtype=np.int64)
        radius = np.empty(index.shape[0] - done, dtype=np.float32)
        found = pick_farthest(dist, rows @ rows.T, block, outside, outside_index, picked, radius)
        index[done : done + found] = block[picked[:found]]
        gain[done : done + found] = radius[:found]
        bound[block] = dist
        done += found
        fresh[block] = done
