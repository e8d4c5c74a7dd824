"""Images as files: copies or links, in a sub-folder for each label; and where lists of files find theirs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from curate.exports.folder import Folder
from curate.exports.images import Refused, fetch_all, own_file
from curate.exports.names import extension, folders
from curate.exports.task import Item, Shard, Task
from curate.samples import is_uid

_ROWS = 1000
_SUFFIX = re.compile(r"\.\w{1,8}")


class _Labelled:
    """Which sub-folder a row goes to: its label's, none without a label."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @cached_property
    def _folders(self) -> dict[str, str]:
        labels: set[str] = set()
        for frame in self._task.subset.frames(["label"]):
            labels.update(frame["label"].drop_nulls().unique())
        return folders(labels)

    def __call__(self, row: Any, name: str) -> str:
        return name if row["label"] is None else f"{self._folders[row['label']]}/{name}"


class Copies:
    """Writes every image as a file, `label/name.jpg`."""

    def __init__(self, task: Task) -> None:
        self._task, self._place = task, _Labelled(task)

    def plan(self) -> list[tuple[int, int]]:
        """Return ranges of rows."""
        return self._task.row_shards(_ROWS, 100_000_000)

    def shard(self, shard: Shard) -> None:
        """Write some files."""
        for item in shard.items():
            shard.file(self._place(item.row, item.file)).write_bytes(item.data)

    def finish(self, folder: Folder) -> None:
        """Nothing spans the files."""


class Links:
    """Makes a symbolic link to every image that is a file of its own, `label/name.jpg`; the others are refused."""

    def __init__(self, task: Task) -> None:
        self._task, self._place = task, _Labelled(task)

    def plan(self) -> list[tuple[int, int]]:
        """Return ranges of rows."""
        return self._task.row_shards(_ROWS)

    def shard(self, shard: Shard) -> None:
        """Make some links."""
        for first, rows, names, _ in shard.batches():
            for i, row in enumerate(rows):
                shard.tick(first + i)
                try:
                    path = own_file(row, self._task.subset.roots)
                except Refused as refused:
                    shard.refuse(first + i, row, refused)
                    continue
                if path is None:
                    shard.refuse(first + i, row, Refused("not_a_file", "it lies in an archive or a store: copy it"))
                    continue
                suffix = path.suffix.lower() if _SUFFIX.fullmatch(path.suffix) else ""
                os.symlink(path, shard.file(self._place(row, names[i] + suffix)))
                shard.samples += 1

    def finish(self, folder: Folder) -> None:
        """Nothing spans the links."""


def located(shard: Shard, at: Path, within: str = "") -> Iterator[tuple[int, Any, str, str]]:
    """Yield ordinal, row, name and absolute file of each row of a shard.

    An image in an archive becomes a file below `at`, one for all its crops; without `copy` it is refused.
    """
    task = shard.task
    for first, rows, names, _ in shard.batches():
        found: list[Path | Refused | None] = []
        for row in rows:
            try:
                path = own_file(row, task.subset.roots)
                refused = path is None and not task.options.copy
                found.append(Refused("not_a_file", "it lies in an archive or a store") if refused else path)
            except Refused as error:
                found.append(error)
        inside = (row for row, path in zip(rows, found, strict=True) if path is None)
        fetched = fetch_all(inside, task.subset.roots)
        for i, (row, where) in enumerate(zip(rows, found, strict=True)):
            shard.tick(first + i)
            data = next(fetched) if where is None else where
            if isinstance(data, Refused):
                shard.refuse(first + i, row, data)
                continue
            if isinstance(data, bytes):
                shared = task.subset.is_cropped and is_uid(row["uid"])
                file = f"{within}{row['uid'] if shared else names[i]}.{extension(data)}"
                shard.file(file).write_bytes(data)
                shard.add(Item(first + i, row, names[i], data, 1))
                yield first + i, row, names[i], str(at / file)
            else:
                shard.samples += 1
                yield first + i, row, names[i], str(data)
