"""WebDataset tars of the chosen samples, with what open_clip asks for beside them."""

from __future__ import annotations

import io
import json
import math
import tarfile
from typing import Any

from curate.exports.folder import Folder
from curate.exports.task import Item, Shard, Task

_ROWS, _BYTES = 10_000, 1_000_000_000


class WebDataset:
    """Writes `{:08d}.tar` with `.jpg` (or what the image is), `.txt` where there is a caption, and `.json` with uid,
    key, source, caption, label and all other columns; and `sizes.json`, {tar: samples}.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    def plan(self) -> list[tuple[int, int]]:
        """Return ranges of rows."""
        return self._task.row_shards(_ROWS, self._task.options.shard_size or _BYTES)

    def shard(self, shard: Shard) -> dict[str, int]:
        """Write one tar."""
        name = f"{shard.number:08d}.tar"
        with tarfile.open(shard.file(name), "w", format=tarfile.PAX_FORMAT) as tar:
            for item in shard.items():
                for member, data in self._members(item):
                    info = tarfile.TarInfo(member)  # time 0 and no owner: equal rows, equal bytes
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                tar.members.clear()  # type: ignore[attr-defined]  # else tarfile keeps every header
        return {name: shard.samples}

    def _members(self, item: Item) -> list[tuple[str, bytes]]:
        columns = {name: _plain(item.row[name]) for name in self._task.columns}
        parts = {item.file.rpartition(".")[2]: item.data}
        if item.row["caption"] is not None:
            parts["txt"] = item.row["caption"].encode()
        parts["json"] = json.dumps(columns, ensure_ascii=False, default=str).encode()
        keys = [f"{item.name}-{j}" for j in range(item.copies)] if self._task.options.repeats else [item.name]
        return [(f"{key}.{end}", data) for key in keys for end, data in parts.items()]

    def finish(self, folder: Folder) -> None:
        """Write sizes.json."""
        sizes: dict[str, Any] = {}
        for _, notes in folder.notes():
            sizes |= notes
        with folder.put("sizes.json") as file:
            file.write(json.dumps(sizes, indent=1).encode() + b"\n")


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, which knows neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
