"""MDS shards, as MosaicML's StreamingDataset reads them. Written here: its writer cannot go on after it was killed.

A shard: number of samples and the offset of each, and of the end, as uint32; the shard's columns as JSON; then each
sample: the sizes of its columns of variable size as uint32, and the columns' bytes, both by column name.
"""

from __future__ import annotations

import itertools
import json
import struct
from typing import Any

from curate.errors import ExportError
from curate.exports.columns import packed, typed
from curate.exports.folder import Folder
from curate.exports.task import Item, Shard, Task

_ROWS, _LIMIT = 100_000, 1 << 26
_ENCODINGS = {"str": ("str", None), "int": ("int", 8), "float": ("float64", 8)}
_LARGEST = 2**32 - 1


class Mds:
    """Writes `shard.00000.mds` and `index.json`. The column `image` is the encoded image, as `bytes`.

    A shard is made in memory, so that its offsets are known: 64 MB unless `shard_size` says otherwise.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._limit = task.options.shard_size or _LIMIT
        self._kinds = typed(task)
        self._names = sorted([*self._kinds, "image"])
        encodings = {name: _ENCODINGS[kind] for name, kind in self._kinds.items()} | {"image": ("bytes", None)}
        self._config = {
            "version": 2,
            "format": "mds",
            "compression": None,
            "hashes": [],
            "size_limit": self._limit,
            "column_names": self._names,
            "column_encodings": [encodings[name][0] for name in self._names],
            "column_sizes": [encodings[name][1] for name in self._names],
        }

    def plan(self) -> list[tuple[int, int]]:
        """Return ranges of rows."""
        return self._task.row_shards(_ROWS, self._limit)

    def shard(self, shard: Shard) -> dict[str, Any] | None:
        """Write one shard."""
        name = f"shard.{shard.number:05d}.mds"
        samples = [self._sample(item) for item in shard.items()]
        if not samples:
            return None
        data = chunk(samples, json.dumps(self._config, sort_keys=True).encode())
        shard.file(name).write_bytes(data)
        return {"samples": len(samples), "raw_data": {"basename": name, "bytes": len(data), "hashes": {}}}

    def _sample(self, item: Item) -> bytes:
        sizes, values = [], []
        for name in self._names:
            kind = self._kinds.get(name, "")
            value = item.data if name == "image" else packed(item.row[name], kind)
            if kind not in ("int", "float"):
                sizes.append(len(value))
            values.append(value)
        return struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(values)

    def finish(self, folder: Folder) -> None:
        """Write index.json."""
        shards = [{**self._config, **notes, "zip_data": None} for _, notes in folder.notes() if notes]
        with folder.put("index.json") as file:
            file.write(json.dumps({"version": 2, "shards": shards}, sort_keys=True).encode())


def chunk(samples: list[bytes], header: bytes = b"") -> bytes:
    """Return number, offsets (uint32), header and samples. Raises ExportError where offsets would not fit."""
    at = 4 * (len(samples) + 2) + len(header)
    offsets = list(itertools.accumulate(map(len, samples), initial=at))
    if (at := offsets[-1]) > _LARGEST:
        raise ExportError(f"a shard of {at} bytes is too large for its 32-bit offsets: give a smaller --shard-size")
    return b"".join([struct.pack(f"<{len(offsets) + 1}I", len(samples), *offsets), header, *samples])
