"""What FiftyOne imports as FiftyOneImageClassificationDataset, or FiftyOneImageDetectionDataset where rows are crops.

Two JSON files as its documentation has them: data.json, {id: file}, and labels.json, {"classes": […], "labels": {id:
target}}. A target is a class's number, or a list of boxes with such a number each, sides as shares of the image's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from curate.exports.files import located
from curate.exports.folder import Folder
from curate.exports.images import Refused
from curate.exports.task import Shard, Task


class FiftyOne:
    """Writes data.json and labels.json; images in archives become files in `data/`. No label is null."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def plan(self) -> list[tuple[int, int]]:
        """Return ranges of rows."""
        return self._task.row_shards(1000, 100_000_000)

    @cached_property
    def _classes(self) -> dict[str, int]:
        unlabelled = ["crop"] if self._task.subset.is_cropped else []  # a box must be of some class
        return {name: i for i, name in enumerate(dict.fromkeys([*self._task.subset.labels, *unlabelled]))}

    def shard(self, shard: Shard) -> list[Any]:
        """Write some images, and return [id, file, target] of each row; an image's crops share its uid as id."""
        rows = []
        at = Path(self._task.out).absolute()
        for _, row, name, file in located(shard, at, "data/", self._unfit):
            if self._task.subset.is_cropped:
                rows.append([row["uid"], file, self._detection(row)])
            else:
                rows.append([name, file, self._classes.get(row["label"])])
        return rows

    def _unfit(self, row: dict[str, Any]) -> Refused | None:
        """Refuse a crop whose box cannot be a share of its image."""
        fits = not self._task.subset.is_cropped or (row["width"] and row["height"])
        return None if fits else Refused("no_size", "the manifest does not say how large its image is")

    def _detection(self, row: dict[str, Any]) -> dict[str, Any]:
        x, y, w, h = (row[f"crop_{side}"] for side in "xywh")
        width, height = row["width"], row["height"]
        return {
            "label": self._classes["crop" if row["label"] is None else row["label"]],
            "bounding_box": [x / width, y / height, w / width, h / height],
            "attributes": {name: row[name] for name in ("tile", "tile_slot", "rank")},
        }

    def finish(self, folder: Folder) -> None:
        """Write both files, a shard at a time."""
        with folder.put("data.json") as file:
            _write(file, "{", self._files(folder), "}\n")
        head = json.dumps({"classes": list(self._classes)}, ensure_ascii=False)[:-1] + ', "labels": {'
        with folder.put("labels.json") as file:
            _write(file, head, self._targets(folder), "}}\n")

    def _files(self, folder: Folder) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        for _, rows in folder.notes():
            for name, path, _ in rows:
                if name not in seen:
                    yield name, path
                if self._task.subset.is_cropped:
                    seen.add(name)

    def _targets(self, folder: Folder) -> Iterator[tuple[str, Any]]:
        boxes: dict[str, list[Any]] = {}
        for _, rows in folder.notes():
            for name, _, target in rows:
                if self._task.subset.is_cropped:
                    boxes.setdefault(name, []).append(target)
                else:
                    yield name, target
        yield from boxes.items()


def _write(file: Any, head: str, pairs: Iterator[tuple[str, Any]], tail: str) -> None:
    file.write(head.encode())
    for i, (name, value) in enumerate(pairs):
        text = f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        file.write((("," if i else "") + "\n" + text).encode())
    file.write(tail.encode())
