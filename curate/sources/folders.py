"""Image folders: as they are, or described by a metadata file inside."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from curate.errors import SourceError
from curate.remote import Place, place
from curate.samples import Sample
from curate.sources.columns import Columns, Fields, as_name, make_sample
from curate.sources.listing import (
    Entry,
    each,
    fingerprint,
    has_image,
    is_image_name,
    is_outside,
    locate,
    read_image,
    scan_images,
    stat_entries,
    stat_entry,
)
from curate.sources.look import Look
from curate.sources.records import TABLES, read_table
from curate.sources.tables import PathReader, choose_columns

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def find_folder(look: Look) -> list[Place] | str:
    """Return a folder that holds images at any depth, or a metadata file."""
    if not look.is_folder:
        return "is a file, not a folder"
    if any(item.name in METADATA for item in look.files):
        return [look.path]
    if not any(is_image_name(item.name) for item in look.files) and not has_image(look.path):
        return "holds no image file at any depth, and no metadata.csv, .jsonl or .parquet"
    look.warn_unread(look.ending(*TABLES), "to have a table read, name it metadata.csv or give its own path")
    return [look.path]


def open_folder(folder: Place, columns: Columns, name: str) -> MetadataFolder | ImageFolder:
    """Return the source of a folder, by its metadata file if it has one."""
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise SourceError(f"the folder {folder} has several metadata files ({listed}): keep one of them")
    entries = scan_images(folder)
    if found:
        return MetadataFolder(folder, found[0], columns, entries, name)
    return ImageFolder(folder, columns, entries, name)


class ImageFolder:
    """Every image below a folder, sorted by relative path, which is the key.

    Where all images lie in sub-folders, one level deep and in two or more of them, the sub-folder's name is the label.
    """

    kind = "folder"

    def __init__(self, folder: Place, columns: Columns, entries: list[Entry], name: str) -> None:
        columns.require((), f"the folder {folder}, which holds no metadata.csv, .jsonl or .parquet,")
        self._names = [entry.name for entry in entries]
        self._has_classes = _has_classes(self._names)
        self.id = name
        self.root = str(folder)
        self.count: int | None = len(entries)
        self.fingerprint = fingerprint(columns, entries)

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on."""
        yield from each(self._sample, islice(self._names, start, None), self.root)

    def _sample(self, name: str) -> Sample:
        label = as_name(name.split("/", maxsplit=1)[0]) if self._has_classes else None
        return _bare_sample(self.id, self.root, name, label)


class MetadataFolder:
    """The images that a folder's metadata file lists, in its order, then those that it does not list, sorted.

    The key is the path as the metadata writes it. A path that leads out of the folder is refused unopened: unlike a
    lone table, a folder is downloaded whole. Links inside the folder are its owner's and are followed.
    """

    kind = "folder"

    def __init__(self, folder: Place, metadata: Place, columns: Columns, entries: list[Entry], name: str) -> None:
        table = read_table(metadata)
        self.id = name
        self.root = str(folder)
        names = choose_columns(columns, table.columns, metadata, captions=("caption", "text"))
        self._reader = PathReader(metadata, self.id, self.root, names, confined=True)
        paths = map(self._reader.path_of, table.rows())
        listed = {locate(self.root, path) for path in paths if path is not None}
        self._listed_count = table.height
        self._unlisted = [entry.name for entry in entries if entry.name not in listed]
        self.count: int | None = table.height + len(self._unlisted)
        self.fingerprint = fingerprint(columns, _every_entry(folder, metadata, entries, listed))

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; of the rows before it only the keys are looked at."""
        if start < self._listed_count:
            yield from self._reader.samples(read_table(self._reader.table), start)
        rest = islice(self._unlisted, max(0, start - self._listed_count), None)
        yield from each(lambda name: _bare_sample(self.id, self.root, name), rest, self.root)


def _bare_sample(source: str, root: str, name: str, label: str | None = None) -> Sample:
    """Return the sample of an image that no metadata describes.

    A name that is not UTF-8 cannot be stored as it is, so whoever reads the manifest could not open the file.
    """
    data, problem = read_image(place(root, name)) if as_name(name) == name else (b"", "unreadable_file")
    return make_sample(Fields(label=label), source=source, key=name, path=name, data=data, problem=problem)


def _has_classes(names: list[str]) -> bool:
    return all(name.count("/") == 1 for name in names) and len({name.split("/")[0] for name in names}) > 1


def _every_entry(folder: Place, metadata: Place, entries: list[Entry], listed: set[str]) -> Iterator[Entry]:
    """Yield the entries of the metadata file, of the images found, and of the listed files that no search finds."""
    yield from filter(None, [stat_entry(metadata, metadata.name)])
    yield from entries
    hidden = listed.difference(entry.name for entry in entries)
    yield from stat_entries(str(folder), sorted(name for name in hidden if not is_outside(name)))
