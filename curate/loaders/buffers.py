"""Arrow's numbers and texts as numpy's and back, in the same memory, without pyarrow's own ways: they import pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa


def joined(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, in the same memory where it is one already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def view(array: pa.Array) -> Any:
    """Return (n,) the values of an array of whole numbers without nulls."""
    dtype = np.dtype(str(array.type))
    buffer = array.buffers()[1]
    if not len(array) or buffer is None:
        return np.zeros(0, dtype=dtype)
    return np.frombuffer(buffer, dtype=dtype)[array.offset : array.offset + len(array)]


def numbers_array(values: NDArray[np.int32] | NDArray[np.int64]) -> pa.Array:
    """Return int32 or int64 values as an array."""
    import pyarrow as pa

    kind = pa.int32() if values.dtype == np.int32 else pa.int64()
    return pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(np.ascontiguousarray(values))])


def texts_array(texts: list[str]) -> pa.LargeStringArray:
    """Return texts as an array."""
    import pyarrow as pa

    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))
