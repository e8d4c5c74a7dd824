"""A table of paths: each row of a Parquet, CSV, TSV or JSON lines file is one sample."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.errors import SourceError
from curate.samples import Sample
from curate.sources.columns import PATHS, Columns, Row, as_name, as_text, make_sample, read_fields
from curate.sources.listing import Entry, fingerprint, locate, read_image, stat_entry
from curate.sources.records import Table, read_outline, read_table


class TableSource:
    """The rows of one table, in its order.

    A sample's key is the `key` column where the table has one, else the path as it is written. Paths are relative to
    the table's folder; absolute ones, and those that lead out of it, are kept absolute: whoever wrote the table may
    name any file. Each pass reads the table again and holds it only while it lasts.
    """

    kind = "table"

    def __init__(self, path: Path, columns: Columns, name: str) -> None:
        seen, count = read_outline(path)
        self.id = name
        self.root = str(path.parent)
        self.count: int | None = count
        names = choose_columns(columns, seen, path, captions=("caption", "text", "title"))
        self._reader = PathReader(path, self.id, self.root, names, key_column="key")
        self.fingerprint = fingerprint(columns, self._entries())

    def _entries(self) -> Iterator[Entry]:
        """Yield the entries of the table and of every file that it lists, so that a mended file is seen."""
        listed = (self._reader.path_of(row) for row in read_table(self._reader.table).rows())
        names = (locate(self.root, path) for path in listed if path is not None)
        for name in itertools.chain([self._reader.table.name], names):
            yield stat_entry(Path(self.root), name) or Entry(name, -1, -1)

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; of the rows before it only the keys are looked at."""
        return self._reader.samples(read_table(self._reader.table), start)


@dataclass(frozen=True, slots=True)
class PathReader:
    """Turns the rows of a table of paths into samples.

    names: the columns to read; `path` is one of them
    key_column: holds the key, where there is one and it is not null; else the key is the path
    confined: refuse a path that leads out of the root (`outside_root`) without opening it
    """

    table: Path
    source: str
    root: str
    names: Columns
    key_column: str = ""
    confined: bool = False

    def samples(self, table: Table, start: int) -> Iterator[Sample]:
        """Yield one sample per row, from ordinal `start` on."""
        seen: set[str] = set()
        for ordinal, row in enumerate(table.rows()):
            path = self.path_of(row)
            key = as_name(as_text(row.get(self.key_column)) or path or f"#{ordinal}")
            repeated = key in seen
            seen.add(key)
            if ordinal >= start:
                yield self._sample(row, key, path, repeated)

    def path_of(self, row: Row) -> str | None:
        """Return the path that a row gives, None if it gives none; SourceError if the column holds something else."""
        value = row.get(self.names.path or "")
        if isinstance(value, dict | list):
            kind = type(value).__name__
            raise SourceError(f"the column {self.names.path!r} of {self.table} holds a {kind}, not a path: see --path")
        return as_text(value)

    def _sample(self, row: Row, key: str, path: str | None, repeated: bool) -> Sample:
        location, data, problem = "", b"", "missing_file"
        if path is not None:
            location = locate(self.root, path)
            if self.confined and os.path.isabs(location):
                problem = "outside_root"
            else:
                data, problem = read_image(Path(self.root, location))
        fields = read_fields(row, self.names, drop=(self.key_column,))
        problem = "duplicate_key" if repeated else problem
        return make_sample(fields, source=self.source, key=key, path=location, data=data, problem=problem)


def choose_columns(columns: Columns, seen: Sequence[str], table: Path, *, captions: Sequence[str]) -> Columns:
    """Return the columns to read from a table that has those seen; SourceError if one is missing, or all paths are."""
    columns.require(seen, f"the table {table}")
    names = columns.with_defaults(seen, captions)
    if names.path is None:
        raise SourceError(
            f"the table {table} has none of the path columns {', '.join(PATHS)}: "
            f"name the one that holds the image paths with --path; its columns are: {', '.join(seen) or 'none'}"
        )
    return names
