"""Images that are values of a table: found again by file, column and row instead of by byte offset.

A place is written as path `FILE#COLUMN` (the column percent-encoded where it must be), offset = row number from 0, and
size = length of the value in bytes. What a row number is, each format's class says.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, unquote

from curate.cells.errors import table_errors
from curate.remote import Place, Remote, place

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".parquet", ".arrow", ".lance")
PATTERN = r"(?is)^.+\.(parquet|arrow|lance|mds\.(zstd|gz|br|bz2))#[^/#]+$"
"""What the path of such a place matches, in the syntax of Python and of polars."""

_CELL = re.compile(PATTERN)
_MOST_OPEN = 4  # each holds up to 64 MB of the values around the last one read


class Values(Protocol):
    """A file with values that are found by column and row."""

    def read(self, column: str, row: int) -> bytes | None:
        """Return the binary value of a row, of a struct its field `bytes`; IndexError or KeyError if there is none."""
        ...


class Cells(Values, Protocol):
    """A table file: its Arrow schema, its number of rows, rows from any on, and single values."""

    schema: pa.Schema
    count: int

    def batches(self, columns: Sequence[str], start: int) -> Iterator[tuple[Sequence[int], pa.Table]]:
        """Yield row numbers and values of some columns, in order, without the first `start` rows."""
        ...

    def paths(self, column: str) -> Iterator[object]:
        """Yield the field `path` of a column of structs, of all rows that have no bytes and perhaps of more."""
        ...


def cell_path(file: str, column: str) -> str:
    """Return the path of a place in a column of a file."""
    return f"{file}#{quote(column, safe=' ')}"


def split_cell(path: str) -> tuple[str, str] | None:
    """Return file and column of a path that `cell_path` made, None for the path of a whole file."""
    if _CELL.match(path) is None:
        return None
    file, _, column = path.rpartition("#")
    return file, unquote(column)


def open_cells(path: Place) -> Cells:
    """Return a table file, opened. Raises what `table_errors` names."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from curate.cells.parquet import ParquetCells

        return ParquetCells(path)
    if suffix == ".arrow":
        from curate.cells.arrow import ArrowCells

        return ArrowCells(path)
    if suffix == ".lance":
        from curate.cells.lance_table import LanceCells

        return LanceCells(path)
    raise ValueError(f"{path} is no table of the formats {', '.join(FORMATS)}")


def read_cell(root: str, file: str, column: str, row: int) -> bytes:
    """Return the value that a place names. The last few tables stay open.

    Raises OSError with the words for a user in `strerror`.
    """
    path = place(root, file)
    where = f"row {row} of {path}"
    try:
        with table_errors(path):
            found = _opened(path).read(column, row)
    except (IndexError, KeyError):
        raise OSError(None, f"there is no {where} with a column {column!r}") from None
    except ValueError as error:
        raise OSError(None, str(error)) from None
    if found is None:
        raise OSError(None, f"{where} has no value in {column!r}")
    return found


_opened_tables: OrderedDict[tuple[object, ...], Values] = OrderedDict()
_lock = Lock()


def _opened(path: Place) -> Values:
    """Return a table, opened once for each process and content."""
    key = (os.getpid(), str(path), *_stamp(path))
    with _lock:
        cells = _opened_tables.pop(key, None) or _open(path)
        _opened_tables[key] = cells
        while len(_opened_tables) > _MOST_OPEN:
            _opened_tables.popitem(last=False)
    return cells


def _open(path: Place) -> Values:
    if path.suffix.lower() in FORMATS:
        return open_cells(path)
    from curate.cells.mds import MdsCells

    return MdsCells(path)


def _stamp(path: Place) -> tuple[int | str, ...]:
    """Return what changes with a table's content, as far as it is cheaply known."""
    if isinstance(path, Remote):
        return () if path.suffix.lower() == ".lance" else path.status()
    versions = path / "_versions"  # of a Lance table
    status = (versions if versions.is_dir() else path).stat()
    return status.st_size, status.st_mtime_ns
