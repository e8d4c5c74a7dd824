"""`curate verify`: is every sample of a manifest still what it was when it was chosen?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate.errors import RemoteDeniedError, UsageError
from curate.manifest import manifest_info, manifest_roots, read_parts
from curate.ranges import in_order
from curate.remote import is_url
from curate.stored import Unread, stored_bytes
from curate_kernels.arrays import I64

Progress = Callable[[int, int], None]

_EXAMPLES = 10  # of each kind of failure
_BLOCK = 64  # samples that a thread reads at a time
_FAR = 16  # samples that are read from a store at once
_PLACE = ["source", "path", "offset", "size", "sha256"]
_READ = ["uid", *_PLACE, "rank", "weight", "inclusion_probability"]


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found.

    rows: of the manifest; checked: how many of them were read, and of these
    ok: have the SHA-256 that the manifest tells; missing: have no file any more; changed: are other bytes, or the file
        ends before them; unreadable: the file is there and cannot be read
    broken: {rule: rows against it} of the rules that every manifest keeps, where there are any
    examples: {"missing" | "changed" | "unreadable": the first few, each {"uid", "source", "path", "problem"}}
    """

    manifest: str
    rows: int
    checked: int = 0
    ok: int = 0
    missing: int = 0
    changed: int = 0
    unreadable: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Tell whether all that was checked is as it should be."""
        return self.ok == self.checked and not self.broken


def verify(
    manifest: str | Path,
    *,
    roots: Mapping[str, str] | None = None,
    sample: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verified:
    """Read every sample's bytes again where the manifest says that they lie, and compare their SHA-256.

    The SHA-256 of the manifest's parts, and the rules that it keeps (unique uids unless rows are crops, ranks from 0 in
    order, weights, probabilities, known sources), are checked over all rows, whatever share of samples is read. A part
    of the manifest (1,000,000 rows) is held at a time, and its files are read in the order of their bytes.

    roots: {old: new}, where an old root, or a folder above it, lies now
    sample, fraction: read so many samples, or this share of them, drawn with `seed`; all by default
    progress: called with (samples read, samples to read)

    Raises:
        ManifestError: the manifest itself is missing or damaged, or has no such root. UsageError: sample or fraction
            make no sense. RemoteError: a store does not answer; that says nothing about a sample.
    """
    info = manifest_info(manifest)
    look = _Look(manifest_roots(info, roots))
    drawn = _drawn(info["rows"], _count(info["rows"], sample, fraction), seed)
    rules = _Rules(info)
    found = {"ok": 0, "missing": 0, "changed": 0, "unreadable": 0}
    examples: dict[str, list[dict[str, str]]] = {}
    for results in look.all(_plans(manifest, drawn, rules)):
        for row, kind, problem in results:
            found[kind] += 1
            if kind != "ok" and len(examples.setdefault(kind, [])) < _EXAMPLES:
                examples[kind].append({**{name: row[name] for name in ("uid", "source", "path")}, "problem": problem})
        if progress is not None:
            progress(sum(found.values()), drawn.size)
    return Verified(str(manifest), info["rows"], drawn.size, **found, broken=rules.broken(), examples=examples)


def _count(rows: int, sample: int | None, fraction: float | None) -> int:
    """Return how many samples are to be read."""
    if sample is not None and fraction is not None:
        raise UsageError("give a number of samples or a fraction of them, not both")
    if sample is not None and sample < 1:
        raise UsageError(f"{sample} samples were asked for; it must be at least 1")
    if fraction is not None and not 0 < fraction <= 1:
        raise UsageError(f"the fraction is {fraction}; it must lie in (0, 1]")
    if fraction is not None:
        return min(rows, max(1, round(rows * fraction)))
    return rows if sample is None else min(sample, rows)


def _drawn(rows: int, count: int, seed: int) -> I64:
    """Return the numbers of the rows to be read, ascending."""
    if count == rows:
        return np.arange(rows, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False)).astype(np.int64)


def _plans(manifest: str | Path, drawn: I64, rules: _Rules) -> Iterator[pl.DataFrame]:
    """Yield the drawn rows of each part in the order of their bytes; all rows of the part are shown to the rules."""
    start = 0
    for part in read_parts(manifest, _READ):
        rules.add(part)
        first, last = np.searchsorted(drawn, [start, start + part.height])
        here = part.select("uid", *_PLACE)[drawn[first:last] - start]
        start += part.height
        del part  # two parts need not be held at a time
        yield here.sort("source", "path", "offset", maintain_order=True)


class _Rules:
    """What every manifest keeps, counted part by part."""

    def __init__(self, info: dict[str, Any]) -> None:
        self._sources = pl.Series([source["id"] for source in info.get("sources", [])], dtype=pl.String)
        self._crops = "crops" in info["required_features"]
        self._rows = 0
        self._uids: list[pl.Series] = []
        self._broken: dict[str, int] = {}

    def add(self, part: pl.DataFrame) -> None:
        """Count the rows of a part that break a rule."""
        rank = np.arange(self._rows, self._rows + part.height, dtype=np.int64)
        self._rows += part.height
        weight, chance = pl.col("weight"), pl.col("inclusion_probability")
        rules = {
            "uid is no 32 hex digits": ~pl.col("uid").str.contains("^[0-9a-f]{32}$"),
            "rank is not the row's number": pl.col("rank") != pl.Series(rank),
            "weight is not finite, or below 0": ~(weight.is_finite() & (weight >= 0)),
            "probability is not in (0, 1]": ~(chance.is_null() | ((chance > 0) & (chance <= 1))),
            "source is not among the manifest's": ~pl.col("source").is_in(self._sources.implode()),
        }
        wrong = part.select(rule.fill_null(True).sum().alias(name) for name, rule in rules.items())
        for name, count in wrong.row(0, named=True).items():
            self._broken[name] = self._broken.get(name, 0) + count
        if not self._crops:
            self._uids.append(part["uid"].hash())

    def broken(self) -> dict[str, int]:
        """Return {rule: rows against it}, without the rules that all rows keep."""
        if self._uids:
            # By 64 bits of hash: two of a million distinct uids share one with a chance of 3e-8.
            uids = pl.concat(self._uids)
            self._broken["uid is another row's too"] = uids.len() - uids.n_unique()
        return {name: count for name, count in self._broken.items() if count}


class _Look:
    """Reads samples where they lie, in threads."""

    def __init__(self, roots: Mapping[str, str]) -> None:
        self._roots = roots
        self._far = any(is_url(root) for root in roots.values())

    def all(self, plans: Iterator[pl.DataFrame]) -> Iterator[list[tuple[dict[str, Any], str, str]]]:
        """Yield (row, kind, problem) of every row in order, some at a time."""
        rows = chain.from_iterable(plan.iter_rows(named=True) for plan in plans)
        size, threads = (1, _FAR) if self._far else (_BLOCK, os.cpu_count() or 1)
        # Not the threads of `curate.ranges`: a table in a store is itself read ahead by those.
        pool = ThreadPoolExecutor(threads, "curate-verify")
        try:
            blocks = iter(lambda: list(islice(rows, size)), [])
            yield from in_order(pool, lambda block: [(row, *self._one(row)) for row in block], blocks, threads)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _one(self, row: dict[str, Any]) -> tuple[str, str]:
        """Return what became of a sample, `ok`, `missing`, `changed` or `unreadable`, and in words what is wrong."""
        try:
            data = stored_bytes(row, self._roots)
        except RemoteDeniedError as error:
            return "unreadable", str(error)
        if isinstance(data, Unread):
            return data
        if hashlib.sha256(data).hexdigest() == row["sha256"]:
            return "ok", ""
        short = len(data) < (row["size"] or 0)
        return "changed", "the file ends before its last byte" if short else "its bytes have another SHA-256"
