"""A folder that Hugging Face's `datasets.load_dataset` opens: Parquet with an Image column, and a card."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from curate.exports.arrow import batches, column_types, values
from curate.exports.folder import Folder
from curate.exports.task import Item, Shard, Task

_ROWS, _BYTES = 100_000, 500_000_000
_MOST_CLASSES = 10_000  # beyond, the column holds ids or free text


class HuggingFace:
    """Writes `data/train-00000-of-00007.parquet` … and README.md.

    `image` is decoded by the library; labels are a ClassLabel, their names in order of the alphabet.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._shards = task.row_shards(_ROWS, task.options.shard_size or _BYTES)

    def plan(self) -> list[tuple[int, int]]:
        """Return ranges of rows."""
        return self._shards

    @cached_property
    def _classes(self) -> dict[str, int]:
        labels = self._task.subset.labels
        return {name: i for i, name in enumerate(labels)} if len(labels) <= _MOST_CLASSES else {}

    @cached_property
    def _schema(self) -> Any:
        """Return the Arrow schema, with the features as Hugging Face's metadata."""
        import pyarrow as pa

        kinds = column_types(self._task)
        if self._classes:
            kinds["label"] = pa.int64()
        features = {name: self._feature(name, kind) for name, kind in kinds.items()}
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        info = {"info": {"features": {"image": {"_type": "Image"}, **features}}}
        return pa.schema([("image", image), *kinds.items()], metadata={"huggingface": json.dumps(info)})

    def _feature(self, name: str, kind: Any) -> Any:
        import pyarrow as pa

        if name == "label" and self._classes:
            return {"names": list(self._classes), "_type": "ClassLabel"}
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return {"feature": self._feature("", kind.value_type), "_type": "List"}
        names = {
            pa.float32(): "float32",
            pa.float64(): "float64",
            pa.bool_(): "bool",
            pa.large_string(): "large_string",
        }
        return {"dtype": names.get(kind, str(kind)), "_type": "Value"}

    def shard(self, shard: Shard) -> None:
        """Write one Parquet file."""
        from pyarrow import parquet

        schema = self._schema
        name = f"data/train-{shard.number:05d}-of-{len(self._shards):05d}.parquet"
        # Images are compressed already; snappy would read them for nothing.
        texts = {field.name: "snappy" for field in schema if field.name != "image"}
        squeezed = {"image.bytes": "none", "image.path": "snappy", **texts}
        with parquet.ParquetWriter(shard.file(name), schema, compression=squeezed) as writer:
            for batch in batches(shard, schema, self._row):
                writer.write_batch(batch)

    def _row(self, item: Item) -> dict[str, Any]:
        row = values(item, self._task)
        if self._classes and row["label"] is not None:
            row["label"] = self._classes[row["label"]]
        return {"image": {"bytes": item.data, "path": item.file}, **row}

    def finish(self, folder: Folder) -> None:
        """Write the card, which says where the data is."""
        samples = sum(entry["samples"] for entry in folder.done.values())
        with folder.put("README.md") as file:
            file.write(_card(samples, self._task.subset.info.get("method"), self._task.columns).encode())


def _card(samples: int, method: Any, columns: Iterable[str]) -> str:
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---

# A curated subset

{samples} images, chosen by the method {json.dumps(method)} of curate. Columns: image, {", ".join(columns)}.
"""
