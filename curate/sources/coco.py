"""COCO annotation files: instances, and captions."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from curate.errors import SourceError
from curate.remote import Place, place
from curate.samples import Sample
from curate.sources.columns import Columns, Row, as_name, as_text, make_sample, read_fields
from curate.sources.listing import each, fingerprint, is_outside, locate, read_image, stat_entries, stat_entry
from curate.sources.look import MOST_INSIDE, Look, head
from curate.sources.records import named_errors

_LOOKED_AT = 1 << 16  # bytes of a JSON file that tell whether it is one of COCO's
_KEYS = re.compile(rb'"(images|annotations|categories|licenses)"\s*:\s*\[')
_KINDS = ("instances", "captions", "person_keypoints", "image_info")
_TRIED = 50  # images that are looked for in a folder before it counts as not theirs


def find_coco(look: Look) -> list[Place] | str:
    """Return a JSON file of COCO's form; or those of a folder, or of its `annotations`.

    Raises SourceError where several are of the same split: their images would be the same.
    """
    files = look.ending(".json")
    if look.is_folder and not files:
        inside = [folder for folder in look.folders if folder.name == "annotations"]
        files = [file for folder in inside for file in Look(folder).ending(".json")]
    found = [file for file in files if len(files) <= MOST_INSIDE and _is_coco(file)]
    if not found:
        return "holds no JSON file of COCO's form" if look.is_folder else "is no JSON file of COCO's form"
    splits = [_split(file) for file in found]
    if len(set(splits)) < len(splits):
        names = ", ".join(file.name for file in found)
        raise SourceError(f"{look.path} holds several COCO files of the same images ({names}): give the path of one")
    return found


def coco_root(path: Place) -> Place:
    """Return the folder of a COCO file, or of `annotations` where it lies in that."""
    return path.parent.parent if path.parent.name == "annotations" else path.parent


class CocoSource:
    """The images that a COCO file lists, in its order, whether annotated or not.

    The label is the category that covers the largest area of the image, the most frequent of equal ones, then that of
    the lowest id; all that are there are metadata `categories`, the largest first. The caption is the first of the
    image's captions, the others are alternatives. The key is the image's file name. Images are looked for in the folder
    that the user names (`images`), else beside the file, in the folder of its split (`train2017` for
    `annotations/instances_train2017.json`), and in folders `images`.
    """

    kind = "coco"

    def __init__(self, path: Place, columns: Columns, name: str) -> None:
        self._path = path
        self.id = name
        self.root = str(coco_root(path))
        self._columns = columns
        images = self._listed()
        seen = dict.fromkeys(name for image in images for name in image)
        columns.require([*seen, "category", "captions"], f"the COCO file {path}")
        self._names = Columns(
            label=columns.label or "category",
            caption=columns.caption or "captions",
            alternatives=columns.alternatives,
            group=columns.group,
        )
        files = [self._file_name(image) for image in images]
        self._folder = self._find_images([name for name in files if name is not None])
        self.count: int | None = len(images)
        located = dict.fromkeys(location for name in files if name and (location := self._locate(name)))
        own = filter(None, [stat_entry(path, path.name)])
        self.fingerprint = fingerprint(columns, [*own, *stat_entries(self.root, located)])

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; the JSON file is read again."""
        yield from each(self._sample, islice(self._keyed(), start, None), self.root)

    def _keyed(self) -> Iterator[tuple[Row, str, bool]]:
        seen: set[str] = set()
        for number, image in enumerate(self._listed()):
            key = as_name(self._file_name(image) or f"#{number}")
            repeated = key in seen
            seen.add(key)
            yield image, key, repeated

    def _sample(self, item: tuple[Row, str, bool]) -> Sample:
        image, key, repeated = item
        name, location, data, problem = self._file_name(image), "", b"", "missing_file"
        if name is not None:
            found = self._locate(name)
            location, problem = found or name, "outside_root"
            if found is not None:
                data, problem = read_image(place(self.root, found))
        fields = read_fields(image, self._names, drop=(self._columns.path or "file_name",))
        problem = "duplicate_key" if repeated else problem
        return make_sample(fields, source=self.id, key=key, path=location, data=data, problem=problem)

    def _listed(self) -> list[dict[str, Any]]:
        """Return the images, each with its categories and captions."""
        with named_errors(self._path):
            found = read_coco(self._path)
        names = {one["id"]: as_text(one.get("name")) for one in _objects(found, "categories") if _has_id(one)}
        notes: dict[object, list[Mapping[str, Any]]] = defaultdict(list)
        for note in _objects(found, "annotations"):
            if isinstance(note, dict) and isinstance(note.get("image_id"), (int, str)):
                notes[note["image_id"]].append(note)
        images = [image if isinstance(image, dict) else {} for image in found["images"]]
        return [_described(image, notes.get(image["id"], []) if _has_id(image) else [], names) for image in images]

    def _file_name(self, image: Mapping[str, Any]) -> str | None:
        value = image.get(self._columns.path or "file_name")
        return None if isinstance(value, (list, dict)) else as_text(value)

    def _locate(self, name: str) -> str | None:
        """Return where an image lies, from the root if it is below it; None where its name leads out of its folder."""
        inside = locate(self._folder, name)
        return None if is_outside(inside) else locate(self.root, str(place(self._folder, inside)))

    def _find_images(self, names: list[str]) -> str:
        """Return the folder of the images. Raises SourceError if none of the first of them lies where it may."""
        split, beside = _split(self._path), self._path.parent
        above = [] if coco_root(self._path) == beside else [coco_root(self._path)]
        tried = [
            place(at, *names_) for at in (beside, *above) for names_ in ((), (split,), ("images", split), ("images",))
        ]
        if self._columns.images is not None:
            tried = [place(self._columns.images).resolve()]
        for folder in tried:
            inside = (locate(str(folder), name) for name in names[:_TRIED])
            if any(not is_outside(name) and place(folder, name).is_file() for name in inside):
                return str(folder)
        if not names:
            return self.root
        raise SourceError(
            f"none of the first images of {self._path} is there, looked for in {', '.join(map(str, tried))}:"
            " name their folder with --images"
        )


