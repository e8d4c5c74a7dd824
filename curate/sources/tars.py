"""WebDataset tars, with the Parquet file that img2dataset writes beside each."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from curate.errors import SourceError
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
from curate.sources.listing import IMAGES, fingerprint, stat_entry
from curate.sources.records import read_table
from curate.sources.tarindex import Group, check_tar, index_tar

_LOG = logging.getLogger("curate")

_CAPTIONS = ("caption", "text")
_SUCCESS = (None, "success")
_SIDECARS_TRIED = 100  # JSON members looked at before a column that the user named counts as missing

Leftover = tuple[str, str, Row]  # key, problem, row


class TarSource:
    """The samples of one tar in its order, then the rows of its Parquet file that are not in the tar, by key.

    Rows are joined by key, never by position: img2dataset writes them as downloads finish, failures included. Where
    the Parquet file and a sample's JSON member both have a column, the Parquet file's value is taken unless it is
    null. Each pass reads the headers once, seeking over the images, and holds them only while it lasts; `count` is
    None before the first.
    """

    kind = "tar"

    def __init__(self, path: Path, columns: Columns, name: str) -> None:
        check_tar(path)
        self._path = path
        self._parquet = path.with_suffix(".parquet")
        self._columns = replace(columns, path=None)
        self.id = name
        self.root = str(path.parent)
        self.count: int | None = None
        files = (stat_entry(path.parent, name) for name in (path.name, self._parquet.name))
        self.fingerprint = fingerprint(columns, filter(None, files))

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; of those before it only the headers are read."""
        try:
            groups = index_tar(self._path)
            joined, leftovers = self._join({group.key for group in groups})
            self.count = len(groups) + len(leftovers)
            with self._path.open("rb") as file:
                self._require_columns(file, groups, joined, leftovers)
                for group, repeated in islice(_mark_repeats(groups), start, None):
                    yield self._sample(file, group, joined.get(group.key, {}), repeated)
        except OSError as error:
            raise SourceError(f"cannot read the tar {self._path}: {error.strerror}") from error
        for key, problem, row in islice(leftovers, max(0, start - len(groups)), None):
            yield self._leftover(key, problem, row)

    def _join(self, keys: set[str]) -> tuple[dict[str, Row], list[Leftover]]:
        """Return the Parquet file's rows by key, for the keys of the tar, and the rows left over, sorted by key."""
        if not self._parquet.is_file():
            return {}, []
        table = read_table(self._parquet)
        if "key" not in table.columns:
            _LOG.warning("%s has no column 'key': it is not joined to the tar beside it", self._parquet)
            return {}, []
        seen: set[str] = set()
        joined: dict[str, Row] = {}
        leftovers: list[Leftover] = []
        for ordinal, row in enumerate(table.rows()):
            key = as_text(row["key"]) or f"#{ordinal}"
            if key in seen:
                leftovers.append((key, "duplicate_key", row))
            elif key in keys:
                joined[key] = row
            else:
                problem = "missing_image" if row.get("status") in _SUCCESS else "download_failed"
                leftovers.append((key, problem, row))
            seen.add(key)
        return joined, sorted(leftovers, key=lambda leftover: leftover[0])

    def _require_columns(
        self, file: BinaryIO, groups: list[Group], joined: Mapping[str, Row], leftovers: list[Leftover]
    ) -> None:
        """Raise SourceError if a column that the user named is neither in the Parquet file nor in the JSON members."""
        if self._columns == Columns() or not (groups or leftovers):
            return
        row = next(iter(joined.values()), None) or (leftovers[0][2] if leftovers else {})
        seen = dict.fromkeys(row)
        sidecars = (group.parts["json"] for group in groups if "json" in group.parts)
        for offset, size in islice(sidecars, _SIDECARS_TRIED):
            seen.update(dict.fromkeys(_read_json(file, offset, size)))
        self._columns.require(seen, f"the tar {self._path}, its JSON members and Parquet file together,")

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

    def _leftover(self, key: str, problem: str, row: Row) -> Sample:
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


def _mark_repeats(groups: list[Group]) -> Iterator[tuple[Group, bool]]:
    """Yield each sample with whether its key came before."""
    seen: set[str] = set()
    for group in groups:
        yield group, group.key in seen
        seen.add(group.key)


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
