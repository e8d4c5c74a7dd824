"""Work on parts of the embeddings: here, one after the other, or where they lie, if they say that they can be asked.

What a method does through these functions is the same either way, so it gives the same picks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_selectors.errors import SelectorError
from curate_selectors.tiles import check_shape, gathered
from curate_selectors.types import Candidates

Values = Mapping[str, Any]
PartWork = Callable[[F32, dict[str, Any]], Values]


class Spread(Protocol):
    """Embeddings (n, d) that lie on several machines; workers: how many parts can be worked on at once."""

    shape: tuple[int, int]
    workers: int

    def over_parts(
        self, owner: I64, work: PartWork, told: Sequence[Values], columns: Mapping[str, Any]
    ) -> Iterator[Values]:
        """Yield what `over_parts` does."""
        ...

    def by_row(self, work: PartWork) -> dict[str, Any]:
        """Return what `by_row` does."""
        ...

    def __getitem__(self, rows: I64) -> Any:
        """Return rows as something that `numpy.asarray` reads."""
        ...


def over_parts(
    data: Candidates,
    method: str,
    owner: I64,
    work: PartWork,
    told: Sequence[Values],
    columns: Mapping[str, Any] | None = None,
) -> Iterator[Values]:
    """Yield, part by part, what `work` gives of its embeddings (m, d), ascending by row.

    owner: (n,) int64, each row's part, 0 … p-1; told: what `work` is told of each of the p parts, by name
    columns: (n,) arrays of which it is told the part's own rows

    Raises SelectorError where there are no embeddings, or they hold NaN or infinity.
    """
    check_shape(data, method)
    assert data.x is not None
    if hasattr(data.x, "over_parts"):
        yield from data.x.over_parts(owner, work, told, columns or {})
        return
    order = np.argsort(owner, kind="stable")
    stops = np.searchsorted(owner[order], np.arange(len(told) + 1))
    for part, own in enumerate(told):
        rows = order[stops[part] : stops[part + 1]]
        mine = {name: values[rows] for name, values in (columns or {}).items()}
        yield work(_read(data, method, rows), {**own, **mine})


def by_row(data: Candidates, method: str, work: PartWork, tile: int) -> dict[str, Any]:
    """Return what `work` gives row by row, (n, …) arrays by name, from as many rows at a time as is handy.

    Raises as `over_parts` does.
    """
    check_shape(data, method)
    assert data.x is not None
    if hasattr(data.x, "by_row"):
        found: dict[str, Any] = data.x.by_row(work)
        return found
    every = np.arange(data.n)
    parts = [work(_read(data, method, every[low : low + tile]), {}) for low in range(0, max(data.n, 1), tile)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def some_rows(data: Candidates, method: str, rows: I64) -> F32:
    """Return the embeddings of a few rows, ascending, (m, d). Raises as `over_parts` does."""
    check_shape(data, method)
    return _read(data, method, rows)


def random_parts(n: int, parts: int, rng: np.random.Generator) -> I64:
    """Return each row's part, (n,) int64: parts of nearly equal size, drawn, as GreeDi asks for."""
    owner = np.empty(n, dtype=np.int64)
    for part, rows in enumerate(np.array_split(rng.permutation(n), parts)):
        owner[rows] = part
    return owner


def ascending(rows: Sequence[I64], x: Sequence[F32]) -> tuple[I64, F32]:
    """Return the rows (m,) of all parts, ascending, and their embeddings (m, d)."""
    every = np.concatenate(rows)
    order = np.argsort(every, kind="stable")
    return every[order], np.concatenate(x)[order]


def _read(data: Candidates, method: str, rows: I64) -> F32:
    """Return the embeddings of these rows, ascending."""
    assert data.x is not None
    if rows.size and rows[-1] - rows[0] == rows.size - 1:
        part = np.ascontiguousarray(data.x[int(rows[0]) : int(rows[-1]) + 1], dtype=np.float32)  # no copy
    elif isinstance(data.x, np.ndarray):
        part = np.ascontiguousarray(data.x[rows], dtype=np.float32)
    else:
        return gathered(data, method, rows)
    if not np.isfinite(part).all():
        raise SelectorError("embeddings hold NaN or infinity; drop or mend those rows")
    return part
