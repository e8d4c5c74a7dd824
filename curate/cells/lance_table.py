"""Values in Lance tables, by row id: for tables without stable ids the fragment's number and the row's place in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from curate.cells.values import as_bytes, binary
from curate.remote import Place, storage_options

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBERS, _BATCH = 8192, 64  # rows that are numbered, and read, at once


class LanceCells:
    """The newest version of a Lance table, as it is when it is opened."""

    def __init__(self, path: Place) -> None:
        import lance

        self._table = lance.dataset(str(path), storage_options=storage_options(path))
        self.schema: pa.Schema = self._table.schema
        self.count = int(self._table.count_rows())
        self.version = int(self._table.version)

    def batches(self, columns: Sequence[str], start: int) -> Iterator[tuple[Sequence[int], pa.Table]]:
        """Yield row ids and values, in the table's order."""
        if start >= self.count:
            return
        # Numbers first, values by number: over damaged values the stream of a scan aborts the process.
        scan = self._table.scanner(columns=[], offset=start, batch_size=_NUMBERS, with_row_id=True, scan_in_order=True)
        for batch in scan.to_batches():
            numbers = batch.column("_rowid").to_pylist()
            for first in range(0, len(numbers), _BATCH):
                some = numbers[first : first + _BATCH]
                part = self._table._take_rows(some, columns=list(columns))
                part.validate(full=True)
                yield some, part

    def paths(self, column: str) -> Iterator[object]:
        """Yield nothing: a change of the files that a Lance table names is not looked for."""
        return iter(())

    def read(self, column: str, row: int) -> bytes | None:
        """Return the bytes of a row."""
        self.schema.field(column)
        found = self._table._take_rows([row], columns=[column])
        if found.num_rows != 1:
            raise IndexError(row)
        value = binary(found.column(0))[0].as_py()
        return as_bytes(value)
