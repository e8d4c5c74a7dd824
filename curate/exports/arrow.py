"""Rows and their images as Arrow batches, for Parquet and Lance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from curate.exports.task import Item, Shard, Task

if TYPE_CHECKING:
    import pyarrow as pa

_TOGETHER = 100  # rows of one batch, and of one row group: what a reader must hold to decode one image


def column_types(task: Task) -> dict[str, Any]:
    """Return {column: Arrow type} of what is written beside an image."""
    import polars as pl
    import pyarrow as pa

    schema = {name: task.subset.schema[name] for name in task.columns}
    found = pl.DataFrame(schema=schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    return {field.name: pa.string() if pa.types.is_large_string(field.type) else field.type for field in found}


def batches(shard: Shard, schema: pa.Schema, row: Any) -> Iterator[pa.RecordBatch]:
    """Yield a shard's rows, each made by `row(item)`, a hundred at a time."""
    import pyarrow as pa

    waiting: list[dict[str, Any]] = []
    for item in shard.items():
        waiting.append(row(item))
        if len(waiting) == _TOGETHER:
            yield pa.RecordBatch.from_pylist(waiting, schema)
            waiting = []
    if waiting:
        yield pa.RecordBatch.from_pylist(waiting, schema)


def values(item: Item, task: Task) -> dict[str, Any]:
    """Return a row's columns by name."""
    return {name: item.row[name] for name in task.columns}
