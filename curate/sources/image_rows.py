"""Rows of tables with the images inside, turned into samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from curate.cells.values import binary
from curate.remote import place
from curate.samples import Sample
from curate.sources.columns import Row, as_name, as_text, make_sample, read_fields
from curate.sources.layout import Layout
from curate.sources.listing import is_outside, locate, read_image
from curate.sources.records import as_frame

if TYPE_CHECKING:
    import pyarrow as pa

Place = tuple[str, int]  # of a value: path and row number, as `curate.cells` writes them


@dataclass(slots=True)
class RowReader:
    """Turns rows into samples, from the first on: keys that came before are remembered.

    confined: refuse a path that leads out of the root (`outside_root`) without opening it
    """

    source: str
    root: str
    layout: Layout
    confined: bool = True
    _seen: set[str] = field(default_factory=set)

    def skip(self, table: pa.Table, numbers: Sequence[int], count: int) -> int:
        """Remember the keys of the first `count` rows of a part; return how many it has. numbers: of its rows."""
        rows = rows_of(table, [self.layout.key] if self.layout.key else [])
        for number, row in zip(numbers, rows[:count], strict=False):
            self._key(row, number)
        return min(len(rows), count)

    def samples(self, table: pa.Table, places: Sequence[Place], numbers: Sequence[int]) -> Iterator[Sample]:
        """Yield the samples of a part. places: where each value lies, ("", 0) if nowhere; numbers: of its rows."""
        rows = rows_of(table, self.layout.readable)
        images = image_values(table.column(self.layout.image), self.layout.has_path)
        for number, row, (data, path), at in zip(numbers, rows, images, places, strict=True):
            key, repeated = self._key(row, number)
            yield self._sample(self.layout.row(row), key, repeated, data, as_text(path), at)

    def _key(self, row: Row, number: int) -> tuple[str, bool]:
        if self.layout.key is None:
            return str(number), False
        key = as_name(as_text(row.get(self.layout.key)) or f"#{number}")
        repeated = key in self._seen
        self._seen.add(key)
        return key, repeated

    def _sample(self, row: Row, key: str, repeated: bool, data: bytes | None, path: str | None, at: Place) -> Sample:
        fields = read_fields(row, self.layout.names, drop=(self.layout.key or "",))
        problem = "" if data is not None else "missing_image"
        location, number = at
        is_beside = data is None and path is not None
        if data is None and path is not None:
            location, number = locate(self.root, path), 0
            is_refused = self.confined and is_outside(location)
            data, problem = (None, "outside_root") if is_refused else read_image(place(self.root, location))
        return make_sample(
            fields,
            source=self.source,
            key=key,
            path=location,
            offset=number,
            data=data or b"",
            problem="duplicate_key" if repeated else problem,
            is_cell=not is_beside,
        )


def rows_of(table: pa.Table, columns: Sequence[str]) -> Sequence[Row]:
    """Return the values of some columns, row by row."""
    return as_frame(table.select(list(columns))).to_dicts() if columns else [{}] * table.num_rows


def image_values(column: pa.ChunkedArray, has_path: bool) -> Iterable[tuple[bytes | None, object]]:
    """Return the bytes and the path of each image, None for what it has not."""
    data = binary(column).to_pylist()
    paths = binary(column, "path").to_pylist() if has_path else [None] * len(data)
    return zip(data, paths, strict=True)
