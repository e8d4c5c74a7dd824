"""Values in Parquet files, by row number in the file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING

from curate.cells.values import as_bytes, binary, leaf
from curate.remote import Place, Remote

if TYPE_CHECKING:
    import pyarrow as pa

_WINDOW = 1 << 26  # bytes of values that are held around the last one read
_BATCH = 64  # rows yielded at once, at most


class ParquetCells:
    """A Parquet file. A value is read with its row group, or, of a large one, with the rows before it."""

    def __init__(self, path: Place) -> None:
        from pyarrow import parquet

        self._file = parquet.ParquetFile(path.open("rb") if isinstance(path, Remote) else str(path))
        self._meta = self._file.metadata
        self.schema: pa.Schema = self._file.schema_arrow
        self.count = int(self._meta.num_rows)
        sizes = (self._meta.row_group(i).num_rows for i in range(self._meta.num_row_groups))
        self._starts = list(accumulate(sizes, initial=0))
        self._lock = Lock()  # a file has one position
        self._held: tuple[str, int, pa.Array] | None = None  # column, first row, values
        self._coming: Iterator[tuple[int, pa.Array]] = iter(())

    def batches(self, columns: Sequence[str], start: int) -> Iterator[tuple[Sequence[int], pa.Table]]:
        """Yield row numbers and values; no more than one row group is decoded before the first row asked for."""
        import pyarrow as pa

        if start >= self.count:
            return
        group = bisect_right(self._starts, start) - 1
        at = self._starts[group]
        groups = range(group, len(self._starts) - 1)
        for batch in self._file.iter_batches(_BATCH, row_groups=list(groups), columns=list(columns)):
            stop = at + batch.num_rows
            if stop > start:
                first = max(at, start)
                part = pa.Table.from_batches([batch.slice(first - at)])
                part.validate(full=True)
                yield range(first, stop), part
            at = stop

    def paths(self, column: str) -> Iterator[object]:
        """Yield the field `path` of every row: what its bytes are is not read."""
        for batch in self._file.iter_batches(1 << 14, columns=[f"{column}.path"]):
            values = binary(batch.column(0), "path")
            values.validate(full=True)
            yield from values.to_pylist()

    def read(self, column: str, row: int) -> bytes | None:
        """Return the bytes of a row."""
        if not 0 <= row < self.count:
            raise IndexError(row)
        name = leaf(self.schema.field(column))
        with self._lock:
            held = self._held
            if held is None or held[0] != column or not held[1] <= row < held[1] + len(held[2]):
                held = self._move(column, name, row, held)
            value = held[2][row - held[1]].as_py()
        return as_bytes(value)

    def _move(
        self, column: str, name: str, row: int, held: tuple[str, int, pa.Array] | None
    ) -> tuple[str, int, pa.Array]:
        """Hold the window with a row: forward in the group that is being read, else from its group's beginning."""
        group = bisect_right(self._starts, row) - 1
        first = self._starts[group]
        if held is None or held[0] != column or not first <= held[1] <= row:
            self._coming = self._windows(name, group)
        self._held = None
        for start, values in self._coming:
            self._held = (column, start, values)
            if start <= row < start + len(values):
                return self._held
        raise IndexError(row)

    def _windows(self, name: str, group: int) -> Iterator[tuple[int, pa.Array]]:
        """Yield first row and values of the parts of a row group that are held one at a time."""
        at, count = self._starts[group], self._starts[group + 1] - self._starts[group]
        size = self._meta.row_group(group).total_byte_size  # of one column it cannot be asked: damage would abort
        rows = min(max(1, count * _WINDOW // max(size, 1)), count)
        for batch in self._file.iter_batches(rows, row_groups=[group], columns=[name]):
            values = binary(batch.column(0))
            values.validate(full=True)
            yield at, values
            at += len(values)
