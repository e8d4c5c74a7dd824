"""Rows in lists as sign codes, in pages of 64."""

from __future__ import annotations

import numpy as np

from curate.neighbors.centres import floats, two_sides
from curate_kernels.arrays import F32, I32, I64, unit_rows
from curate_kernels.codes import append_codes, residual_codes
from curate_kernels.kept import PAGE
from curate_kernels.search import U16, U64, Coded

KNOWN = 16  # rows, the best by estimate, that are computed first
SIGMAS = 2.5  # .006 of the estimates are lower by more
_PORTION = 1024  # rows that are rotated at once


class Pages:
    """Lists, numbered from 0, of the numbers of rows with what estimates their similarities."""

    def __init__(self, d: int) -> None:
        self._rotation = rotation(d)
        wide = self._rotation.shape[1]
        self._centre: F32 = np.zeros((0, d), dtype=np.float32)
        self._rotated: F32 = np.zeros((0, wide), dtype=np.float32)
        self._codes: U64 = np.zeros((0, wide // 64, PAGE), dtype=np.uint64)
        self._factor: F32 = np.zeros((0, 2, PAGE), dtype=np.float32)
        self._slot: I32 = np.zeros((0, PAGE), dtype=np.int32)
        self._follow: I32 = np.zeros(0, dtype=np.int32)
        self._first, self._last, self._length = (np.zeros(0, dtype=np.int32) for _ in range(3))
        self._free: list[int] = []

    def coded(self) -> Coded:
        """Return the lists as a search reads them."""
        return Coded(self._centre, self._first, self._follow, self._codes, self._factor, self._slot)

    def put(self, at: int, centre: F32) -> None:
        """Set the centres of lists at, at + 1, …, unit rows (c, d); those beyond the end found lists."""
        stop = at + centre.shape[0]
        new = max(stop - self._length.size, 0)
        self._centre, self._rotated = (
            np.concatenate([old[:at], part, old[stop:]])
            for old, part in ((self._centre, centre), (self._rotated, turned(centre, self._rotation)))
        )
        self._first, self._last, self._length = (
            np.concatenate([old, np.full(new, value, dtype=np.int32)])
            for old, value in ((self._first, -1), (self._last, -1), (self._length, 0))
        )

    def append(self, rows: U16, numbers: I64, at: I64) -> None:
        """Write rows (n, d), bits of float16, by their numbers behind those of the lists `at`."""
        code = np.empty((numbers.size, self._codes.shape[1]), dtype=np.uint64)
        factor = np.empty((numbers.size, 2), dtype=np.float32)
        for start in range(0, numbers.size, _PORTION):
            part = slice(start, start + _PORTION)
            rotated = turned(floats(rows, numbers[part]), self._rotation)
            residual_codes(rotated, self._rotated, at[part], code[part], factor[part])
        pages = numbers.size // PAGE + np.unique(at).size
        self._reserve(pages)
        free = np.array(self._free[: -pages - 1 : -1], dtype=np.int64)
        lists = (self._first, self._last, self._length, self._follow)
        taken = append_codes(at, numbers, code, factor, *lists, free, self._codes, self._factor, self._slot)
        del self._free[len(self._free) - taken :]

    def halve(self, rows: U16, c: int, fresh: int) -> tuple[F32, tuple[int, int]]:
        """Leave one part of a list where it is and put the other into a list of its own; return what `Coarse` notes."""
        numbers = self._take(c)
        side, centres = two_sides(rows, numbers)
        self.put(c, unit_rows(centres[:1]))
        self.put(fresh, unit_rows(centres[1:]))
        self.append(rows, numbers, np.where(side, fresh, c))
        return centres, (int((~side).sum()), int(side.sum()))

    def _reserve(self, pages: int) -> None:
        """Have so many free pages."""
        if pages <= len(self._free):
            return
        old = self._slot.shape[0]
        size = old + max(pages, old // 16, 256)
        for array in (self._codes, self._factor, self._slot, self._follow):
            array.resize((size, *array.shape[1:]), refcheck=False)
        self._free = [*range(size - 1, old - 1, -1), *self._free]

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


def rotation(d: int) -> F32:
    """Return the rotation of rows of d numbers, (d, D) with D the next multiple of 64; the same every time."""
    wide = 64 * -(-d // 64)
    draw = np.random.default_rng(0).normal(size=(wide, wide))
    return np.ascontiguousarray(np.linalg.qr(draw)[0][:d], dtype=np.float32)


def turned(x: F32, by: F32) -> F32:
    """Return rows (n, d) rotated: (n, D). The products have one shape, so that a row's bits hang on no companions."""
    out: F32 = np.empty((x.shape[0], by.shape[1]), dtype=np.float32)
    room = np.zeros((_PORTION, x.shape[1]), dtype=np.float32)
    for start in range(0, x.shape[0], _PORTION):
        part = x[start : start + _PORTION]
        room[: part.shape[0]] = part
        out[start : start + _PORTION] = (room @ by)[: part.shape[0]]
    return out
