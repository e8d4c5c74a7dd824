"""Images as files: copies or links, in a sub-folder for each label; and where lists of files find theirs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from curate.exports.folder import Folder
from curate.exports.images import Refused, fetch_all, own_file
from curate.exports.names import extension, folders
from curate.exports.task import Shard, Task
from curate.samples import is_uid

_ROWS = 1000
_SUFFIX = re.compile(r"\.\w{1,8}")


class _Labelled:
    """Which sub-folder a row goes to: its label's, none without a label."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @cached_property
    def _folders(self) -> dict[str, str]:
        return folders(self._task.subset.labels)

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


def located(
    shard: Shard, at: Path, within: str = "", unfit: Callable[[Any], Refused | None] = lambda _: None
) -> Iterator[tuple[int, Any, str, str]]:
    """Yield ordinal, row, name and absolute file of each row of a shard.

    An image in an archive becomes a file below `at`, one for all its crops; without `copy` it is refused.
    unfit: says of a row why the format cannot hold it; its image is not looked for
    """
    subset = shard.task.subset
    for first, rows, names, _ in shard.batches():
        found = [unfit(row) or _own(row, shard.task) for row in rows]
        stems = [
            row["uid"] if subset.is_cropped and is_uid(row["uid"]) else name
            for row, name in zip(rows, names, strict=True)
        ]
        inside: dict[str, Any] = {}
        for row, stem, where in zip(rows, stems, found, strict=True):
            if where is None:
                inside.setdefault(stem, row)
        written = _written(shard, inside, at, within)
        for i, (row, where) in enumerate(zip(rows, found, strict=True)):
            shard.tick(first + i)
            place = written(stems[i]) if where is None else where
            if isinstance(place, Refused):
                shard.refuse(first + i, row, place)
                continue
            shard.samples += 1
            yield first + i, row, names[i], str(place)


def _own(row: Any, task: Task) -> Path | Refused | None:
    """Return a row's own file, None where it lies in an archive, or why it is refused."""
    try:
        path = own_file(row, task.subset.roots)
    except Refused as refused:
        return refused
    if path is None and not task.options.copy:
        return Refused("not_a_file", "it lies in an archive or a store")
    return path


def _written(shard: Shard, rows: Mapping[str, Any], at: Path, within: str) -> Callable[[str], Path | Refused]:
    """Return a function that tells where the image of {stem: row} is, written when it is first asked for, in order."""
    fetched = zip(rows, fetch_all(rows.values(), shard.task.subset.roots), strict=True)
    known: dict[str, Path | Refused] = {}

    def place(wanted: str) -> Path | Refused:
        while wanted not in known:
            stem, data = next(fetched)
            if isinstance(data, Refused):
                known[stem] = data
                continue
            file = f"{within}{stem}.{extension(data)}"
            shard.file(file).write_bytes(data)
            known[stem] = at / file
        return known[wanted]

    return place
