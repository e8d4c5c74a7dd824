"""The binary values of an Arrow column, of a struct its field `bytes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def is_binary(kind: pa.DataType) -> bool:
    """Tell whether a type holds bytes."""
    from pyarrow import types

    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def is_image_struct(kind: pa.DataType) -> bool:
    """Tell whether a type is a struct with `bytes`, as Hugging Face datasets store images."""
    from pyarrow import types

    return types.is_struct(kind) and any(field.name == "bytes" and is_binary(field.type) for field in kind)


def leaf(field: pa.Field) -> str:
    """Return the path of the bytes of a column in a Parquet file."""
    return f"{field.name}.bytes" if is_image_struct(field.type) else str(field.name)


def binary(column: pa.ChunkedArray | pa.Array, name: str = "bytes") -> pa.ChunkedArray | pa.Array:
    """Return the values, or those of a field of a struct: null where the struct is."""
    from pyarrow import compute, types

    return compute.struct_field(column, name) if types.is_struct(column.type) else column


def as_bytes(value: object) -> bytes | None:
    """Return a value that is bytes or null. Raises ValueError for any other."""
    if value is None or isinstance(value, bytes):
        return value
    raise ValueError("the column holds no bytes")
