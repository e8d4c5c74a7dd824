"""Scores of a pool by the workers of a cluster: passes over its fragments, then one commit of all columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from curate.distributed.bulk import each
from curate.distributed.cluster import connected
from curate.errors import UsageError
from curate.pool import Pool, Writer, vectors
from curate.pool.fill import fragments
from curate.pool.operations import of_parts, written
from curate.pool.part import part_of
from curate.remote import Place
from curate.scores.information import warn_if_collapsed
from curate.scores.pools import column_name, pool_rows, unit, with_stored
from curate.scores.registry import Score, in_parts
from curate.scores.rows import Rows
from curate.scores.summed import Extra, InParts, Over, PartFunction, joined
from curate.scores.table import SCORES
from curate_kernels.arrays import B1, F32, I64

_LOOK = 256  # rows that tell whether models may have to read square roots


def score_parts(
    path: Place, made: Mapping[str, Any], needs: set[str], target: str | Path | None, view: str, on: str
) -> tuple[int, int, dict[str, dict[str, float | None]]]:
    """Score a pool's fragments in workers; return its version and rows, and {column: {"rows", "mean"}}.

    Raises UsageError for a score that is not made of sums, and as `score_pool` does.
    """
    for name in made:
        _can(name)
    with connected(on) as ray, Writer(path) as writer:
        over = Fragments(ray, Reading(str(path), Pool.open(path).version, frozenset(needs), target, view))
        fitted = {name: _fitted(name, score, over) for name, score in made.items()}
        names = {c: column_name(c, name, view, over.pool) for name, one in fitted.items() for c in one.columns}
        over.read(writer.add_columns(over.pool, list(names.values())).version)
        whole = joined(list(fitted.values()))
        counts, totals, parts = Counter[str](), Counter[str](), []
        for found in over.visit(partial(_write, whole.score, names), whole.extra):
            parts.append(found["part"])
            counts.update(found["rows"])
            totals.update(found["sums"])
        pool = writer.commit_scores(over.pool, of_parts(parts), list(names.values())) if parts else over.pool
    if "pvi" in names and counts[names["pvi"]]:
        warn_if_collapsed("vinfo, captions", np.array([totals[names["pvi"]] / counts[names["pvi"]]], dtype=np.float32))
    told = {c: {"rows": n, "mean": round(totals[c] / n, 5) if n else None} for c, n in counts.items()}
    return pool.version, pool.rows, told


def _can(name: str) -> None:
    """Raise UsageError where a score cannot be had in parts."""
    if not in_parts(name):
        able = [other for other in SCORES if in_parts(other)]
        raise UsageError(f"{name!r} is not computed on a cluster, as its model is no sum; these are: {', '.join(able)}")


def _fitted(name: str, score: Any, over: Over) -> InParts:
    if hasattr(score, "in_parts"):
        fitted: InParts = score.in_parts(over)
        return fitted
    columns = [column.replace("<title>", getattr(score, "title", "")) for column, _, _ in SCORES[name].columns]
    return InParts(partial(_each_alone, score), None, columns)


def _each_alone(score: Score, rows: Rows, _: Extra) -> dict[str, F32]:
    """Return what a score that looks at one sample at a time gives of a part."""
    return score.compute(rows)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a worker reads: of which pool, for which scores; rooted: of `Rows`."""

    pool: str
    version: int
    needs: frozenset[str]
    target: str | Path | None = None
    view: str = "image"
    rooted: bool | None = None

    def part(self, fragment: int) -> tuple[Pool, Rows]:
        """Return a fragment as a pool, and its rows."""
        pool = part_of(Pool.open(self.pool, self.version), fragment)
        return pool, replace(pool_rows(pool, set(self.needs), self.target, self.view), rooted=self.rooted)


