"""A Lance table with the images: fragments are written one by one, and one commit makes them a table."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from curate.exports.arrow import batches, column_types, values
from curate.exports.folder import Folder
from curate.exports.task import Item, Shard, Task

_ROWS, _BYTES = 100_000, 500_000_000


class Lance:
    """Writes a table with `image` (binary) and the manifest's columns, rows in rank order.

    Lance draws the names of its files, so two exports are equal in rows, not in bytes. There is no table until all is
    written.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    def plan(self) -> list[tuple[int, int]]:
        """Return ranges of rows."""
        return self._task.row_shards(_ROWS, self._task.options.shard_size or _BYTES)

    @cached_property
    def _schema(self) -> Any:
        import pyarrow as pa

        return pa.schema([("image", pa.binary()), *column_types(self._task).items()])

    def shard(self, shard: Shard) -> list[Any]:
        """Write one shard's fragments, which belong to no table yet."""
        import pyarrow as pa
        from lance.fragment import write_fragments

        reader = pa.RecordBatchReader.from_batches(self._schema, batches(shard, self._schema, self._row))
        # There is a table where a finished export is written anew; it stays as it is until the commit.
        mode = "append" if (Path(self._task.out) / "_versions").is_dir() else "create"
        found = write_fragments(reader, str(self._task.out), schema=self._schema, mode=mode)
        shard.files = len(found)
        return [fragment.to_json() for fragment in found]

    def _row(self, item: Item) -> dict[str, Any]:
        return {"image": item.data, **values(item, self._task)}

    def finish(self, folder: Folder) -> None:
        """Commit, and remove what killed or earlier runs left behind."""
        import lance

        fragments = []
        for _, notes in folder.notes():
            fragments += [lance.FragmentMetadata.from_json(json.dumps(note)) for note in notes]
        lance.LanceDataset.commit(str(self._task.out), lance.LanceOperation.Overwrite(self._schema, fragments))
        named = {file.path for fragment in fragments for file in fragment.files}
        for path in (Path(self._task.out) / "data").glob("*.lance"):
            if path.name not in named:
                path.unlink()
