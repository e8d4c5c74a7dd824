"""The samples of one shard of MDS or LitData. Text, numbers and JSON are metadata; nothing is unpickled."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Collection, Sequence
from struct import unpack
from typing import TYPE_CHECKING, BinaryIO, Protocol

from curate.cells.mds import decompressed
from curate.cells.packed import Column, place_fields, read_mds_columns, read_offsets
from curate.remote import Place, Remote
from curate.sources.columns import Row

if TYPE_CHECKING:
    import pyarrow as pa

_ARROW = b"LDARW01\0"  # LitData ends a chunk so whose samples are one Arrow table


class ShardRows(Protocol):
    """The samples of a shard, by number."""

    count: int

    def place(self, row: int, column: str) -> tuple[int, int] | None:
        """Return offset and size of a field in the shard, None where the sample does not give it."""
        ...

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return bytes of the shard."""
        ...

    def values(self, row: int, columns: Collection[str]) -> Row:
        """Return what the fields of some columns hold."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def open_shard(path: Place, columns: Sequence[Column], is_packed: bool) -> ShardRows:
    """Return the samples of a shard. Raises ValueError or OSError if they cannot be read.

    columns: its fields, as the index says; a compressed shard's are those that it tells itself, as for `curate.cells`.
    """
    if is_packed:
        data = io.BytesIO(decompressed(path))
        size = data.getbuffer().nbytes
        return PackedRows(data, size, read_mds_columns(data, read_offsets(data, size)))
    size = path.status().size if isinstance(path, Remote) else path.stat().st_size
    file = path.open("rb")
    try:
        file.seek(max(0, size - len(_ARROW)))
        if file.read() != _ARROW:
            return PackedRows(file, size, columns)
    except BaseException:
        file.close()
        raise
    file.close()
    return ArrowRows(path)


class PackedRows:
    """Samples of fields one after the other."""

    def __init__(self, file: BinaryIO, size: int, columns: Sequence[Column]) -> None:
        self._file, self._columns = file, columns
        self._offsets = read_offsets(file, size)
        self.count = len(self._offsets) - 1

    def place(self, row: int, column: str) -> tuple[int, int] | None:
        """Return offset and size of a field, None for a sample whose sizes lie."""
        return self._fields(row).get(column)

    def _fields(self, row: int) -> dict[str, tuple[int, int]]:
        try:
            return place_fields(self._file, self._offsets[row], self._offsets[row + 1], self._columns)
        except ValueError:
            return {}

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return bytes of the shard."""
        self._file.seek(offset)
        return self._file.read(size)

    def values(self, row: int, columns: Collection[str]) -> Row:
        """Return what the fields of some columns hold; None for what does not decode."""
        fields = self._fields(row)
        return {
            column.name: _decoded(column.encoding, self.bytes_at(*fields[column.name]))
            for column in self._columns
            if column.name in columns and column.name in fields
        }

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ArrowRows:
    """Samples that are rows of an Arrow file inside the chunk, uncompressed, so that its values lie as they are."""

    def __init__(self, path: Place) -> None:
        import pyarrow as pa

        whole = pa.py_buffer(path.read_bytes()) if isinstance(path, Remote) else pa.memory_map(str(path)).read_buffer()
        self._whole: pa.Buffer = whole
        count = int.from_bytes(whole[:4].to_pybytes(), "little")
        start = 8 + 4 * count
        length = int.from_bytes(whole[whole.size - 12 : whole.size - 8].to_pybytes(), "little")
        if start + length + 12 > whole.size:
            raise ValueError("its Arrow table is longer than it")
        table = pa.ipc.open_file(pa.BufferReader(whole.slice(start, length))).read_all()
        table.validate(full=True)
        self._table: pa.Table = table
        self.count = int(table.num_rows)

    def place(self, row: int, column: str) -> tuple[int, int] | None:
        """Return offset and size of a value, None for null."""
        if column not in self._table.column_names:
            return None
        chunk = self._table.column(column).slice(row, 1).chunk(0)
        if chunk.null_count:
            return None
        width, form = (8, "<qq") if str(chunk.type).startswith("large") else (4, "<ii")
        _, offsets, data = chunk.buffers()
        start, stop = unpack(form, offsets[chunk.offset * width : (chunk.offset + 2) * width].to_pybytes())
        return data.address + start - self._whole.address, stop - start

    def bytes_at(self, offset: int, size: int) -> bytes:
        """Return bytes of the chunk."""
        return bytes(self._whole[offset : offset + size].to_pybytes())

    def values(self, row: int, columns: Collection[str]) -> Row:
        """Return the values of some columns."""
        [values] = self._table.select([name for name in self._table.column_names if name in columns]).slice(
            row, 1
        ).to_pylist() or [{}]
        return dict(values)

    def close(self) -> None:
        """Do nothing: the mapping ends with the object."""


def _decoded(encoding: str, data: bytes) -> object:
    """Return the value of a field whose encoding is one of DECODERS, None if its bytes are no such."""
    try:
        return DECODERS[encoding](data)
    except (ValueError, RecursionError, ArithmeticError):
        return None


def _number(form: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        if len(data) != _SIZES[form[-1]]:
            raise ValueError
        (value,) = unpack(form, data)
        return value if not isinstance(value, float) or math.isfinite(value) else None

    return read


_SIZES = {"b": 1, "h": 2, "i": 4, "q": 8, "B": 1, "H": 2, "I": 4, "Q": 8, "e": 2, "f": 4, "d": 8, "?": 1}
_NUMBERS = {
    "int": "<q", "int8": "<b", "int16": "<h", "int32": "<i", "int64": "<q", "uint8": "<B", "uint16": "<H",
    "uint32": "<I", "uint64": "<Q", "float16": "<e", "float32": "<f", "float64": "<d", "float": "<d", "bool": "<?",
}  # fmt: skip
DECODERS: dict[str, Callable[[bytes], object]] = {
    **{name: _number(form) for name, form in _NUMBERS.items()},
    **dict.fromkeys(("str", "str_int", "str_float", "str_decimal"), lambda data: data.decode()),
    "json": json.loads,
}