class Fragments:
    """A pool's fragments, as `Over` has it."""

    def __init__(self, ray: Any, reading: Reading) -> None:
        self._ray, self._reading = ray, reading
        self.read(reading.version)
        self._starts = np.cumsum([0, *(f.count_rows() for f in self.pool.dataset.get_fragments())])
        bare = replace(self._reading, needs=frozenset())  # no embeddings
        self.whole = replace(bare.part(fragments(self.pool)[0])[1], n=0) if self._starts[-1] else Rows(0)
        self._reading = replace(self._reading, rooted=self._rooted())

    def read(self, version: int) -> None:
        """Read this version from here on."""
        self._reading = replace(self._reading, version=version)
        self.pool = Pool.open(self._reading.pool, version)

    def each(self, function: PartFunction, extra: Sequence[Extra] | None = None) -> Iterator[dict[str, Any]]:
        """Yield what a function gives of each fragment's rows."""
        return self.visit(partial(_apart, function), extra)

    def visit(self, function: Any, extra: Sequence[Extra] | None = None) -> Iterator[dict[str, Any]]:
        """Yield what a function of a fragment as a pool, its rows and what it is told gives."""
        numbers = fragments(self.pool)
        told = extra if extra is not None else [{}] * len(numbers)
        parts = [{**own, "fragment": number} for number, own in zip(numbers, told, strict=True)]
        return each(self._ray, partial(_Work, self._reading, function), parts)

    def take(self, masks: Sequence[B1], chosen: I64) -> Rows:
        """Return rows by their numbers among the marked ones."""
        before = np.cumsum([0, *(int(mask.sum()) for mask in masks)])
        places = [
            start + np.flatnonzero(mask)[chosen[np.searchsorted(chosen, low) : np.searchsorted(chosen, high)] - low]
            for start, mask, low, high in zip(self._starts[:-1], masks, before[:-1], before[1:], strict=True)
        ]
        return self._rows(np.concatenate([np.zeros(0, dtype=np.int64), *places]))

    def _rows(self, places: I64) -> Rows:
        views = [self._reading.view, *(["text"] if "text" in self.pool.columns else [])]
        table = self.pool.take(places.tolist(), ["label", *views])
        read = {v: unit(vectors(table.column(v), self.pool.dataset.schema.field(v).type.list_size)) for v in views}
        number = {name: i for i, name in enumerate(self.whole.classes)}
        label = np.array([number.get(name, -1) for name in table.column("label").to_pylist()], dtype=np.int64)
        rooted = self._reading.rooted
        return Rows(places.size, read[self._reading.view], read.get("text"), label=label, rooted=rooted)

    def _rooted(self) -> bool:
        """Tell whether no embedding has a negative number; the first rows tell it of most pools."""
        if "image" not in self._reading.needs or not self._starts[-1]:
            return False
        first = self._rows(np.arange(min(_LOOK, int(self._starts[-1])))).images()
        return bool(first.min() >= 0) and all(part["rooted"] for part in self.each(_not_negative))


class _Work:
    """A worker's function: a plain one, on the rows of a fragment."""

    def __init__(self, reading: Reading, function: Any) -> None:
        self._reading, self._function = reading, function

    def __call__(self, part: dict[str, Any]) -> Mapping[str, Any]:
        pool, rows = self._reading.part(part.pop("fragment"))
        found: Mapping[str, Any] = self._function(pool, rows, part)
        return found


def _apart(function: PartFunction, _: Pool, rows: Rows, extra: Extra) -> Mapping[str, Any]:
    return function(rows, extra)


def _not_negative(rows: Rows, _: Extra) -> dict[str, bool]:
    return {"rooted": bool(rows.images().min(initial=0.0) >= 0)}


def _write(score: Any, names: Mapping[str, str], pool: Pool, rows: Rows, extra: Extra) -> dict[str, Any]:
    """Write a fragment's columns, uncommitted; return it, and how many values there are with their sum."""
    import pyarrow as pa

    found = with_stored({names[column]: values for column, values in score(rows, extra).items()}, pool)
    columns = {name: pa.array(values, mask=np.isnan(values)) for name, values in found.items()}
    uid = pa.array(pool.frame(["uid"])["uid"].to_list(), pa.string())
    known = {name: values[np.isfinite(values)].astype(np.float64) for name, values in found.items()}
    (fragment,) = pool.dataset.get_fragments()
    return {
        "part": written(fragment, pa.table({"uid": uid, **columns})),
        "rows": {name: int(values.size) for name, values in known.items()},
        "sums": {name: float(values.sum()) for name, values in known.items()},
    }
