"""Tables with the images inside: Parquet and Arrow files as Hugging Face `datasets` writes them, and Lance tables."""

from __future__ import annotations

from collections.abc import Iterator

from curate.cells import Cells, cell_path, open_cells
from curate.errors import SourceError
from curate.remote import Place, Remote
from curate.samples import Sample
from curate.sources.columns import Columns, as_text
from curate.sources.image_rows import RowReader
from curate.sources.layout import find_image, lay_out
from curate.sources.listing import Entry, fingerprint, is_outside, locate, stat_entries, stat_entry
from curate.sources.look import Look
from curate.sources.records import named_errors

_FILES = (".parquet", ".arrow")


def find_image_tables(look: Look) -> list[Place] | str:
    """Return a file with a column of images; or such files of a folder, of its `data`, or of its folders."""
    files = look.ending(*_FILES)
    if look.is_folder and not files:
        inside = [folder for folder in look.folders if folder.name == "data"]
        inside = inside or ([] if look.has_image else look.few_folders)
        files = [file for folder in inside for file in Look(folder).ending(*_FILES)]
    if not files:
        return f"{'holds' if look.is_folder else 'is'} no Parquet or Arrow file"
    try:
        with named_errors(files[0]):
            image = find_image(open_cells(files[0]).schema, look.columns.path)
    except SourceError as error:
        return f"has tables, of which one cannot be read ({error})"
    if image is None:
        return f"has no column of images{f' in {files[0].name}' if look.is_folder else ''}"
    return files


def find_lance(look: Look) -> list[Place] | str:
    """Return a Lance table, or the Lance tables of a folder."""
    if look.path.suffix.lower() == ".lance" and look.is_folder:
        return [look.path]
    found = [folder for folder in look.folders if folder.suffix.lower() == ".lance"]
    return found or "is no folder that ends in .lance, and holds none"


class ImageTable:
    """The rows of a table, in its order.

    A row's key is its `key` where there is such a column, else its row number. Bytes are found again as `curate.cells`
    says; a row without bytes but with a path is the file there, which must lie in the table's folder.
    """

    kind = "hf"

    def __init__(self, path: Place, columns: Columns, name: str) -> None:
        self._path = path
        self.id = name
        self.root = str(path.parent)
        with named_errors(path):
            cells = open_cells(path)
            self._layout = lay_out(cells.schema, columns, path)
            self.count: int | None = cells.count
            self.fingerprint = fingerprint(columns, [*self._own_entries(cells), *self._files_beside(cells)])

    def _own_entries(self, cells: Cells) -> Iterator[Entry]:
        yield from filter(None, [stat_entry(self._path, self._path.name)])

    def _files_beside(self, cells: Cells) -> Iterator[Entry]:
        """Yield the entries of files that rows without bytes name, so that a mended file is seen.

        Not in a store: asking for the paths of every row group would take as many requests as reading it all.
        """
        is_near = not isinstance(self._path, Remote) and self._layout.has_path
        given = filter(None, map(as_text, cells.paths(self._layout.image) if is_near else ()))
        located = dict.fromkeys(locate(self.root, path) for path in given)
        yield from stat_entries(self.root, [path for path in located if not is_outside(path)])

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; of the rows before it only the keys are read."""
        with named_errors(self._path):
            cells, layout = open_cells(self._path), self._layout
            reader = RowReader(self.id, self.root, layout)
            path = cell_path(self._path.name, layout.image)
            skipped = 0
            if layout.key is not None and start:
                for numbers, table in cells.batches([layout.key], 0):
                    skipped += reader.skip(table, numbers, start - skipped)
                    if skipped >= start:
                        break
            for numbers, table in cells.batches([*layout.readable, layout.image], start):
                yield from reader.samples(table, [(path, number) for number in numbers], numbers)


class LanceTable(ImageTable):
    """The rows of a Lance table, in its order. What has changed is told by its version."""

    kind = "lance"

    def _own_entries(self, cells: Cells) -> Iterator[Entry]:
        yield Entry(self._path.name, cells.count, getattr(cells, "version", 0))
