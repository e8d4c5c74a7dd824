"""Chunks for LitData's StreamingDataset. Written here: its writer is a pool of processes that cannot go on once killed.

A chunk: number of items and the offset of each, and of the end, as uint32; then each item: the sizes of its leaves as
uint32, and their bytes. An item is a dictionary; its structure is in index.json as PyTorch's pytree writes it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from curate.exports.columns import packed, typed
from curate.exports.folder import Folder
from curate.exports.mds import chunk
from curate.exports.task import Item, Shard, Task

_ROWS, _LIMIT = 100_000, 64_000_000


class LitData:
    """Writes `chunk-0-0.bin` … and `index.json`. The entry `image` is the encoded image, as bytes.

    A chunk is made in memory: 64 MB unless `shard_size` says otherwise.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._limit = task.options.shard_size or _LIMIT
        self._kinds = typed(task)

    def plan(self) -> list[tuple[int, int]]:
        """Return ranges of rows."""
        return self._task.row_shards(_ROWS, self._limit)

    def shard(self, shard: Shard) -> dict[str, Any] | None:
        """Write one chunk."""
        items = [self._item(item) for item in shard.items()]
        if not items:
            return None
        name = f"chunk-0-{shard.number}.bin"
        data = chunk(items)
        shard.file(name).write_bytes(data)
        return {"chunk_bytes": len(data), "chunk_size": len(items), "dim": None, "filename": name}

    def _item(self, item: Item) -> bytes:
        leaves = [item.data, *(packed(item.row[name], kind) for name, kind in self._kinds.items())]
        return struct.pack(f"<{len(leaves)}I", *map(len, leaves)) + b"".join(leaves)

    def finish(self, folder: Folder) -> None:
        """Write index.json."""
        leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
        names = ["image", *self._kinds]
        spec = {"type": "builtins.dict", "context": json.dumps(names), "children_spec": [leaf] * len(names)}
        config = {
            "compression": None,
            "chunk_size": None,
            "chunk_bytes": self._limit,
            "data_format": ["bytes", *self._kinds.values()],
            "data_spec": json.dumps([1, spec]),
            "encryption": None,
            "item_loader": "PyTreeLoader",
        }
        chunks = [notes for _, notes in folder.notes() if notes]
        with folder.put("index.json") as file:
            file.write(json.dumps({"chunks": chunks, "config": config}, sort_keys=True).encode())
