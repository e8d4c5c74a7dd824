"""Embeddings that do not fit memory, read when they are sliced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from curate.errors import UsageError
from curate.pool import Pool, vectors
from curate_kernels.arrays import F32, I64, unit_rows


class LazyRows:
    """Unit rows (n, d) float32 that are read anew for every slice: all that a method which reads by tiles asks for.

    read: the rows of these numbers, (m, d) in this order; rows: the numbers of the n rows that these are
    """

    ndim = 2

    def __init__(self, read: Callable[[I64], F32], rows: I64, d: int) -> None:
        self._read, self._rows, self.shape = read, rows, (rows.size, d)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: slice | I64) -> Any:
        """Return the rows of a slice; of an array of numbers, those rows, unread."""
        if not isinstance(at, slice):
            return LazyRows(self._read, self._rows[np.asarray(at, dtype=np.int64).reshape(-1)], self.shape[1])
        rows: F32 = np.asarray(self._read(self._rows[at]), dtype=np.float32)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if bad.size:
            raise UsageError(f"x has NaN or infinity in row {self._rows[at][bad[0]]}; drop or mend it")
        return unit_rows(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return all rows, for what cannot do with slices."""
        return np.asarray(self[:], dtype=dtype)


def of_map(x: np.memmap[Any, Any]) -> LazyRows:
    """Return the rows of a memory map, float32 or float16."""
    return LazyRows(lambda rows: np.asarray(x[rows], dtype=np.float32), np.arange(x.shape[0]), x.shape[1])


def of_pool(pool: Pool, view: str, ordinals: I64) -> LazyRows:
    """Return a view of the rows of a pool with these ordinals."""
    d = pool.dataset.schema.field(view).type.list_size

    def read(rows: I64) -> F32:
        ascending = np.argsort(rows, kind="stable")
        out = np.empty((rows.size, d), dtype=np.float32)
        out[ascending] = vectors(pool.take(rows[ascending].tolist(), [view]).column(0), d)
        return out

    return LazyRows(read, ordinals, d)
