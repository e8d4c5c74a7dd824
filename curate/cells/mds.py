"""Values in compressed MDS shards, by sample number in the shard."""

from __future__ import annotations

import io

from curate.cells.packed import place_fields, read_mds_columns, read_offsets
from curate.remote import Place

CODECS = {".zstd": "zstd", ".gz": "gzip", ".br": "brotli", ".bz2": "bz2"}
_LARGEST = 1 << 31  # bytes of a decompressed shard; MDS writes 64 MB unless told otherwise
_CHUNK = 1 << 20


class MdsCells:
    """A compressed shard, decompressed into memory."""

    def __init__(self, path: Place) -> None:
        self._data = decompressed(path)
        file = io.BytesIO(self._data)
        self._offsets = read_offsets(file, len(self._data))
        self._columns = read_mds_columns(file, self._offsets)

    def read(self, column: str, row: int) -> bytes | None:
        """Return the bytes of a field of a sample; IndexError or KeyError if there is no such."""
        if not 0 <= row < len(self._offsets) - 1:
            raise IndexError(row)
        file = io.BytesIO(self._data)  # threads read at once, and each needs a position of its own
        at, size = place_fields(file, self._offsets[row], self._offsets[row + 1], self._columns)[column]
        return self._data[at : at + size]


def decompressed(path: Place) -> bytes:
    """Return the content of a compressed shard. Raises ValueError if it is too large, or no such."""
    import pyarrow as pa

    codec = CODECS.get(path.suffix.lower())
    if codec is None:
        raise ValueError(f"it is compressed in a way that cannot be read; there are: {', '.join(CODECS)}")
    with path.open("rb") as file, pa.CompressedInputStream(pa.PythonFile(file, "r"), codec) as stream:
        data, chunk = bytearray(), bytearray(_CHUNK)
        while read := stream.readinto(chunk):  # read(n) would have n bytes at once, and keep them after an error
            data += memoryview(chunk)[:read]
            if len(data) > _LARGEST:
                raise ValueError(f"it holds more than {_LARGEST:,} bytes")
    return bytes(data)
