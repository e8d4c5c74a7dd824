"""A table of paths: each row of a Parquet, CSV, TSV or JSON lines file is one sample."""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from curate.errors import SourceError
from curate.patience import without_secrets
from curate.remote import Place, Remote, is_url, place
from curate.samples import Sample
from curate.sources.columns import PATHS, URLS, Columns, Row, as_name, as_text, make_sample, read_fields
from curate.sources.downloads import Downloads
from curate.sources.listing import Entry, each, fingerprint, is_outside, locate, read_image, stat_entries
from curate.sources.look import Look
from curate.sources.records import TABLES, Table, read_table

_CAPTIONS = ("caption", "text", "title", "TEXT")


def find_tables(look: Look) -> list[Place] | str:
    """Return a table itself, or the tables of a folder."""
    if found := look.ending(*TABLES):
        return found
    return f"{'holds no table' if look.is_folder else 'is no table'} ({', '.join(TABLES)})"


class TableSource:
    """The rows of one table of paths or URLs, in its order.

    A sample's key is the `key` column where the table has one, else the path as it is written. Paths are relative to
    the table's folder; absolute ones, and those that lead out of it, are kept absolute: whoever wrote the table may
    name any file. Each pass reads the table again and holds it only while it lasts.
    """

    kind = "table"

    def __init__(self, path: Place, columns: Columns, name: str) -> None:
        table = read_table(path)
        self.id = name
        self.root = str(path.parent)
        self.count: int | None = table.height
        names = choose_columns(columns, table.columns, path, captions=_CAPTIONS, paths=(*PATHS, *URLS))
        self._reader = PathReader(path, self.id, self.root, names, key_column="key")
        self.fingerprint = fingerprint(columns, self._entries(table))

    def _entries(self, table: Table) -> Iterator[Entry]:
        """Yield the entries of the table and of every file that it lists, so that a mended file is seen."""
        listed = map(self._reader.path_of, table.rows())
        names = (locate(self.root, path) for path in listed if path is not None)
        at = self._reader.table
        if isinstance(at, Remote):
            yield Entry(at.name, *at.status())
            yield from stat_entries(self.root, names)
        else:
            yield from stat_entries(self.root, itertools.chain([at.name], names))

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; of the rows before it only the keys are looked at."""
        return self._reader.samples(read_table(self._reader.table), start)


@dataclass(frozen=True, slots=True)
class PathReader:
    """Turns the rows of a table of paths into samples.

    names: the columns to read; `path` is one of them
    key_column: holds the key, where there is one and it is not null; else the key is the path
    confined: refuse a path that leads out of the root (`outside_root`) without opening it
    base: the table's folder below the root, which paths are relative to
    split_of: tells the split of an image from where it lies; None where there are no splits
    """

    table: Place
    source: str
    root: str
    names: Columns
    key_column: str = ""
    confined: bool = False
    base: str = ""
    split_of: Callable[[str], str | None] | None = None

    def samples(self, table: Table, start: int, seen: set[str] | None = None) -> Iterator[Sample]:
        """Yield one sample per row, from ordinal `start` on. seen: the keys that came before; the table's are added."""
        first = next(map(self.path_of, table.rows()), None) or ""
        where = first if is_url(first) else self.root  # what lies far is read several at a time
        downloads = Downloads()
        items = self._items(table, start, set() if seen is None else seen)
        return each(lambda item: self._sample(*item, downloads), items, where)

    def _items(self, table: Table, start: int, seen: set[str]) -> Iterator[tuple[Row, str, str | None, bool]]:
        """Yield row, key, path and whether the key came before; the key of a signed URL is the URL without it."""
        for ordinal, row in enumerate(table.rows()):
            given = self.path_of(row)
            path = None if given is None else self.below(given)
            key = as_text(row.get(self.key_column)) or without_secrets(path or "") or self.below(f"#{ordinal}")
            key = as_name(key)
            repeated = key in seen
            seen.add(key)
            if ordinal >= start:
                yield row, key, path, repeated

    def below(self, path: str) -> str:
        """Return a path that the table writes as one from the root."""
        return posixpath.join(self.base, path) if self.base and not is_url(path) else path

    def path_of(self, row: Row) -> str | None:
        """Return the path that a row gives, None if it gives none; SourceError if the column holds something else."""
        value = row.get(self.names.path or "")
        if isinstance(value, dict | list):
            kind = type(value).__name__
            raise SourceError(f"the column {self.names.path!r} of {self.table} holds a {kind}, not a path: see --path")
        return as_text(value)

    def _sample(self, row: Row, key: str, path: str | None, repeated: bool, downloads: Downloads) -> Sample:
        location, data, problem, why = "", b"", "missing_file", ""
        if path is not None:
            location = locate(self.root, path)
            if self.confined and is_outside(location):
                problem = "outside_root"
            elif is_url(location) and not (at := Remote(location)).is_listable:
                data, why = downloads.read(at)
                problem = "download_failed" if why else ""
            else:
                data, problem = read_image(place(self.root, location))
            location = without_secrets(location)
        fields = read_fields(row, self.names, drop=(self.key_column,))
        if self.split_of is not None and "split" not in fields.meta:
            fields = replace(fields, meta={**fields.meta, "split": self.split_of(location)})
        if why:
            fields = replace(fields, meta={**fields.meta, "download_error": why})
        problem = "duplicate_key" if repeated else problem
        return make_sample(fields, source=self.source, key=key, path=location, data=data, problem=problem)


def choose_columns(
    columns: Columns, seen: Sequence[str], table: Place, *, captions: Sequence[str], paths: Sequence[str] = PATHS
) -> Columns:
    """Return the columns to read from a table that has those seen; SourceError if one is missing, or all paths are."""
    columns.require(seen, f"the table {table}")
    names = columns.with_defaults(seen, paths, captions)
    if names.path is None:
        raise SourceError(
            f"the table {table} has none of the path columns {', '.join(paths)}: "
            f"name the one that holds the image paths with --path; its columns are: {', '.join(seen) or 'none'}"
        )
    return names
