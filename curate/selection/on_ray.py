"""Embeddings of a pool that the workers of a cluster read, each fragment once, for methods that work on parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from curate.distributed.bulk import each, shuffled
from curate.errors import UsageError
from curate.pool import Pool, vectors
from curate.pool.fill import fragments
from curate.selection.lazy import of_pool
from curate_kernels.arrays import F32, I64, unit_rows
from curate_selectors.errors import SelectorError
from curate_selectors.parts import PartWork, Values
from curate_selectors.registry import METHODS, entry, kind_of, make


@dataclass(frozen=True)
class RayRows:
    """Unit rows (n, d) of a pool's view, as `curate_selectors.parts.Spread` has it.

    places: (n,) int64, which rows of the pool these are, counted over its fragments
    """

    ray: Any
    pool: Pool
    view: str
    places: I64
    ndim: int = field(default=2, init=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, d)."""
        return self.places.size, int(self.pool.dataset.schema.field(self.view).type.list_size)

    @property
    def workers(self) -> int:
        """Return how many parts can be worked on at once."""
        return int(self.ray.cluster_resources().get("CPU", 1))

    def __len__(self) -> int:
        return int(self.places.size)

    def __getitem__(self, at: Any) -> Any:
        """Return some of the rows, unread."""
        return RayRows(self.ray, self.pool, self.view, self.places[at])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return all rows: few, of many."""
        return np.asarray(of_pool(self.pool, self.view, self.places), dtype=dtype)

    def over_parts(
        self, owner: I64, work: PartWork, told: Sequence[Values], columns: Mapping[str, Any]
    ) -> Iterator[Values]:
        """Yield what `work` gives of each part: fragments are read in order, and rows go to the owner of their part."""
        parts = [{**part, "owner": owner[part["row"]], **_of(columns, part["row"])} for part in self._parts()]
        read = partial(_Reader, str(self.pool.path), self.pool.version, self.view)
        found = dict(shuffled(self.ray, read, parts, partial(_Owner, work, told)))
        nothing = np.zeros((0, self.shape[1]), dtype=np.float32)
        none = _of(columns, np.zeros(0, dtype=np.int64))
        for number, own in enumerate(told):
            yield found[number] if number in found else work(nothing, {**own, **none})

    def by_row(self, work: PartWork) -> dict[str, Any]:
        """Return what `work` gives row by row, each fragment's rows where there is room."""
        out: dict[str, Any] = {}
        parts = list(self._parts())
        make_work = partial(_RowWork, str(self.pool.path), self.pool.version, self.view, work)
        for part, found in zip(parts, each(self.ray, make_work, parts), strict=True):
            for name, values in found.items():
                if name not in out:
                    out[name] = np.empty((self.places.size, *values.shape[1:]), dtype=values.dtype)
                out[name][part["row"]] = values
        return out

    def _parts(self) -> Iterator[dict[str, Any]]:
        """Yield, of each fragment with such rows, its number, their places in it, and which of the n rows they are."""
        counts = [fragment.count_rows() for fragment in self.pool.dataset.get_fragments()]
        starts = np.cumsum([0, *counts])
        order = np.argsort(self.places, kind="stable")
        cut = np.searchsorted(self.places[order], starts)
        for i, number in enumerate(fragments(self.pool)):
            rows = order[cut[i] : cut[i + 1]]
            if rows.size:
                yield {"fragment": number, "at": self.places[rows] - starts[i], "row": rows.astype(np.int64)}


def _of(columns: Mapping[str, Any], rows: I64) -> dict[str, Any]:
    return {name: values[rows] for name, values in columns.items()}


class _Reader:
    """A worker's function: the rows of a fragment, as they are stored, with all that is told of each."""

    def __init__(self, pool: str, version: int, view: str) -> None:
        self._pool, self._view = Pool.open(pool, version), view

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        fragment = self._pool.dataset.get_fragment(part.pop("fragment"))
        column = fragment.to_table(columns=[self._view]).column(0)
        dim = self._pool.dataset.schema.field(self._view).type.list_size
        return {"x": vectors(column, dim)[part.pop("at")].astype(np.float16), **part}


class _RowWork:
    """A worker's function: what a method's work gives of a fragment's rows."""

    def __init__(self, pool: str, version: int, view: str, work: PartWork) -> None:
        self._read, self._work = _Reader(pool, version, view), work

    def __call__(self, part: dict[str, Any]) -> Values:
        return self._work(_unit(self._read(part)["x"]), {})


class _Owner:
    """A worker's function: what a method's work gives of the rows of one part."""

    def __init__(self, work: PartWork, told: Sequence[Values]) -> None:
        self._work, self._told = work, told

    def __call__(self, group: dict[str, Any]) -> Values:
        order = np.argsort(group.pop("row"), kind="stable")
        own = self._told[int(group.pop("owner")[0])]
        mine = {name: values[order] for name, values in group.items()}
        return self._work(_unit(mine.pop("x")), {**own, **mine})


def _unit(stored: Any) -> F32:
    rows = unit_rows(np.ascontiguousarray(stored, dtype=np.float32))
    if not np.isfinite(rows).all():
        raise SelectorError("embeddings hold NaN or infinity; drop or mend those rows")
    return rows


def check_spread(method: str, params: Mapping[str, Any]) -> None:
    """Raise UsageError unless a method with these parameters works on parts."""
    if entry(method).spread_as(make(method, **params)):
        return
    if hasattr(kind_of(entry(method)), "spread"):
        raise UsageError(f"{method!r} runs on a cluster in parts; set how many: --set parts=16")
    able = [name for name, row in METHODS.items() if row.spread or hasattr(kind_of(row), "spread")]
    raise UsageError(f"{method!r} does not run on a cluster; these do: {', '.join(sorted(able))}")
