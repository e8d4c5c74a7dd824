"""A manifest opened for reading: places of all rows as arrays of numbers, other columns only when asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.budgets import Budget, parse_budget
from curate.errors import ManifestError, UsageError
from curate.loaders.buffers import joined, numbers_array, view
from curate.loaders.parts import Part
from curate.loaders.places import Files, integers
from curate.loaders.shelf import Shelf
from curate.manifest import manifest_info, manifest_roots
from curate.remote import place
from curate_kernels.arrays import I64

if TYPE_CHECKING:
    import pyarrow as pa

_IN_MEMORY = 200_000  # rows whose columns are not worth a file: 3 MB of places


class Subset:
    """The first rows of a manifest, in rank order.

    `n` rows; `info` is manifest.json; `digest` of it (64 hex digits) names the rows; `roots` maps source ids to folders
    or URLs. Opening reads where the rows lie, nothing else; up to 200,000 rows are held in memory (20 bytes a
    row), more in a file of the cache folder that all processes map. Pickled, it is its arguments.

    manifest: its folder or file; may be a URL
    roots: {old: new}, where a source's root, or a folder above it, lies now
    budget: how many rows: a count, a share in (0, 1], or "5%"; the best are taken, so the manifest must be nested

    Raises ManifestError when the manifest is missing, damaged or hostile, UsageError for a budget that it cannot give.
    """

    def __init__(
        self, manifest: str | Path, *, roots: Mapping[str, str] | None = None, budget: Budget | None = None
    ) -> None:
        self._arguments = (str(manifest), dict(roots or {}), budget)
        self.info = manifest_info(manifest)
        self.roots = manifest_roots(self.info, roots)
        self.digest = hashlib.sha256(json.dumps(self.info, sort_keys=True).encode()).hexdigest()
        at = place(manifest)
        self._folder = at if at.is_dir() else at.parent
        self._parts = [Part(self._folder / Path(part["path"]).name) for part in self.info["parts"]]
        self.n = self._budgeted(sum(part.rows for part in self._parts), budget)
        name = f"{self.digest[:32]}-{self.n}" if self.n > _IN_MEMORY else None
        self._shelf = Shelf(name)
        self._sources = list(self.roots)

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": self._arguments, "digest": self.digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        manifest, roots, budget = state["arguments"]
        self.__init__(manifest, roots=roots, budget=budget)  # type: ignore[misc]
        if self.digest != state["digest"]:
            raise ManifestError(f"the manifest at {manifest} is another one than when it was opened; open it anew")

    def __len__(self) -> int:
        return self.n

    @property
    def has_crops(self) -> bool:
        """Tell whether rows are parts of images."""
        return "crops" in self.info["required_features"]

    @property
    def tile(self) -> int:
        """Return the rows that make one training image: 1, or that of crops."""
        tile = self.info.get("crops", {}).get("tile") if self.has_crops else 1
        if not isinstance(tile, int) or tile < 1:
            raise ManifestError(f"manifest.json says that {tile} crops make a training image; it is damaged")
        return tile

    @property
    def columns(self) -> list[str]:
        """Return the names of the manifest's columns."""
        return list(self._parts[0].names)

    @cached_property
    def file(self) -> I64:
        """Return (n,) int32: number of each row's file, -1 where no image is stored."""
        return self._places("file")

    @cached_property
    def offset(self) -> I64:
        """Return (n,) int64: first byte."""
        return self._places("offset")

    @cached_property
    def size(self) -> I64:
        """Return (n,) int64: bytes."""
        return self._places("size")

    @cached_property
    def by_place(self) -> I64:
        """Return (n,) int64: the rows in the order in which their bytes lie; equal places by rank."""
        order: I64 = _array(self._shelf.table("by_place", self._sorted)["row"])
        return order

    def location(self, file: int) -> tuple[str, str]:
        """Return source id and path of a file."""
        files = self._files
        return self._sources[files["source"][file].as_py()], files["path"][file].as_py()

    def values(self, name: str, rows: Sequence[int]) -> list[Any]:
        """Return some rows' values of a column, as Python's own types."""
        column = self.column(name)
        return [column[row].as_py() for row in rows]

    def numbers(self, name: str) -> np.ndarray[Any, Any]:
        """Return (n,) float64 or int64: a column of numbers without nulls. Raises ManifestError if it is none."""
        import pyarrow as pa

        column = self.column(name)
        whole = pa.types.is_integer(column.type)
        if column.null_count or not (whole or pa.types.is_floating(column.type)):
            raise ManifestError(f"column {name!r} of the manifest must hold numbers, and holds {column.type} or nulls")
        values: np.ndarray[Any, Any] = column.to_numpy().astype(np.int64 if whole else np.float64)
        return values

    def column(self, name: str) -> Any:
        """Return (n,) a pyarrow.ChunkedArray. Raises ManifestError when the manifest has no such column."""
        if name not in self.columns:
            raise ManifestError(f"the manifest has no column {name!r}; it has {', '.join(self.columns)}")
        return self._shelf.table(f"column-{name}", lambda: self._tables([name]))[name]

    @cached_property
    def _files(self) -> Any:
        self._places("file")  # finds them
        return self._shelf.table("files", self._missing_files)

    def _places(self, name: str) -> I64:
        places: I64 = _array(self._shelf.table("places", self._read_places)[name])
        return places

    def _read_places(self) -> Iterator[pa.Table]:
        """Yield the one table of places, and shelve the table of files that it refers to."""
        import pyarrow as pa

        known = Files(self._sources)
        file, offset, size = np.empty(self.n, np.int32), np.empty(self.n, np.int64), np.empty(self.n, np.int64)
        end = 0
        for table in self._tables(["source", "path", "offset", "size"], True):
            start, end = end, end + len(table)
            file[start:end] = known.numbers(table["source"], table["path"])
            for name, out in (("offset", offset), ("size", size)):
                out[start:end] = integers(table[name], name)
        if self.n and min(int(offset.min()), int(size.min())) < 0:
            raise ManifestError("the manifest holds negative offsets or sizes; it is damaged, select it again")
        self._shelf.table("files", lambda: iter([known.table()]))
        arrays = [numbers_array(file), numbers_array(offset), numbers_array(size)]
        yield pa.Table.from_arrays(arrays, ["file", "offset", "size"])

    def _missing_files(self) -> Iterator[pa.Table]:
        """Yield the table of files where only that of places was found."""
        known = Files(self._sources)
        for table in self._tables(["source", "path"], True):
            known.numbers(table["source"], table["path"])
        yield known.table()

    def _sorted(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        bits = int(self.offset.max()).bit_length() if self.n else 0
        if bits + int(self.file.max() if self.n else 0).bit_length() < 63:
            order = np.argsort((self.file.astype(np.int64) << bits) | self.offset, kind="stable")
        else:
            order = np.lexsort((self.offset, self.file))
        yield pa.Table.from_arrays([numbers_array(order)], ["row"])

    def _tables(self, names: list[str], coded: bool = False) -> Iterator[pa.Table]:
        """Yield columns of the first n rows, a row group at a time; at least one table, which may be empty."""
        left = self.n
        for part in self._parts:
            for table in part.tables(names, left, coded):
                left -= len(table)
                yield table
        if left:
            raise ManifestError(f"a part of the manifest is damaged: {left} rows of {', '.join(names)} are missing")
        if self.n == 0:
            yield self._parts[0].empty(names)

    def _budgeted(self, rows: int, budget: Budget | None) -> int:
        if rows != self.info.get("rows"):
            raise ManifestError(f"the parts hold {rows} rows, and manifest.json says {self.info.get('rows')}")
        if budget is None:
            return rows
        if not self.info.get("nested", True):
            raise UsageError(
                f"a budget of {budget} cannot be taken from this manifest: it is not nested, so its first rows are not "
                "the selection of a smaller budget; run `curate select` with that budget"
            )
        amount = parse_budget(budget, rows // self.tile).rows
        if amount is None:
            raise UsageError(f"budget {budget!r} is in bytes; write a share (5%) or a count (500)")
        return amount * self.tile


def _array(column: Any) -> Any:
    """Return a column of one chunk as an array in the same memory."""
    return view(joined(column))
