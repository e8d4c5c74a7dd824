"""Searching the kept set and farthest-point traversal against named baselines."""

from __future__ import annotations

import statistics
import time
from importlib.util import find_spec
from typing import Any

import faiss
import numpy as np

from benchmarks.paired import Ratio, paired
from curate.neighbors import Found, KeptIndex
from curate_kernels.arrays import F32, unit_rows
from curate_selectors.coverage.kcenter import KCenter
from curate_selectors.types import Candidates


def clustered(n: int, d: int, seed: int = 0) -> F32:
    """Return unit rows in 1,000 Zipf-sized clusters."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(1000, d))
    which = np.minimum(rng.zipf(1.3, n) - 1, 999)
    return unit_rows((centres[which] + rng.normal(size=(n, d)) * 0.6).astype(np.float32))


def plain_kcenter(x: F32, count: int) -> list[int]:
    picks = [int(np.argmax(x @ x.mean(axis=0)))]
    dist = 1.0 - x @ x[picks[0]]
    for _ in range(count - 1):
        picks.append(int(np.argmax(dist)))
        np.minimum(dist, 1.0 - x @ x[picks[-1]], out=dist)
    return picks


def kcenter(n: int = 20_000, d: int = 512) -> Ratio:
    x = clustered(n, d)
    data = Candidates(n, x)
    return paired(
        f"kcenter {n} x {d}, 10 %", lambda: KCenter().select(data, n // 10, 0), lambda: plain_kcenter(x, n // 10)
    )


def pooled(n: int, d: int = 512, first: int = 0) -> F32:
    """Return rows `first` … of an endless stream: 1,000 Zipf clusters, power-law noise, 10 % near duplicates.

    Rounded to float16. The median cosine to the nearest of 50,000 is .75.
    """
    shared = np.random.default_rng(0)
    centres = unit_rows(shared.normal(size=(1000, d)).astype(np.float32))
    spectrum = np.arange(1, d + 1) ** -0.5
    noise = (np.linalg.qr(shared.normal(size=(d, d)))[0] * (0.65 * spectrum / np.linalg.norm(spectrum))).T
    share = 1 / np.arange(1, 1001)
    parts = []
    for block in range(first // 10_000, -(-(first + n) // 10_000)):
        rng = np.random.default_rng([1, block])
        x = centres[rng.choice(1000, 10_000, p=share / share.sum())] * np.float32(0.76)
        x = unit_rows(x + rng.standard_normal((10_000, d), dtype=np.float32) @ noise.astype(np.float32))
        copy, cos = rng.permutation(10_000)[:2000].reshape(2, -1), rng.uniform(0.972, 0.9995, (1000, 1))
        away = rng.standard_normal((1000, d), dtype=np.float32)
        away = unit_rows(away - (away * x[copy[1]]).sum(axis=1, keepdims=True) * x[copy[1]])
        x[copy[0]] = cos * x[copy[1]] + np.sqrt(1 - cos**2) * away
        parts.append(x.astype(np.float16))
    at = first % 10_000
    return np.concatenate(parts)[at : at + n].astype(np.float32)


def kept(n: int, d: int = 512, texts: bool = False) -> KeptIndex:
    index = KeptIndex()
    for start in range(0, n, 10_000):
        grow(index, start, min(10_000, n - start), d, texts)
    return index


def grow(index: KeptIndex, first: int, b: int, d: int, texts: bool) -> None:
    x = pooled(b, d, first)
    index.add([str(first + i) for i in range(b)], x, x if texts else x[:, :0], np.full(b, texts), [""] * b)


def ask(index: KeptIndex, x: F32, texts: bool = False) -> Found:
    return index.search(x, x if texts else x[:, :0], np.full(len(x), texts), [""] * len(x), 4, 0.05, 2.0)


def search(n: int = 30_000, d: int = 512, b: int = 256) -> Ratio:
    index, flat, queries = kept(n, d), faiss.IndexFlatIP(d), pooled(b, d, 10**7)
    for start in range(0, n, 10_000):
        flat.add(pooled(min(10_000, n - start), d, start))
    return paired(f"search {b} in {n} x {d}, k = 4", lambda: ask(index, queries), lambda: flat.search(queries, 4))


def search_100k() -> Ratio:
    return search(98_303)  # the most that is searched exactly


def hnsw(n: int, room: int, d: int) -> Any:
    """Return a graph with InfoGrowth's published parameters."""
    import hnswlib

    index = hnswlib.Index(space="cosine", dim=d)
    index.init_index(n + room, ef_construction=100, M=48)
    index.set_ef(32)
    index.set_num_threads(1)
    for start in range(0, n, 10_000):
        index.add_items(pooled(min(10_000, n - start), d, start), np.arange(start, min(start + 10_000, n)))
    return index


def online(n: int, batched: bool, d: int = 512, b: int = 256) -> Ratio:
    """Query, then insert, image and text, of a micro-batch; theirs one by one, as InfoGrowth does, or batched.

    Building the graphs of 300,000 takes five minutes, so that size is not among the benchmarks.
    """
    index, graphs = kept(n, d, texts=True), [hnsw(n, 7 * b, d) for _ in range(2)]
    batches = [pooled(b, d, 10**7 + b * i) for i in range(7)]
    mine, theirs = iter(batches), iter(batches)

    def ours() -> None:
        x = next(mine)
        ask(index, x, texts=True)
        start = len(index.uids)
        index.add([str(start + i) for i in range(b)], x, x, np.ones(b, dtype=np.bool_), [""] * b)

    def baseline() -> None:
        rows = next(theirs)
        for x in [rows] if batched else np.split(rows, b):
            for graph in graphs:
                graph.knn_query(x, k=4)
                graph.add_items(x)

    return paired(f"online {n} x 2 x {d}, {'batched' if batched else 'one by one'}", ours, baseline)


def online_10k() -> Ratio:
    return online(10_000, batched=False)


def online_30k() -> Ratio:
    return online(30_000, batched=True)


def growth(sizes: tuple[int, ...] = (10_000, 30_000, 98_303, 300_000, 1_000_000), d: int = 512) -> None:
    """Print core microseconds a sample by kept rows, images only; minutes, so not among the benchmarks."""
    index, b = KeptIndex(), 256
    for size in sizes:
        started = time.process_time()
        made = 0.0
        for start in range(len(index.uids), size, 10_000):
            x = time.process_time()
            rows = pooled(min(10_000, size - start), d, start)
            made += time.process_time() - x
            index.add(
                [str(start + i) for i in range(len(rows))],
                rows,
                rows[:, :0],
                np.zeros(len(rows), bool),
                [""] * len(rows),
            )
        ask(index, pooled(b, d, 10**7))
        opening = time.process_time() - started - made
        batches = [pooled(b, d, 10**7 + b * i) for i in range(1, 9)]
        seconds = []
        for x in batches:
            started = time.process_time()
            ask(index, x)
            seconds.append(time.process_time() - started)
        print(
            f"{size:9} kept: {statistics.median(seconds) / b * 1e6:6.0f} us a query; grown in {opening:.0f} s",
            flush=True,
        )


BENCHMARKS = (kcenter, search, search_100k, *((online_10k, online_30k) if find_spec("hnswlib") else ()))
