"""Inverted lists: rows by their nearest centre, as sign codes; a search reads the lists nearest to a query."""

from __future__ import annotations

import numpy as np

from curate.neighbors.centres import training_rows
from curate.neighbors.coarse import BLOCK, Coarse
from curate.neighbors.pages import KNOWN, SIGMAS, Pages
from curate_kernels.arrays import I64
from curate_kernels.kept import near_lists, rough_best, weigh_known
from curate_kernels.search import U16, Asked, Kept


class Lists:
    """Rows of one matrix in lists. What a search finds depends on the rows that joined and on their order alone.

    Memory: d / 8 + 12 bytes a row in pages of 64, and 9 d bytes a list.
    """

    def __init__(self, rows: U16, live: I64) -> None:
        """Train centres on the live rows, one or more, and let these join. rows: (n, d) uint16, bits of float16."""
        self._coarse = Coarse(rows, training_rows(live, Coarse.wanted(live.size)), live.size)
        self._pages = Pages(rows.shape[1])
        self._pages.put(0, self._coarse.centres.x)
        for start in range(0, live.size, BLOCK):
            block = live[start : start + BLOCK]
            self._append(rows, block, self._coarse.nearest(rows[block]))
        self._halve_long(rows)

    def join(self, rows: U16, block: I64) -> None:
        """Let rows join the nearest lists, by their numbers; those that are far from all found new ones."""
        if not block.size:
            return
        before = self._coarse.count
        at = self._coarse.joined(rows[block])
        self._pages.put(before, self._coarse.centres.x[before:])
        self._append(rows, block, at)
        self._halve_long(rows)

    def search(self, kept: Kept, ask: Asked) -> None:
        """Enter the rows of the lists nearest to each query into what was found."""
        b = ask.queries.shape[0]
        turned, chosen = self._coarse.asked(ask.queries)
        lists = self._pages.coded()
        rough = np.full((b, KNOWN), -np.inf, dtype=np.float32)
        known = np.full((b, KNOWN), -1, dtype=np.int64)
        rough_best(*np.divmod(np.flatnonzero(chosen == 2), b), ask, kept, lists, turned, rough, known)
        bar = np.empty(b, dtype=np.float32)
        weigh_known(known, ask, kept, bar)
        near_lists(*np.divmod(np.flatnonzero(chosen), b), known, bar, SIGMAS, ask, kept, lists, turned)

    def _append(self, rows: U16, block: I64, at: I64) -> None:
        self._pages.append(rows, block, at)
        self._coarse.add(at)

    def _halve_long(self, rows: U16) -> None:
        while (long := self._coarse.long()).size:
            for c in long.tolist():
                fresh = self._coarse.count
                centres, sizes = self._pages.halve(rows, c, fresh)
                self._coarse.halved(c, centres, sizes)


def list_bytes(d: int) -> int:
    """Return the bytes that a row of d numbers takes in lists: its code, factors and number, and a quarter to spare."""
    return (d // 8 + 12) * 5 // 4
