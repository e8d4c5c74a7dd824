"""One matrix of kept rows, images or captions: exact search while it is small, inverted lists and a tail beyond."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from curate.neighbors.coarse import BLOCK
from curate.neighbors.flat import search_tiles
from curate.neighbors.lists import Lists
from curate.neighbors.products import WholeTiles
from curate_kernels.arrays import B1, F32, I64
from curate_kernels.kept import pair_inner
from curate_kernels.search import U16, Asked, Kept


class KeptRows(Protocol):
    """What the kept set asks of a matrix of its rows, here or on other machines: see `Side`."""

    captioned: bool  # whether rows have their captions beside them

    @property
    def rows(self) -> U16:
        """Rows (n, d), none where they are elsewhere."""

    def reserve(self, rows: int, width: int) -> None:
        """Have room."""

    def put(self, start: int, x: F32, captions: F32, captioned: B1) -> None:
        """Set rows."""

    def drop(self, rows: I64) -> None:
        """Keep rows no more."""

    def compact(self, alive: I64) -> None:
        """Keep these rows only."""

    def train(self, size: int, usable: I64) -> None:
        """Make lists anew."""

    def join(self, size: int, kept: Kept) -> None:
        """Let rows join the lists."""

    def search(self, kept: Kept, size: int, ask: Asked) -> None:
        """Enter rows into what was found."""

    def pairs(self, i: I64, at: I64, ask: Asked, kept: Kept, captions: bool = False) -> F32:
        """Return similarities."""


class Side:
    """Rows (n, d) as bits of float16, in order of arrival, and the lists over the first of them."""

    captioned = False

    def __init__(self) -> None:
        self.rows: U16 = np.zeros((0, 0), dtype=np.uint16)
        self.longest = 0.0  # norm of the longest row
        self.forget()

    def reserve(self, rows: int, width: int) -> None:
        """Have room for so many rows of at least this width; the memory grows where it lies, not in a copy."""
        if width > self.rows.shape[1]:
            wider = np.zeros((rows, width), dtype=np.uint16)
            wider[: self.rows.shape[0], : self.rows.shape[1]] = self.rows
            self.rows = wider
            self.forget()
        elif rows > self.rows.shape[0]:
            self.rows.resize((rows, self.rows.shape[1]), refcheck=False)

    def put(self, start: int, x: F32, captions: F32, captioned: B1) -> None:
        """Set rows start, start + 1, … to x (b, width), rounded to float16; their captions lie beside, in `Kept`."""
        short = x.astype(np.float16)
        self.rows[start : start + x.shape[0], : x.shape[1]] = short.view(np.uint16)
        whole = short.astype(np.float32)
        self.longest = max(self.longest, float(np.sqrt(np.einsum("ij,ij->i", whole, whole).max(initial=0.0))) * 1.0001)

    def drop(self, rows: I64) -> None:
        """Take note that rows are kept no more: their flags in `Kept` tell it."""

    def compact(self, alive: I64) -> None:
        """Keep these rows only, in order, and forget the lists."""
        for start in range(0, alive.size, BLOCK):  # a row moves forward only, so block by block overwrites none
            part = alive[start : start + BLOCK]
            self.rows[start : start + part.size] = self.rows[part]
        self.forget()

    def forget(self) -> None:
        """Search everything exactly, as rows lie now."""
        self._tiles = WholeTiles()
        self._lists: Lists | None = None
        self._listed = 0  # rows before this one are in the lists

    def train(self, size: int, usable: I64) -> None:
        """Make lists anew over the usable among the first `size` rows; of fewer than a block none are made."""
        self.forget()
        if usable.size >= BLOCK:
            self._lists, self._listed = Lists(self.rows, usable), size

    def join(self, size: int, kept: Kept) -> None:
        """Let the rows before `size` join the lists, in whole blocks."""
        while self._lists is not None and size - self._listed >= BLOCK:
            block = np.arange(self._listed, self._listed + BLOCK)
            self._lists.join(self.rows, block[kept.flags[block] & kept.need == kept.need])
            self._listed += BLOCK

    def search(self, kept: Kept, size: int, ask: Asked) -> None:
        """Enter the rows before `size` into what was found: exactly, but for those in lists that are not read."""
        if not self.rows.shape[1]:
            return
        if self._lists is not None:
            self._lists.search(kept, ask)
        search_tiles(kept, self.longest, ask, self._listed, size, self._tiles)

    def pairs(self, i: I64, at: I64, ask: Asked, kept: Kept, captions: bool = False) -> F32:
        """Return the similarities (p,) of queries i and rows `at`, or of their captions, as a search computes them."""
        sim = np.empty(i.size, dtype=np.float32)
        pair_inner(i, at, ask.captions if captions else ask.queries, kept.captions if captions else kept.rows, sim)
        return sim
