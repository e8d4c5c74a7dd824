"""Values in Arrow IPC files, stream or file format, by row number in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from curate.cells.values import as_bytes, binary
from curate.remote import Place, Remote

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 64


class ArrowCells:
    """An Arrow file on disk, mapped into memory."""

    def __init__(self, path: Place) -> None:
        import pyarrow as pa

        if isinstance(path, Remote):
            raise OSError("Arrow files are read from disk only; copy it, or save the data set as Parquet")
        source = pa.memory_map(str(path))
        try:
            table = pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            table = pa.ipc.open_file(source).read_all()
        table.validate()
        self._table: pa.Table = table
        self.schema: pa.Schema = table.schema
        self.count = int(table.num_rows)

    def batches(self, columns: Sequence[str], start: int) -> Iterator[tuple[Sequence[int], pa.Table]]:
        """Yield row numbers and values."""
        wanted = self._table.select(list(columns))
        for first in range(start, self.count, _BATCH):
            part = wanted.slice(first, _BATCH)
            part.validate(full=True)
            yield range(first, first + part.num_rows), part

    def paths(self, column: str) -> Iterator[object]:
        """Yield the field `path` of every row without bytes."""
        values = self._table.column(column)
        if binary(values).null_count:
            missing = values.filter(binary(values).is_null())
            missing.validate(full=True)
            yield from binary(missing, "path").to_pylist()

    def read(self, column: str, row: int) -> bytes | None:
        """Return the bytes of a row."""
        if not 0 <= row < self.count:
            raise IndexError(row)
        values = self._table.column(column).slice(row, 1)
        values.validate(full=True)
        value = binary(values)[0].as_py()
        return as_bytes(value)
