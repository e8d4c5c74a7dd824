"""`datasets.Dataset` objects: their rows, and the files on disk that hold them, where there are such."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.cells import cell_path, open_cells
from curate.errors import UsageError
from curate.samples import Sample
from curate.sources.columns import Columns
from curate.sources.image_rows import Place, RowReader
from curate.sources.layout import lay_out
from curate.sources.listing import Entry, fingerprint, locate, stat_entries
from curate.sources.records import named_errors

_BATCH = 64
_NOWHERE = ("", 0)


def is_dataset(given: object) -> bool:
    """Tell whether an object is of the library `datasets`, without importing it."""
    return any(base.__module__.partition(".")[0] == "datasets" for base in type(given).__mro__)


class DatasetSource:
    """The rows of a `datasets.Dataset`, in its order; their keys are its `key` column, else their numbers.

    A data set that its Arrow files hold whole, rearranged or not, lies there, and manifests point into the files. One
    in memory, or a part of its files cut out by `select`, has no place: its rows are curated, but their images can only
    be had from the object, by key. Its id is the name that it was loaded by, and its split.

    Raises UsageError for what is no such object, SourceError if it has no column of images.
    """

    kind = "dataset"

    def __init__(self, dataset: Any, columns: Columns) -> None:
        if type(dataset).__name__ != "Dataset":
            advice = "give one of its splits" if isinstance(dataset, dict) else "save it as Parquet and give the files"
            raise UsageError(f"a datasets.{type(dataset).__name__} is no source: {advice}")
        self._dataset = dataset
        with named_errors(Path("the data set")):
            self._layout = lay_out(dataset.data.schema.with_metadata(_metadata(dataset)), columns, "the data set")
            self._files = _files(dataset, self._layout.image)
        info = dataset.info
        self.id = f"{info.dataset_name or info.builder_name or 'dataset'}/{dataset.split or 'all'}"
        self.root = str(self._files[0][0].parent) if self._files else ""
        self.count: int | None = len(dataset)
        files = stat_entries(self.root, [str(path) for path, _ in self._files])
        self.fingerprint = fingerprint(columns, [Entry(self.id, len(dataset), str(dataset._fingerprint)), *files])

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; of the rows before it only the keys are read."""
        layout, reader = self._layout, RowReader(self.id, self.root, self._layout, confined=False)
        with named_errors(Path("the data set")):
            if layout.key is not None:
                keys = self._dataset.with_format("arrow", columns=[layout.key])
                for first in range(0, start, _BATCH):
                    reader.skip(keys[first : min(first + _BATCH, start)], range(first, start), start - first)
            table = self._dataset.with_format("arrow", columns=[*layout.readable, layout.image])
            for first in range(start, len(self._dataset), _BATCH):
                numbers = range(first, min(first + _BATCH, len(self._dataset)))
                yield from reader.samples(table[numbers.start : numbers.stop], self._places(numbers), numbers)

    def _places(self, numbers: range) -> list[Place]:
        """Return path and row of the values of some rows; nowhere for a data set that lies nowhere."""
        if not self._files:
            return [_NOWHERE] * len(numbers)
        order = self._dataset._indices
        rows = numbers if order is None else order.column(0).slice(numbers.start, len(numbers)).to_pylist()
        return [self._place(row) for row in rows]

    def _place(self, row: int) -> Place:
        for path, count in self._files:
            if row < count:
                return cell_path(locate(self.root, str(path)), self._layout.image), row
            row -= count
        return _NOWHERE


def _metadata(dataset: Any) -> dict[bytes, bytes]:
    """Return the schema's metadata with the data set's own features: those in its files may be older."""
    own: dict[bytes, bytes] = dataset.features.arrow_schema.metadata or {}
    return own


def _files(dataset: Any, image: str) -> list[tuple[Path, int]]:
    """Return the files that hold the whole data set one after the other, with their rows; none where none do.

    Checked by the images of the first and the last row: what `datasets` tells of its files it tells of parts too.
    """
    found = []
    for file in dataset.cache_files:
        cells = open_cells(Path(file["filename"]))
        if image not in cells.schema.names:
            return []
        found.append((Path(file["filename"]).resolve(), cells.count))
    whole = dataset.data.num_rows
    if not found or sum(count for _, count in found) != whole or not whole:
        return []
    column = dataset.data.column(image)
    for (path, count), row, own in ((found[0], 0, 0), (found[-1], found[-1][1] - 1, whole - 1)):
        cells = open_cells(path)
        theirs = next(iter(cells.batches([image], row)))[1].column(0)[0].as_py() if count else None
        if theirs != column[own].as_py():
            return []
    return found
