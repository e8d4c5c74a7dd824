"""WebDataset tars, with the Parquet file that img2dataset writes beside each."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import BinaryIO

from curate.errors import SourceError
from curate.remote import Place
from curate.samples import Sample
from curate.sources.columns import (
    Columns,
    Fields,
    Row,
    as_text,
    first_present,
    make_sample,
    read_alternatives,
    read_fields,
)
from curate.sources.listing import IMAGES, fingerprint, is_there, stat_entry
from curate.sources.look import Look, is_packed
from curate.sources.records import read_table
from curate.sources.remembered import Group
from curate.sources.tarindex import check_tar, index_tar

_LOG = logging.getLogger("curate")

_CAPTIONS = ("caption", "text")
_SUCCESS = (None, "success")
_SIDECARS_TRIED = 100  # JSON members looked at before a column that the user named counts as missing

Line = tuple[str, bool, Row]  # key, whether it came before, row


def find_tars(look: Look) -> list[Place] | str:
    """Return a tar itself, or the tars of a folder."""
    tars = look.ending(".tar")
    if tars and look.is_folder:
        look.warn_unread([item for item in look.files if is_packed(item)], "decompress them to have them read")
    return tars or ("holds no .tar" if look.is_folder else "does not end in .tar")


class TarSource:
    """The samples of one tar in its order, then the rows of its Parquet file that are not in the tar, by key.

    Rows are joined by key, never by position: img2dataset writes them as downloads finish, failures included. Where
    the Parquet file and a sample's JSON member both have a column, the Parquet file's value is taken unless it is
    null. Each pass reads the headers as it goes, seeking over images that are not asked for; `count` is None before the
    first that was complete.
    """

    kind = "tar"

    def __init__(self, path: Place, columns: Columns, name: str) -> None:
        check_tar(path)
        if columns.path is not None:
            raise SourceError(f"{path} is read as tar, whose images are its members: --path is for tables of paths")
        self._path = path
        self._parquet = path.with_suffix(".parquet")
        self._columns = columns
        self.id = name
        self.root = str(path.parent)
        self.count: int | None = None
        files = [path, self._parquet] if is_there(self._parquet) else [path]
        entries = (stat_entry(file, file.name) for file in files)
        self.fingerprint = fingerprint(columns, filter(None, entries))

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; of those before it only the headers are read."""
        count = 0
        try:
            lines = self._lines()
            rows = {key: row for key, repeated, row in lines if not repeated}
            seen: set[str] = set()
            with self._path.open("rb") as file:
                groups = self._checked(file, index_tar(self._path, file), lines)
                for count, group in enumerate(groups, 1):
                    repeated = group.key in seen
                    seen.add(group.key)
                    if count > start:
                        yield self._sample(file, group, rows.get(group.key, {}), repeated)
        except OSError as error:
            raise SourceError(f"cannot read the tar {self._path}: {error.strerror}") from error
        leftovers = [line for line in lines if line[1] or line[0] not in seen]
        self.count = count + len(leftovers)
        for line in islice(leftovers, max(0, start - count), None):
            yield self._leftover(*line)

    def _lines(self) -> list[Line]:
        """Return the Parquet file's rows, sorted by key."""
        if not is_there(self._parquet):
            return []
        table = read_table(self._parquet)
        if "key" not in table.columns:
            _LOG.warning("%s has no column 'key': it is not joined to the tar beside it", self._parquet)
            return []
        seen: set[str] = set()
        lines: list[Line] = []
        for ordinal, row in enumerate(table.rows()):
            key = as_text(row["key"]) or f"#{ordinal}"
            lines.append((key, key in seen, row))
            seen.add(key)
        return sorted(lines, key=lambda line: line[0])

    def _checked(self, file: BinaryIO, groups: Iterator[Group], lines: list[Line]) -> Iterator[Group]:
        """Return the samples; SourceError if a column that the user named is neither in the table nor in the JSON."""
        if self._columns == Columns():
            return groups
        seen: dict[str, None] = dict.fromkeys(lines[0][2]) if lines else {}
        looked: list[Group] = []
        tried = 0
        for group in groups:
            looked.append(group)
            if "json" in group.parts:
                seen.update(dict.fromkeys(_read_json(file, *group.parts["json"])))
                tried += 1
            if tried == _SIDECARS_TRIED:
                break
        if looked or lines:
            self._columns.require(seen, f"the tar {self._path}, its JSON members and Parquet file together,")
        return chain(looked, groups)

    def _sample(self, file: BinaryIO, group: Group, row: Row, repeated: bool) -> Sample:
        parts = group.parts
        sidecar = _read_json(file, *parts["json"]) if "json" in parts else {}
        row = {**sidecar, **{name: value for name, value in row.items() if value is not None or name not in sidecar}}
        text = _read_text(file, *parts["txt"]) if "txt" in parts else None
        label = _read_text(file, *parts["cls"]) if "cls" in parts else None
        image = first_present(IMAGES, parts)
        offset, size = parts[image] if image else (0, 0)
        problem = "duplicate_key" if repeated else "" if image else "missing_image"
        return make_sample(
            self._fields(row, text, label),
            source=self.id,
            key=group.key,
            path=self._path.name,
            offset=offset,
            data=_read(file, offset, size),
            problem=problem,
        )

    def _leftover(self, key: str, repeated: bool, row: Row) -> Sample:
        missing = "missing_image" if row.get("status") in _SUCCESS else "download_failed"
        problem = "duplicate_key" if repeated else missing
        return make_sample(self._fields(row), source=self.id, key=key, path=self._path.name, problem=problem)

    def _fields(self, row: Row, text: str | None = None, label: str | None = None) -> Fields:
        """Return what a row says; text and label: its `.txt` and `.cls`, unless the user named a column."""
        names = self._columns
        if names.caption is None:
            names = replace(names, caption=first_present(_CAPTIONS, row))
        fields = read_fields(row, names, drop=("key",))
        if self._columns.caption is None and text is not None:
            if fields.caption != text:  # then the row's own caption stays in the metadata
                fields = read_fields(row, self._columns, drop=("key",))
            fields = replace(fields, caption=text, alternatives=read_alternatives(row, names, text))
        return fields if self._columns.label else replace(fields, label=label)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _read_text(file: BinaryIO, offset: int, size: int) -> str | None:
    return as_text(_read(file, offset, size).decode("utf-8", "replace"))


def _read_json(file: BinaryIO, offset: int, size: int) -> Row:
    """Return a sidecar's object, or what is wrong with it under `json_error`: a bad sidecar does not cost the image."""
    try:
        row = json.loads(_read(file, offset, size))
    except (ValueError, RecursionError) as error:
        return {"json_error": str(error) or type(error).__name__}
    return row if isinstance(row, dict) else {"json_error": f"{type(row).__name__} instead of an object"}
