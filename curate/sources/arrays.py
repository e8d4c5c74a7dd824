"""Embeddings in memory as a source."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from curate.errors import SourceError
from curate.files import canonical_json
from curate.samples import Features, Sample
from curate.sources.aligned import make_part, samples
from curate.sources.columns import Columns, Row, as_json
from curate_kernels.arrays import F32

_BLOCK = 1 << 20  # values that are converted at once


class Arrays:
    """Embeddings in memory, to be grown into a pool: `curate.grow(curate.Arrays(x, text=t), "pool")`.

    x: (n, d) floats, one row for each image; a memory map will do. Rows need no norm; those that are zero or not finite
        are refused as `bad_embedding`
    text: (n, t) floats of the captions, or None
    columns: {name: n values}; `uid` (32 hex digits), `key`, `caption`, `label`, `group`, `sha256`, `width` and `height`
        are read as in a table, all others are metadata
    name: what made the embeddings; a pool takes in only embeddings of one name and dimension
    source: the id of this source; with the key it names a row for ever, so two sources of a pool need two

    Everything is read once to tell it from another source of this id: about a second for a gigabyte.
    Raises SourceError where shapes or dtypes do not fit.
    """

    kind = "arrays"
    root = ""

    def __init__(
        self,
        x: Any,
        *,
        text: Any = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        name: str = "",
        source: str = "arrays",
    ) -> None:
        self.id = source
        image, captions = _Array(x, "x"), _Array(text, "text") if text is not None else None
        table = _Table(columns) if columns else None
        names = Columns(group="group" if columns and "group" in columns else None)
        self._part = make_part(image, captions, table, names, f"the source {source!r}")
        self.features = Features(name, image.dim, captions.dim if captions else 0)
        self.count: int | None = image.rows
        self._content = self._digest()

    @property
    def fingerprint(self) -> str:
        """Return 32 hex digits over everything: memory has no times of change."""
        return hashlib.blake2b(repr(self.features).encode() + self._content, digest_size=16).hexdigest()

    def _digest(self) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for vectors in filter(None, (self._part.image, self._part.text)):
            for block in vectors.blocks():
                digest.update(block.data)
        for row in self._part.table.rows() if self._part.table else ():
            digest.update(canonical_json({name: as_json(value) for name, value in row.items()}))
        return digest.digest()

    def named(self, name: str) -> Arrays:
        """Return the source under another name of its features; SourceError if it has one."""
        if self.features.name not in ("", name):
            raise SourceError(f"the source {self.id!r} has no features {name!r}; it has: {self.features.name}")
        other = copy(self)
        other.features = replace(self.features, name=name)
        return other

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on."""
        return samples([self._part], self.id, start)


class _Array:
    def __init__(self, x: Any, what: str) -> None:
        self._x = np.asanyarray(x)
        if self._x.ndim != 2 or not self._x.shape[1] or self._x.dtype.kind != "f":
            raise SourceError(f"{what} is {self._x.dtype}{self._x.shape}; embeddings are (rows, dimensions) of floats")
        self.rows, self.dim = self._x.shape

    def blocks(self, start: int = 0) -> Iterator[F32]:
        size = max(1, _BLOCK // self.dim)
        for low in range(start, self.rows, size):
            with np.errstate(over="ignore", invalid="ignore"):
                yield np.ascontiguousarray(self._x[low : low + size], dtype=np.float32)


class _Table:
    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._values = {
            name: values.tolist() if isinstance(values, np.ndarray) else list(values)
            for name, values in columns.items()
        }
        heights = {len(values) for values in self._values.values()}
        if len(heights) > 1:
            told = ", ".join(f"{name} {len(values)}" for name, values in self._values.items())
            raise SourceError(f"the columns have different numbers of values: {told}")
        self.columns, self.height = list(self._values), heights.pop()

    def rows(self, start: int = 0, only: Collection[str] | None = None) -> Iterator[Row]:
        wanted = {name: values for name, values in self._values.items() if only is None or name in only}
        for values in islice(zip(*wanted.values(), strict=True), start, None):
            yield dict(zip(wanted, values, strict=True))

    def __str__(self) -> str:
        return "its columns"
