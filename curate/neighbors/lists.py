"""Inverted lists: rows by their nearest centre, as sign codes; a search reads the lists nearest to a query."""

from __future__ import annotations

import numpy as np

from curate.neighbors.centres import Centres, far_ones, floats, trained, two_sides, weights
from curate.neighbors.products import whole_numbers
from curate_kernels.arrays import F32, I32, I64, U8, unit_rows
from curate_kernels.codes import append_codes, choose_lists, digit_planes, residual_codes
from curate_kernels.kept import PAGE, near_lists, rough_best
from curate_kernels.search import U16, U64, Asked, Coded, Kept, Rotated

BLOCK = 1024  # rows that join together
_LISTS = 5.0  # lists, and
_READ = 24.0  # rows that a query reads, per square root of rows in the lists; both grow as little as they can
_LEAST_READ = 8192
_FIRST = 512  # rows read first, to learn how near the neighbours are
_KNOWN = 16  # of which the best by estimate are computed first
_SIGMAS = 2.5  # .006 of the estimates are lower by more
_LONGEST = 8  # times the mean length, from which a list is halved
_FOUNDERS = 32  # most lists that a block founds


class Lists:
    """Rows of one matrix in lists. What a search finds depends on the rows that joined and on their order alone.

    Memory: d / 8 + 12 bytes a row in pages of 64, and 5 d bytes a list.
    """

    def __init__(self, rows: U16, live: I64) -> None:
        """Train centres on the live rows, one or more, and let these join. rows: (n, d) uint16, bits of float16."""
        d = rows.shape[1]
        wanted = max(1, int(np.sqrt(live.size) * _LISTS))
        width = -(-d // 64)
        draw = np.random.default_rng(0).normal(size=(64 * width, 64 * width))
        self._rotation: F32 = np.ascontiguousarray(np.linalg.qr(draw)[0][:d], dtype=np.float32)
        self._rotated: F32 = np.zeros((0, 64 * width), dtype=np.float32)
        self._codes: U64 = np.zeros((0, width, PAGE), dtype=np.uint64)
        self._factor: F32 = np.zeros((0, 2, PAGE), dtype=np.float32)
        self._slot: I32 = np.zeros((0, PAGE), dtype=np.int32)
        self._follow: I32 = np.zeros(0, dtype=np.int32)
        self._first, self._last, self._length = (np.zeros(0, dtype=np.int32) for _ in range(3))
        self._free: list[int] = []
        centre, weight = trained(rows, live, wanted)
        self._longest, self._most = max(256, _LONGEST * live.size // wanted), 4 * wanted
        self._founding = max(2 * weight / wanted, 1e-9)  # weight that founds a list: twice the rows, half as many more
        self._centres = Centres(np.zeros((0, d), dtype=np.float32))
        self._put(0, centre)
        for start in range(0, live.size, BLOCK):
            block = live[start : start + BLOCK]
            self._append(rows, block, self._centres.nearest(rows[block])[0])
        self._halve_long(rows)

    def join(self, rows: U16, block: I64) -> None:
        """Let rows join the nearest lists, by their numbers; those that are far from all found new ones."""
        if not block.size:
            return
        at, far = self._centres.nearest(rows[block])
        count = min(int(weights(far).sum() / self._founding), _FOUNDERS, self._most - self._length.size)
        founders = far_ones(far, max(count, 0))
        if founders.size:
            self._put(self._length.size, floats(rows, block[founders]))
            at, _ = self._centres.nearest(rows[block])
        self._append(rows, block, at)
        self._halve_long(rows)

    def search(self, kept: Kept, ask: Asked) -> None:
        """Enter the rows of the lists nearest to each query into what was found."""
        b, width = ask.queries.shape[0], self._codes.shape[1]
        unit, error = (np.empty(b, dtype=np.float32) for _ in range(2))
        turned = Rotated(np.empty((b, width, 4), dtype=np.uint64), unit, error)
        digit_planes(ask.queries @ self._rotation, *turned)
        lists = Coded(self._centres.x, self._first, self._follow, self._codes, self._factor, self._slot)
        whole, _ = whole_numbers(ask.queries)
        read = max(_LEAST_READ, int(_READ * np.sqrt(self._length.sum())))
        chosen: U8 = np.empty((self._length.size, b), dtype=np.uint8)
        most = np.linalg.norm(whole.astype(np.float32), axis=1) * np.float32(1.01)
        choose_lists(self._centres.product(whole), self._centres.unit, most, self._length, _FIRST, read, chosen)
        rough = np.full((b, _KNOWN), -np.inf, dtype=np.float32)
        known = np.full((b, _KNOWN), -1, dtype=np.int64)
        rough_best(*np.divmod(np.flatnonzero(chosen == 2), b), ask, kept, lists, turned, rough, known)
        near_lists(*np.divmod(np.flatnonzero(chosen), b), known, _SIGMAS, ask, kept, lists, turned)

    def _put(self, at: int, centre: F32) -> None:
        """Set centres at, at + 1, …; those beyond the end found lists."""
        centre = unit_rows(centre)
        self._centres.put(at, centre)
        new = max(at + centre.shape[0] - self._length.size, 0)
        self._rotated = np.concatenate(
            [self._rotated[:at], centre @ self._rotation, self._rotated[at + centre.shape[0] :]]
        )
        self._first, self._last, self._length = (
            np.concatenate([old, np.full(new, value, dtype=np.int32)])
            for old, value in ((self._first, -1), (self._last, -1), (self._length, 0))
        )

    def _append(self, rows: U16, numbers: I64, at: I64) -> None:
        """Write rows, by their numbers, to the lists `at`."""
        code = np.empty((numbers.size, self._codes.shape[1]), dtype=np.uint64)
        factor = np.empty((numbers.size, 2), dtype=np.float32)
        for start in range(0, numbers.size, BLOCK):
            part = slice(start, start + BLOCK)
            rotated = floats(rows, numbers[part]) @ self._rotation
            residual_codes(rotated, self._rotated, at[part], code[part], factor[part])
        pages = numbers.size // PAGE + np.unique(at).size
        self._reserve(pages)
        free = np.array(self._free[: -pages - 1 : -1], dtype=np.int64)
        lists = (self._first, self._last, self._length, self._follow)
        taken = append_codes(at, numbers, code, factor, *lists, free, self._codes, self._factor, self._slot)
        del self._free[len(self._free) - taken :]

    def _reserve(self, pages: int) -> None:
        """Have so many free pages."""
        if pages <= len(self._free):
            return
        old = self._slot.shape[0]
        size = old + max(pages, old // 16, 256)
        for array in (self._codes, self._factor, self._slot, self._follow):
            array.resize((size, *array.shape[1:]), refcheck=False)
        self._free = [*range(size - 1, old - 1, -1), *self._free]

    def _halve_long(self, rows: U16) -> None:
        while (long := np.flatnonzero(self._length > self._longest)).size:
            for c in long.tolist():
                numbers = self._take(c)
                side, centres = two_sides(rows, numbers)
                fresh = self._length.size
                self._put(c, centres[:1])
                self._put(fresh, centres[1:])
                self._append(rows, numbers, np.where(side, fresh, c))

    def _take(self, c: int) -> I64:
        """Return the numbers of a list's rows, and empty it."""
        pages = []
        page = int(self._first[c])
        while page >= 0:
            pages.append(page)
            page = int(self._follow[page])
        numbers = self._slot[pages].reshape(-1)[: self._length[c]].astype(np.int64)
        self._free.extend(reversed(pages))
        self._first[c] = self._last[c] = -1
        self._length[c] = 0
        return numbers


def list_bytes(d: int) -> int:
    """Return the bytes that a row of d numbers takes in lists: its code, factors and number, and a quarter to spare."""
    return (d // 8 + 12) * 5 // 4
