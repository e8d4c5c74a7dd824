"""The rows of a manifest, read in pieces: what an export needs of them at a time, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from curate.errors import ManifestError
from curate.files import digest
from curate.manifest import COLUMNS, CROPS, manifest_info, manifest_roots
from curate.parts import check_columns, named, part_bytes
from curate.remote import place


class Subset:
    """A manifest opened for export. Holds one part as it is stored, checked, and one of its row groups.

    `digest` changes with the rows and with what they require of a reader; where the sources lie is not in it.
    """

    def __init__(self, path: str | Path, moved: Mapping[str, str] | None = None) -> None:
        self.info = manifest_info(path)
        self.roots = manifest_roots(self.info, moved)
        at = place(path)
        self._folder = at if at.is_dir() else at.parent
        self._parts = self.info["parts"]
        self._open: tuple[int, Any] = (-1, None)
        self._group: tuple[tuple[int, int, tuple[str, ...]], pl.DataFrame] | None = None
        self.rows = sum(part["rows"] for part in self._parts)
        self.is_cropped = "crops" in self.info["required_features"]
        self.digest = digest([[part["sha256"] for part in self._parts], self.info["required_features"]])
        self.schema = _schema(self._file(0))

    @cached_property
    def labels(self) -> list[str]:
        """Return the labels that there are, each once, in order of the alphabet."""
        found: set[str] = set()
        for frame in self.frames(["label"]):
            found.update(frame["label"].drop_nulls().unique())
        return sorted(found)

    def frames(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows from ordinal `start` to before `stop`, in order, in frames of at most a row group."""
        stop = self.rows if stop is None else stop
        first = 0
        for number, part in enumerate(self._parts):
            if first < stop and start < first + part["rows"]:
                yield from self._frames(number, tuple(columns), start - first, stop - first)
            first += part["rows"]

    def _frames(self, number: int, columns: tuple[str, ...], start: int, stop: int) -> Iterator[pl.DataFrame]:
        """Yield rows of one part; `start` and `stop` count from its first."""
        groups = self._file(number).metadata
        first = 0
        for group in range(groups.num_row_groups):
            count = groups.row_group(group).num_rows
            low, high = max(start, first), min(stop, first + count)
            if low < high:
                yield self._read(number, group, columns).slice(low - first, high - low)
            first += count

    def records(self, columns: Sequence[str], start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield ordinal and values by name of each row from `start` to before `stop`."""
        for frame in self.frames(columns, start, stop):
            yield from enumerate(frame.iter_rows(named=True), start)
            start += frame.height

    def _file(self, number: int) -> Any:
        """Return a part, opened; by Arrow, since polars may take the process down over a damaged one."""
        import pyarrow as pa
        from pyarrow import parquet

        if self._open[0] != number:
            part = self._parts[number]
            name = self._folder / Path(part["path"]).name
            data = part_bytes(self._folder, part)
            with named(name):
                file = parquet.ParquetFile(pa.BufferReader(data))
                check_columns(name, {**COLUMNS, **(CROPS if self.is_cropped else {})}, _schema(file))
            if file.metadata.num_rows != part["rows"]:
                raise ManifestError(f"{name} is damaged: it has {file.metadata.num_rows} rows, not {part['rows']}")
            self._open = (number, file)
        return self._open[1]

    def _read(self, number: int, group: int, columns: tuple[str, ...]) -> pl.DataFrame:
        import pyarrow as pa

        wanted = (number, group, columns)
        if self._group is None or self._group[0] != wanted:
            self._group = None
            with named(self._folder / Path(self._parts[number]["path"]).name):
                try:
                    table = self._file(number).read_row_group(group, columns=list(columns), use_threads=False)
                    table.validate(full=True)
                except pa.ArrowException as error:
                    raise ValueError(str(error)) from error
                self._group = (wanted, pl.DataFrame(table).select(columns))
        return self._group[1]


def _schema(file: Any) -> dict[str, Any]:
    return dict(pl.DataFrame(file.schema_arrow.empty_table()).schema)
