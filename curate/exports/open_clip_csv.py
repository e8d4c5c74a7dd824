"""The table that OpenCLIP trains on: file path and caption, separated by a tab."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from curate.exports.files import located
from curate.exports.folder import Folder
from curate.exports.images import Refused
from curate.exports.task import Shard, Task


class OpenClipCsv:
    """Writes `filepath` and `title`; images in archives become files in a folder beside the table.

    A row without a caption is refused: OpenCLIP would train on the word "nan".
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._at = Path(task.out).absolute().parent / f"{task.out.stem}-images"

    def plan(self) -> list[tuple[int, int]]:
        """Return ranges of rows."""
        return self._task.row_shards(1000, 100_000_000)

    def shard(self, shard: Shard) -> list[list[str]]:
        """Write some images, and return lines."""
        found = located(shard, self._at, unfit=_without_caption)
        return [[file, _caption(row)] for _, row, _, file in found]

    def finish(self, folder: Folder) -> None:
        """Write the table."""
        with (folder.stage / "listing").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(["filepath", "title"])
            for _, lines in folder.notes():
                writer.writerows(lines)


def _caption(row: dict[str, Any]) -> str:
    """Return a row's caption in one line."""
    return " ".join((row["caption"] or "").split())


def _without_caption(row: dict[str, Any]) -> Refused | None:
    return None if _caption(row) else Refused("no_caption")
