"""What a metadata row (of a table, a sidecar or both) says about its sample."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from curate.cells import split_cell
from curate.errors import SourceError
from curate.samples import Embedded, Json, Sample, is_uid

Row = Mapping[str, object]

PATHS = ("file_name", "filepath", "image_path", "path")
URLS = ("url", "image_url", "URL")
_DEEPEST = 50  # lists and objects inside each other


@dataclass(frozen=True, slots=True)
class Columns:
    """Which metadata columns hold the path, the label, the caption, its alternatives and the group.

    None is the source's default: of alternatives, what the caption's own column lists besides. images: no column, but
    the folder of the images that a COCO file describes.
    """

    path: str | None = None
    label: str | None = None
    caption: str | None = None
    alternatives: str | None = None
    group: str | None = None
    images: str | None = None

    def require(self, seen: Collection[str], where: str) -> None:
        """Raise SourceError if a column that the user named is not among those seen."""
        for option in ("path", "label", "caption", "alternatives", "group"):
            name = getattr(self, option)
            if name is not None and name not in seen:
                names = ", ".join(seen) or "none"
                raise SourceError(f"{where} has no column {name!r} (--{option}); its columns are: {names}")

    def with_defaults(self, seen: Collection[str], paths: Iterable[str], captions: Iterable[str]) -> Columns:
        """Return the columns to read from a table: those named by the user, else the first default that is there."""
        others = (name for name in seen if name.endswith("_file_name"))
        return Columns(
            path=self.path or first_present((PATHS[0], *others, *paths), seen),
            label=self.label or first_present(("label",), seen),
            caption=self.caption or first_present(captions, seen),
            alternatives=self.alternatives,
            group=self.group,
        )


@dataclass(frozen=True, slots=True)
class Fields:
    """The part of a sample that its metadata gives."""

    uid: str = ""
    caption: str | None = None
    alternatives: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None
    meta: Mapping[str, Json] = field(default_factory=dict)


def first_present(names: Iterable[str], seen: Collection[str]) -> str | None:
    """Return the first name that is among the columns seen."""
    return next((name for name in names if name in seen), None)


def read_fields(row: Row, names: Columns, *, drop: Collection[str] = ()) -> Fields:
    """Return what a row says: text of the named columns, its uid, and every other column as metadata.

    names: the columns to read, resolved; None reads nothing
    drop: columns that are neither fields nor metadata, such as the key
    """
    uid = row.get("uid")
    has_uid = isinstance(uid, str) and is_uid(uid)
    used = {names.path, names.label, names.caption, names.alternatives, names.group}
    used |= {"uid" if has_uid else None, *drop}
    caption = as_text(row.get(names.caption)) if names.caption else None
    return Fields(
        uid=str(uid) if has_uid else "",
        caption=caption,
        alternatives=read_alternatives(row, names, caption),
        label=as_text(row.get(names.label)) if names.label else None,
        group=as_text(row.get(names.group)) if names.group else None,
        meta={name: as_json(value) for name, value in row.items() if name not in used and not isinstance(value, bytes)},
    )


def make_sample(  # noqa: PLR0913
    fields: Fields,
    *,
    source: str,
    key: str,
    path: str,
    offset: int = 0,
    data: bytes = b"",
    problem: str = "",
    embedded: Embedded | None = None,
    is_cell: bool = False,
) -> Sample:
    """Return the sample of some bytes and what their metadata says; key and path become storable text.

    is_cell: path and offset are those of a value in a table. A file whose name looks so cannot be found again.
    """
    if not is_cell and split_cell(path) is not None:
        data, problem = b"", problem or "unreadable_file"
    return Sample(
        source=source,
        key=as_name(key),
        path=as_name(path),
        offset=offset,
        size=len(data),
        data=data,
        problem=problem,
        uid=fields.uid,
        caption=fields.caption,
        alternatives=fields.alternatives,
        label=fields.label,
        group=fields.group,
        meta=fields.meta,
        embedded=embedded,
    )


def read_alternatives(row: Row, names: Columns, caption: str | None) -> tuple[str, ...]:
    """Return the texts of a row's caption and alternatives besides the caption, in order, each once."""
    found = (row.get(name) for name in (names.caption, names.alternatives) if name)
    texts = dict.fromkeys(text for value in found for text in _texts(value))
    return tuple(text for text in texts if text != caption)


def _texts(value: object, depth: int = 0) -> Iterator[str]:
    """Yield the texts of a value, or of each of its items where it is a list."""
    if isinstance(value, list):
        for item in value if depth < _DEEPEST else ():
            yield from _texts(item, depth + 1)
    elif (text := as_text(value)) is not None:
        yield text


def as_text(value: object) -> str | None:
    """Return a metadata value as stripped, valid text; None for null, NaN and blank.

    Of a list, the first item that is not blank: a picture with several captions is paired with the first.
    """
    if value is None or isinstance(value, bytes) or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list):
        return next(_texts(value), None)
    text = json.dumps(as_json(value), sort_keys=True) if isinstance(value, dict) else str(value)
    return text.encode("utf-8", "replace").decode().strip() or None


def as_json(value: object, depth: int = 0) -> Json:
    """Return a value as JSON holds it: no NaN or infinity, no bytes; dates and decimals as text.

    What lies too deep for those who read it is null.
    """
    if value is None or isinstance(value, bool | int) or depth > _DEEPEST:
        return value if isinstance(value, int) else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        items = value.items()
        return {as_name(str(name)): as_json(item, depth + 1) for name, item in items if not isinstance(item, bytes)}
    if isinstance(value, list | tuple):
        return [as_json(item, depth + 1) for item in value if not isinstance(item, bytes)]
    return str(value).encode("utf-8", "replace").decode()


def as_name(name: str) -> str:
    r"""Return a file or member name as storable text: what is no UTF-8 as `\udcNN`, and no NUL, which ends a key.

    Equal to the name itself for every name that a manifest can hold.
    """
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
