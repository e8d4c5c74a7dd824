"""What a format's writer works with: the subset, the options, and one shard at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from curate.exports.images import Refused, Row, fetch_all
from curate.exports.names import Names, extension
from curate.exports.options import Options
from curate.exports.subset import Subset
from curate.exports.weights import repeats

if TYPE_CHECKING:
    from curate.exports.folder import Folder

Progress = Callable[[int, int | None], None]
PLACES = ("path", "offset", "size")  # columns that say where the bytes lie: of no use beside a copy of them
_TOGETHER = 1024  # rows whose names and repeats are made together


@dataclass
class Task:
    """One export: where from, where to, and how. `is_named`: rows become files, or members of one, named by keys."""

    subset: Subset
    options: Options
    out: Path | Any
    is_named: bool = False
    progress: Progress | None = None

    @cached_property
    def names(self) -> Names:
        """Return the file names of all rows."""
        return Names(self.subset)

    @property
    def columns(self) -> list[str]:
        """Return the manifest's columns in order, without where the bytes lie."""
        return [name for name in self.subset.schema if name not in PLACES]

    def row_shards(self, rows: int, limit: int | None = None) -> list[tuple[int, int]]:
        """Return ranges of at most `rows` rows; one ends at the row that brings its images to `limit` bytes.

        There is always one, if only an empty one.
        """
        count = self.subset.rows
        if limit is None:
            return [(i, min(i + rows, count)) for i in range(0, max(count, 1), rows)]
        ends = self._sizes().cumsum()
        found: list[tuple[int, int]] = []
        start = 0
        while start < count or not found:
            before = int(ends[start - 1]) if start else 0
            stop = min(int(np.searchsorted(ends, before + limit)) + 1, start + rows, count)
            found.append((start, stop))
            start = stop
        return found

    def _sizes(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        sizes, start = [], 0
        for frame in self.subset.frames(["size", "weight"]):
            size = frame["size"].fill_null(0).to_numpy().astype(np.int64)
            if self.options.repeats:
                size = size * repeats(frame["weight"].to_numpy(), start, self.options)
            sizes.append(size)
            start += frame.height
        return np.concatenate(sizes) if sizes else np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Item:
    """One row to write: its ordinal, values by name, a file name without extension, its bytes, its repeats."""

    ordinal: int
    row: Row
    name: str
    data: bytes
    copies: int

    @property
    def file(self) -> str:
        """Return the file name with the extension that the bytes ask for."""
        return f"{self.name}.{extension(self.data)}"


@dataclass
class Shard:
    """One shard in the making. Files are staged and appear together once it is whole."""

    number: int
    start: int
    stop: int
    stage: Path
    task: Task
    staged: dict[str, Path] = field(default_factory=dict)
    samples: int = 0
    bytes: int = 0
    problems: list[list[Any]] = field(default_factory=list)
    files: int = 0  # written by a library, not staged

    def file(self, name: str) -> Path:
        """Return the path under which to write what will be `name` in the export's folder."""
        return self.staged.setdefault(name, self.stage / f"{len(self.staged)}.part")

    def refuse(self, ordinal: int, row: Row, refused: Refused) -> None:
        """Note a row that cannot be exported."""
        self.problems.append([ordinal, row["uid"], row["source"], row["key"], refused.reason, str(refused)])

    def add(self, item: Item) -> None:
        """Count a row that was written, with its repeats."""
        self.samples += item.copies
        self.bytes += len(item.data) * item.copies

    def items(self) -> Iterator[Item]:
        """Yield the shard's rows with their bytes; those that are gone or have changed are noted instead."""
        for first, rows, names, copies in self.batches():
            for i, data in enumerate(fetch_all(rows, self.task.subset.roots)):
                self.tick(first + i)
                if isinstance(data, Refused):
                    self.refuse(first + i, rows[i], data)
                elif copies[i]:
                    item = Item(first + i, rows[i], names[i], data, copies[i])
                    self.add(item)
                    yield item

    def batches(self) -> Iterator[tuple[int, list[dict[str, Any]], list[str], list[int]]]:
        """Yield the shard's rows by the thousand: the first ordinal, rows, file names, repeats."""
        subset, options = self.task.subset, self.task.options
        for first in range(self.start, self.stop, _TOGETHER):
            rows = [row for _, row in subset.records(list(subset.schema), first, min(first + _TOGETHER, self.stop))]
            copies = [1] * len(rows)
            if options.repeats:
                copies = repeats(np.array([row["weight"] for row in rows], np.float32), first, options).tolist()
            keys = [row["key"] for row in rows]
            names = self.task.names.of(keys, first) if self.task.is_named else [""] * len(rows)
            yield first, rows, names, copies

    def tick(self, ordinal: int) -> None:
        """Move the progress bar."""
        if self.task.progress is not None:
            self.task.progress(ordinal + 1, self.task.subset.rows)


class Writer(Protocol):
    """A format that is written shard by shard."""

    def plan(self) -> list[tuple[int, int]]:
        """Return what each shard covers, as a function of manifest and options alone."""
        ...

    def shard(self, shard: Shard) -> Any:
        """Write one shard's files; return what `finish` will ask for."""
        ...

    def finish(self, folder: Folder) -> None:
        """Write what spans all shards."""
        ...


class ListWriter(Protocol):
    """A format that is one file, written in one go from the manifest alone."""

    def write(self, path: Path, refuse: Callable[[int, Mapping[str, Any], str], None]) -> int:
        """Write the file; return the number of its samples. refuse: takes rows that it cannot hold."""
        ...
