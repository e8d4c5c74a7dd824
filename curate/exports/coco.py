"""COCO annotations of the chosen images: their labels as categories, crops as boxes, captions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from curate.exports.files import located
from curate.exports.folder import Folder
from curate.exports.task import Shard, Task


class Coco:
    """Writes `images`, `annotations` and `categories` (labels in order of the alphabet, from 1).

    An image has an annotation if it has a label, a caption or a crop: the crop's box, or the whole image's. Images in
    archives become files in a folder beside; `file_name` is absolute. Crops of one image share it by its first row.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._at = Path(task.out).absolute().parent / f"{task.out.stem}-images"

    def plan(self) -> list[tuple[int, int]]:
        """Return ranges of rows."""
        return self._task.row_shards(1000, 100_000_000)

    @cached_property
    def _categories(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._task.subset.labels, 1)}

    def shard(self, shard: Shard) -> list[Any]:
        """Write some images, and return [uid, image, annotation] of each row."""
        rows = []
        for ordinal, row, _, file in located(shard, self._at):
            size = {"width": row["width"], "height": row["height"]}
            image = {"id": ordinal + 1, "file_name": file, **size, "uid": row["uid"], "key": row["key"]}
            rows.append([row["uid"], image, self._annotation(ordinal, row)])
        return rows

    def _annotation(self, ordinal: int, row: dict[str, Any]) -> dict[str, Any] | None:
        box = [row[f"crop_{side}"] for side in "xywh"] if self._task.subset.is_cropped else None
        if box is None and row["label"] is None and row["caption"] is None:
            return None
        value: dict[str, Any] = {"id": ordinal + 1, "image_id": ordinal + 1}
        if box or row["label"] is not None:
            box = box or [0, 0, row["width"] or 0, row["height"] or 0]
            value |= {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "segmentation": []}
            value["category_id"] = self._categories.get(row["label"], 0)
        if row["caption"] is not None:
            value["caption"] = row["caption"]
        return value

    def finish(self, folder: Folder) -> None:
        """Write the file, one list after the other, a shard at a time."""
        categories = [{"id": number, "name": name} for name, number in self._categories.items()]
        if self._task.subset.is_cropped:
            categories.insert(0, {"id": 0, "name": "unlabelled"})
        first: dict[str, int] = {}
        with (folder.stage / "listing").open("w", encoding="utf-8") as file:
            file.write('{"images": [')
            _write(file, self._images(folder, first))
            file.write('],\n"annotations": [')
            _write(file, self._annotations(folder, first))
            file.write('],\n"categories": ' + json.dumps(categories, ensure_ascii=False) + "}\n")

    def _images(self, folder: Folder, first: dict[str, int]) -> Iterator[Any]:
        """Yield each image once; of crops, `first` remembers which image stands for a uid."""
        for _, rows in folder.notes():
            for uid, image, _ in rows:
                if not self._task.subset.is_cropped or first.setdefault(uid, image["id"]) == image["id"]:
                    yield image

    def _annotations(self, folder: Folder, first: dict[str, int]) -> Iterator[Any]:
        for _, rows in folder.notes():
            for uid, _, annotation in rows:
                if annotation:
                    yield annotation | {"image_id": first.get(uid, annotation["image_id"])}


def _write(file: Any, values: Iterator[Any]) -> None:
    for i, value in enumerate(values):
        file.write(("," if i else "") + "\n" + json.dumps(value, ensure_ascii=False))
