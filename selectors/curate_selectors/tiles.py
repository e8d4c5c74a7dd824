"""Candidates read a tile at a time: embeddings may be all that can be sliced, a memory map or float16."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_selectors.errors import SelectorError
from curate_selectors.types import Candidates, Selection

TILE = 4096


def row_tiles(data: Candidates, method: str, size: int = TILE) -> Iterator[tuple[int, F32]]:
    """Yield (first row, rows (b, d) float32) over the embeddings in order; nothing larger than a tile is copied.

    Raises SelectorError when there are none, when they do not fit the candidates, or hold NaN or infinity.
    """
    check_shape(data, method)
    for start in range(0, data.n, size):
        yield start, _finite(data, slice(start, start + size))


def sample_tile(data: Candidates, method: str, size: int) -> F32:
    """Return at most `size` embeddings, evenly spread over the candidates, as one (m, d) float32 array.

    Raises as `row_tiles` does.
    """
    check_shape(data, method)
    return _finite(data, slice(0, data.n, max(-(-data.n // size), 1)))


def gathered(data: Candidates, method: str, rows: I64) -> F32:
    """Return the embeddings of these rows, ascending, as one (m, d) float32 array: read in one pass over the tiles.

    Raises as `row_tiles` does.
    """
    check_shape(data, method)
    assert data.x is not None
    if hasattr(data.x, "over_parts"):  # spread over machines: every tile would be carried here
        return np.asarray(data.x[rows], dtype=np.float32)
    out = np.empty((rows.size, data.x.shape[1]), dtype=np.float32)
    for start in np.unique(rows // TILE) * TILE:
        low, high = np.searchsorted(rows, (start, start + TILE))
        out[low:high] = _finite(data, slice(int(start), int(start) + TILE))[rows[low:high] - start]
    return out


def check_shape(data: Candidates, method: str) -> None:
    """Raise SelectorError unless there are embeddings (n, d)."""
    if data.x is None:
        raise SelectorError(f"method {method!r} needs embeddings, and none were given")
    if data.x.ndim != 2 or data.x.shape[0] != data.n:
        raise SelectorError(f"embeddings have shape {data.x.shape}; ({data.n}, d) is needed")


def _finite(data: Candidates, at: slice) -> F32:
    assert data.x is not None
    tile = np.ascontiguousarray(data.x[at], dtype=np.float32)
    if not np.isfinite(tile).all():
        raise SelectorError("embeddings hold NaN or infinity; drop or mend those rows")
    return tile


class Tally(Protocol):
    """What a method keeps of the tiles that it has seen."""

    def take(self, rows: F32) -> None:
        """Take the next tile (b, d)."""
        ...

    def chosen(self, count: int) -> Selection:
        """Return `count` picks of all rows so far."""
        ...


class Tiled:
    """A pass (`protocols.Pass`) that hands rows on in tiles of one size, whatever the batches they arrive in."""

    def __init__(self, tally: Tally, size: int = TILE) -> None:
        self._tally, self._size = tally, size
        self._held: F32 | None = None

    def add(self, rows: F32) -> None:
        """Take the next rows (b, d). Raises SelectorError for NaN, infinity or another d than before."""
        self._held = joined(self._held, rows)
        while self._held.shape[0] >= self._size:
            self._tally.take(self._held[: self._size])
            self._held = self._held[self._size :]

    def chosen(self, count: int) -> Selection:
        """Return `count` picks of all rows so far; the rows that fill no tile yet are not taken for good."""
        tally = copy.deepcopy(self._tally)
        if self._held is not None and self._held.shape[0]:
            tally.take(self._held)
        return tally.chosen(count)


def joined(held: F32 | None, rows: F32) -> F32:
    """Return rows (b, d) after those held, in an array of their own. Raises SelectorError for NaN or another d."""
    if rows.ndim != 2 or (held is not None and rows.shape[1] != held.shape[1]):
        wanted = "d" if held is None else held.shape[1]
        raise SelectorError(f"embeddings have shape {rows.shape}; (b, {wanted}) is needed")
    if not np.isfinite(rows).all():
        raise SelectorError("embeddings hold NaN or infinity; drop or mend those rows")
    return np.concatenate([rows[:0] if held is None else held, rows]).astype(np.float32, copy=False)
