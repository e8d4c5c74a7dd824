"""The table that OpenCLIP trains on: file path and caption, separated by a tab."""

from __future__ import annotations

import csv
from pathlib import Path

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
        lines = []
        for ordinal, row, _, file in located(shard, self._at):
            caption = " ".join((row["caption"] or "").split())
            if caption:
                lines.append([file, caption])
            else:
                shard.samples -= 1
                shard.refuse(ordinal, row, Refused("no_caption"))
        return lines

    def finish(self, folder: Folder) -> None:
        """Write the table."""
        with (folder.stage / "listing").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(["filepath", "title"])
            for _, lines in folder.notes():
                writer.writerows(lines)