def read_coco(path: Place) -> Mapping[str, Any]:
    """Return a COCO file's content without outlines, which take most of it. Raises ValueError if it is not one."""

    def lean(value: dict[str, Any]) -> dict[str, Any]:
        value.pop("segmentation", None)
        value.pop("keypoints", None)
        return value

    try:
        with path.open("rb") as file:
            found = json.load(file, object_hook=lean)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict) or not isinstance(found.get("images"), list):
        raise ValueError("it has no list of images, as COCO files have")  # noqa: TRY004
    return found


def _described(
    image: dict[str, Any], notes: list[Mapping[str, Any]], names: Mapping[object, str | None]
) -> dict[str, Any]:
    """Return an image with what its annotations say of it."""
    sizes: dict[int | str, tuple[float, int]] = {}
    for note in notes:
        category = note.get("category_id")
        if isinstance(category, (int, str)) and names.get(category) is not None:
            area, count = sizes.get(category, (0.0, 0))
            sizes[category] = (area + _area(note), count + 1)
    order = sorted(sizes, key=lambda one: (-sizes[one][0], -sizes[one][1], str(one).zfill(20)))
    categories = list(dict.fromkeys(names[one] for one in order))
    captions = [note["caption"] for note in notes if isinstance(note.get("caption"), str)]
    told = {**image, "category": categories[0] if categories else None, "captions": captions}
    return {**told, "categories": categories} if categories else told


def _area(note: Mapping[str, Any]) -> float:
    """Return the area of an annotation in pixels, of its box where it does not say."""
    if (area := _number(note.get("area"))) is not None:
        return max(0.0, area)
    box = note.get("bbox")
    sides = [_number(side) for side in box[2:]] if isinstance(box, list) and len(box) == 4 else [None, None]
    return max(0.0, sides[0] * sides[1]) if sides[0] is not None and sides[1] is not None else 0.0


def _number(value: object) -> float | None:
    """Return a finite number as it is in JSON, None for all else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18
    return float(value) if is_number and isinstance(value, (int, float)) else None


def _objects(found: Mapping[str, Any], name: str) -> list[Any]:
    value = found.get(name)
    return value if isinstance(value, list) else []


def _has_id(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), (int, str))


def _is_coco(path: Place) -> bool:
    start = head(path, _LOOKED_AT).lstrip()
    return start.startswith(b"{") and (_KEYS.search(start) is not None or b'"info"' in start[:1024])


def _split(path: Place) -> str:
    """Return the name of a COCO file's split: what follows `instances_` and the like."""
    stem = path.name.rpartition(".")[0]
    kind = next((kind for kind in _KINDS if stem.startswith(f"{kind}_")), None)
    return stem if kind is None else stem[len(kind) + 1 :]
