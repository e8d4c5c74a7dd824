"""Which lists there are: their centres and sizes, the one that a row joins, and those that a query reads."""

from __future__ import annotations

import numpy as np

from curate.neighbors.centres import Centres, far_ones, floats, trained, weights
from curate.neighbors.pages import rotation
from curate.neighbors.products import whole_numbers
from curate_kernels.arrays import F32, I32, I64, U8, unit_rows
from curate_kernels.codes import choose_lists, digit_planes
from curate_kernels.search import U16, Rotated

BLOCK = 1024  # rows that join together
_LISTS = 5.0  # lists, and
_READ = 24.0  # rows that a query reads, per square root of rows in the lists; both grow as little as they can
_LEAST_READ = 8192
_FIRST = 512  # rows read first, to learn how near the neighbours are
_LONGEST = 8  # times the mean length, from which a list is halved
_FOUNDERS = 32  # most lists that a block founds


class Coarse:
    """The centres of lists, numbered from 0, and how many rows each holds; where these rows lie is not known here."""

    def __init__(self, rows: U16, sample: I64, live: int) -> None:
        """Train centres for so many rows. rows: (n, d) uint16, bits of float16; sample: those that are trained on."""
        d, wanted = rows.shape[1], self.wanted(live)
        self._rotation = rotation(d)
        centre, weight = trained(rows, sample, wanted, live)
        self._longest, self._most = max(256, _LONGEST * live // wanted), 4 * wanted
        self._founding = max(2 * weight / wanted, 1e-9)  # weight that founds a list: twice the rows, half as many more
        self.centres = Centres(np.zeros((0, d), dtype=np.float32))
        self._length: I32 = np.zeros(0, dtype=np.int32)
        self._put(0, centre)

    @staticmethod
    def wanted(live: int) -> int:
        """Return how many lists so many rows want."""
        return max(1, int(np.sqrt(live) * _LISTS))

    @property
    def count(self) -> int:
        """How many lists there are."""
        return self._length.size

    def nearest(self, rows: U16) -> I64:
        """Return the list that each row (n, d) is nearest to."""
        return self.centres.nearest(rows)[0]

    def joined(self, rows: U16) -> I64:
        """Return the list that each of a block's rows joins; those that are far from all found new ones, at the end."""
        at, far = self.centres.nearest(rows)
        count = min(int(weights(far).sum() / self._founding), _FOUNDERS, self._most - self.count)
        founders = far_ones(far, max(count, 0))
        if not founders.size:
            return at
        self._put(self.count, floats(rows, founders))
        return self.nearest(rows)

    def add(self, at: I64) -> None:
        """Take note that rows joined lists; at: (n,), the list of each."""
        self._length += np.bincount(at, minlength=self.count).astype(np.int32)

    def long(self) -> I64:
        """Return the lists that are to be halved."""
        return np.flatnonzero(self._length > self._longest)

    def halved(self, c: int, centres: F32, sizes: tuple[int, int]) -> None:
        """Take note that a list became two, the other at the end. centres: (2, d)."""
        self._put(c, centres[:1])
        self._put(self.count, centres[1:])
        self._length[[c, -1]] = sizes

    def asked(self, queries: F32) -> tuple[Rotated, U8]:
        """Return queries (b, d) rotated, and which lists they read: (C, b), 2: at first, 1: then, 0: not."""
        b = queries.shape[0]
        turn = queries @ self._rotation
        unit, error = (np.empty(b, dtype=np.float32) for _ in range(2))
        out = Rotated(np.empty((b, turn.shape[1] // 64, 4), dtype=np.uint64), unit, error)
        digit_planes(turn, *out)
        whole, _ = whole_numbers(queries)
        read = max(_LEAST_READ, int(_READ * np.sqrt(self._length.sum())))
        chosen: U8 = np.empty((self.count, b), dtype=np.uint8)
        most = np.linalg.norm(whole.astype(np.float32), axis=1) * np.float32(1.01)
        choose_lists(self.centres.product(whole), self.centres.unit, most, self._length, _FIRST, read, chosen)
        return out, chosen

    def _put(self, at: int, centre: F32) -> None:
        """Set centres at, at + 1, …; those beyond the end found lists."""
        self.centres.put(at, unit_rows(centre))
        new = at + centre.shape[0] - self.count
        self._length = np.concatenate([self._length, np.zeros(max(new, 0), dtype=np.int32)])
