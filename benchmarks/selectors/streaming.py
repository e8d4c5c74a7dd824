"""Methods that read their rows by tiles, over rows that are made tile by tile: microseconds a row, and peak memory.

`python -m benchmarks.selectors.streaming ROWS [METHOD …]`; 10 million rows, 20 GB, are never there at once.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from curate_selectors.registry import make
from curate_selectors.types import Candidates

D = 512
SHARE = 100  # one row in so many is chosen,
SHARES = {"kcenter": 1000}  # but for some
_BLOCK = 64  # rows made from one seed
# infogrowth draws from gains that the engine has measured; the others read embeddings, or nothing.
METHODS: dict[str, dict[str, Any]] = {
    "random": {},
    "reservoir": {},
    "infogrowth": {},
    "density": {},
    "density-online": {},
    "ridge-leverage-online": {},
    "sieve-streaming": {},
    "clip-powered-online": {},
    "semdedup": {},
    "kcenter": {"parts": 10},
}


class Made:
    """Unit rows in 1,000 clusters of falling size, made when they are sliced; `seconds` says how long that took."""

    ndim = 2

    def __init__(self, n: int, d: int = D) -> None:
        self.shape = (n, d)
        self.seconds = 0.0
        self._centre = np.random.default_rng(0).standard_normal((1000, d), dtype=np.float32)

    def __getitem__(self, at: slice) -> np.ndarray:
        started = time.perf_counter()
        rows = np.arange(*at.indices(self.shape[0]))
        blocks, first = np.unique(rows // _BLOCK, return_index=True)
        out = np.empty((rows.size, self.shape[1]), dtype=np.float32)
        for block, start, stop in zip(blocks, first, [*first[1:], rows.size], strict=True):
            out[start:stop] = self._block(int(block))[rows[start:stop] - block * _BLOCK]
        self.seconds += time.perf_counter() - started
        return out

    def _block(self, number: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(number))
        label = (1000 ** rng.random(_BLOCK)).astype(np.int64) - 1
        rows = self._centre[label] + rng.standard_normal((_BLOCK, self.shape[1]), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@dataclass(frozen=True)
class Run:
    """Seconds without those that the rows took to be made; peak memory of the whole process, in bytes."""

    method: str
    rows: int
    seconds: float
    memory: int

    def line(self) -> str:
        each = self.seconds / self.rows * 1e6
        return f"{self.method:32} {self.rows:11,} rows {each:9.2f} us/row {self.memory / 1e9:7.2f} GB"


def select(method: str, n: int, d: int) -> Run:
    """Choose 1 % of n rows, or as SHARES says, in this process."""
    rng = np.random.default_rng(0)

    def timed(n: int) -> float:
        x = Made(n, d)
        scores = {"gain": rng.random(n, dtype=np.float32)} if method == "infogrowth" else {}
        if method == "clip-powered-online":
            scores = {"align": rng.random(n, dtype=np.float32)}
        started = time.perf_counter()
        make(method, **METHODS[method]).select(Candidates(n=n, x=x, scores=scores), n // SHARES.get(method, SHARE), 0)
        return time.perf_counter() - started - x.seconds

    timed(1000)  # compiles
    seconds = timed(n)
    return Run(method, n, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def streamed(method: str, n: int = 50_000, d: int = D) -> Run:
    """Choose 1 % of n rows in a process of its own, so that the peak is this method's alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(select, (method, n, d))


BENCHMARKS = tuple(partial(streamed, method) for method in METHODS)

if __name__ == "__main__":
    for name in sys.argv[2:] or METHODS:
        print(streamed(name, int(sys.argv[1])).line(), flush=True)
