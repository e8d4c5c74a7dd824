"""Counts of samples read and skipped, in one row for each worker process, so that none overwrites another's."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import SampleError

WORKERS = 256  # rows; a worker's number modulo this is its row


class Tally:
    """Counts in `table`, (WORKERS, 1 + reasons) int64, which processes may share; column 0 counts what was read.

    read_here and skipped_here count what this process did.
    """

    def __init__(self, table: NDArray[np.int64] | None = None) -> None:
        self.table = np.zeros((WORKERS, 1 + len(SampleError.REASONS)), np.int64) if table is None else table
        self.worker = 0
        self.read_here = self.skipped_here = 0
        self._lock = threading.Lock()  # of this process's threads

    def __getstate__(self) -> dict[str, Any]:
        return {"table": self.table}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["table"])  # type: ignore[misc]

    def count_read(self) -> None:
        """Count an item that was given."""
        with self._lock:
            self.read_here += 1
            self.table[self.worker % WORKERS, 0] += 1

    def count_skipped(self, reason: str) -> None:
        """Count a sample that was skipped."""
        with self._lock:
            self.skipped_here += 1
            self.table[self.worker % WORKERS, 1 + SampleError.REASONS.index(reason)] += 1

    @property
    def read(self) -> int:
        """Return the items that all processes gave."""
        return int(self.table[:, 0].sum())

    @property
    def skipped(self) -> dict[str, int]:
        """Return {reason: samples} that all processes skipped, without those that are 0."""
        sums: Any = self.table[:, 1:].sum(axis=0)
        return {reason: int(n) for reason, n in zip(SampleError.REASONS, sums, strict=True) if n}
