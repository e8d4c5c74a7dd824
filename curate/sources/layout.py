"""Which columns of a table with images inside hold the image, the metadata, and classes that are written as numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from curate.cells.values import is_binary, is_image_struct
from curate.errors import SourceError
from curate.remote import Place
from curate.sources.columns import Columns, Row, first_present

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "img_bytes")
KEYS = ("key", "__key__")
_CAPTIONS = ("caption", "text")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one table.

    image: its column of bytes, or of structs of bytes and path; has_path: it is such a struct
    readable: columns without bytes, which are metadata; names: those of them that are fields of a sample
    key: holds the keys, None where rows are numbered; classes: {column: names of its classes}
    """

    image: str
    has_path: bool
    readable: tuple[str, ...]
    names: Columns
    key: str | None
    classes: Mapping[str, Sequence[str]]

    def row(self, values: Row) -> Row:
        """Return a row with the names of its classes instead of their numbers; None for a number that is none."""
        if not self.classes:
            return values
        return {name: self._class(name, value) if name in self.classes else value for name, value in values.items()}

    def _class(self, column: str, value: object) -> object:
        names = self.classes[column]
        if not isinstance(value, int):
            return value
        return names[value] if 0 <= value < len(names) else None


def find_image(schema: pa.Schema, wanted: str | None = None) -> str | None:
    """Return the column that holds images, None if there is none: the one wanted, else `image`, else the first.

    A column of images is told by the Hugging Face metadata, as a struct with `bytes`, or as bytes under a usual name.
    """
    features = _features(schema)
    fits = {}
    for field in schema:
        kind = features.get(field.name, {}).get("_type")
        told = kind == "Image" or (kind is None and (is_image_struct(field.type) or field.name in IMAGE_NAMES))
        if field.name and (told or field.name == wanted) and (is_binary(field.type) or is_image_struct(field.type)):
            fits[field.name] = True
    return wanted if wanted in fits else None if wanted else first_present(("image", *fits), fits)


def lay_out(schema: pa.Schema, columns: Columns, path: Place | str) -> Layout:
    """Return the layout of a table. Raises SourceError if it has no image column, or lacks a column that was named."""
    image = find_image(schema, columns.path)
    if image is None:
        listed = ", ".join(schema.names) or "none"
        which = f"no image column {columns.path!r} (--path)" if columns.path else "no column of images"
        raise SourceError(
            f"{path} has {which}: a struct with `bytes`, or bytes, named with --path if not by a usual name; its"
            f" columns are: {listed}"
        )
    readable = tuple(field.name for field in schema if not _holds_bytes(field.type))
    replace(columns, path=None).require(readable, f"the table {path}")
    features = _features(schema)
    classes = {
        name: [str(one) for one in feature["names"]]
        for name, feature in features.items()
        if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list) and name in readable
    }
    names = Columns(
        label=columns.label or first_present(("label", *classes), readable),
        caption=columns.caption or first_present(_CAPTIONS, readable),
        alternatives=columns.alternatives,
        group=columns.group,
    )
    has_path = not is_binary(schema.field(image).type) and "path" in [f.name for f in schema.field(image).type]
    return Layout(image, has_path, readable, names, first_present(KEYS, readable), classes)


def _holds_bytes(kind: pa.DataType) -> bool:
    """Tell whether there are bytes anywhere in a type: those are images or other files, not metadata."""
    from pyarrow import types

    inner = [kind.field(i).type for i in range(kind.num_fields)] if types.is_nested(kind) else []
    return is_binary(kind) or any(map(_holds_bytes, inner))


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return what the Hugging Face metadata say of each column; nothing where they are absent or damaged."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
