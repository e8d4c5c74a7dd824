"""Tables on disk (Parquet, CSV, TSV, JSON lines) as rows of Python values; every failure is a SourceError."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from curate.errors import CurateError, SourceError
from curate.remote import Place
from curate.sources.columns import Row

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

TABLES = (".parquet", ".csv", ".tsv", ".jsonl")
_PORTION = 8192  # rows of a Parquet file that are held at once


@dataclass(frozen=True, slots=True)
class Table:
    """A table in memory: its columns, its number of rows, and `rows()`, which yields one mapping per row.

    Binary columns are left out. A row of JSON lines holds only the columns that its line has.
    """

    columns: tuple[str, ...]
    height: int
    rows: Callable[[], Iterator[Row]]


def read_table(path: Place) -> Table:
    """Return a whole table. CSV and TSV are read as text, so that a column of mixed types parses."""
    import polars as pl

    suffix = path.suffix.lower()
    with named_errors(path), path.open("rb") as file:
        if suffix == ".jsonl":
            return _read_json_lines(file)
        if suffix == ".parquet":
            frame = _read_parquet(file)
        else:
            frame = pl.read_csv(file, separator="\t" if suffix == ".tsv" else ",", infer_schema=False)
    return Table(tuple(frame.columns), frame.height, lambda: _rows(path, frame))


def _rows(path: Place, frame: pl.DataFrame) -> Iterator[Row]:
    with named_errors(path):
        yield from frame.iter_rows(named=True)


def read_outline(path: Place) -> tuple[tuple[str, ...], int]:
    """Return a table's columns without the binary ones, and its number of rows.

    Of a Parquet file only the footer is read; the other formats tell by being read to their end.
    """
    from pyarrow import parquet

    if path.suffix.lower() != ".parquet":
        table = read_table(path)
        return table.columns, table.height
    with named_errors(path), path.open("rb") as source, parquet.ParquetFile(source) as file:
        return tuple(_columns_but_binary(file.schema_arrow)), int(file.metadata.num_rows)


def stream_rows(path: Place, start: int = 0, only: Collection[str] | None = None) -> Iterator[Row]:
    """Yield the rows of a table from `start` on, of some columns only; a Parquet file is held a portion at a time."""
    if path.suffix.lower() != ".parquet":
        yield from islice(read_table(path).rows(), start, None)
        return
    import pyarrow as pa
    from pyarrow import parquet

    with named_errors(path), path.open("rb") as source, parquet.ParquetFile(source) as file:
        names = [name for name in _columns_but_binary(file.schema_arrow) if only is None or name in only]
        first = 0
        while first < file.num_row_groups and start >= (size := file.metadata.row_group(first).num_rows):
            first, start = first + 1, start - size
        groups = list(range(first, file.num_row_groups))
        for batch in file.iter_batches(_PORTION, row_groups=groups, columns=names) if groups else ():
            yield from islice(as_frame(pa.Table.from_batches([batch])).iter_rows(named=True), start, None)
            start = max(0, start - batch.num_rows)


def _read_parquet(source: BinaryIO) -> pl.DataFrame:
    """Read by pyarrow, not polars: over a damaged file polars may ask for exabytes, which aborts the process."""
    from pyarrow import parquet

    with parquet.ParquetFile(source) as file:
        table = file.read(columns=_columns_but_binary(file.schema_arrow))
    return as_frame(table)


def as_frame(table: pa.Table) -> pl.DataFrame:
    """Return an Arrow table whose values Python can hold: columns of times that it cannot hold become text."""
    import polars as pl
    from polars import selectors

    table.validate(full=True)  # polars trusts that text is UTF-8
    frame = pl.DataFrame(table)
    foreign = []
    for series in frame.select(selectors.temporal()).iter_columns():
        try:
            series.min(), series.max()
        except (ValueError, OverflowError, LookupError):  # a year, a number of days, a time zone
            foreign.append(pl.col(series.name).cast(pl.String, strict=False))
    return frame.with_columns(foreign)


def _columns_but_binary(schema: pa.Schema) -> list[str]:
    from pyarrow import types

    binary = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return [field.name for field in schema if not any(is_kind(field.type) for is_kind in binary)]


def _read_json_lines(lines: Iterator[bytes]) -> Table:
    """Read one JSON object per line; blank lines are skipped. Columns come in the order in which they are first seen.

    Not by polars, which wants one type per column and refuses the NaN that Python writes.
    """
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object but {type(row).__name__}")  # noqa: TRY004
        rows.append(row)
    columns = dict.fromkeys(name for row in rows for name in row)
    return Table(tuple(columns), len(rows), lambda: iter(rows))


@contextmanager
def named_errors(path: Place) -> Iterator[None]:
    """Turn what the parsers and the system raise over a table into a SourceError that names the file."""
    from polars.exceptions import PolarsError
    from pyarrow.lib import ArrowException

    others = (OSError, ValueError, LookupError, TypeError, ArithmeticError)
    try:
        yield
    except CurateError:
        raise
    except RecursionError:
        raise SourceError(f"cannot read {path}: it is nested too deeply") from None
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"  # of Rust: each library has a class of its own
        if not is_panic and not isinstance(error, (*others, ArrowException, PolarsError)):
            raise
        message = str(error).split("\n\n", 1)[0]  # polars goes on with advice about arguments that are not ours
        raise SourceError(f"cannot read {path}: {message or type(error).__name__}") from error
