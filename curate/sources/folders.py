"""Image folders: as they are, or described by a metadata file inside."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from curate.errors import SourceError
from curate.remote import Place, place
from curate.samples import Sample
from curate.sources.columns import Columns, Fields, as_name, as_text, make_sample
from curate.sources.listing import (
    Entry,
    each,
    fingerprint,
    is_image_name,
    is_outside,
    locate,
    read_image,
    scan,
    stat_entries,
)
from curate.sources.look import Look
from curate.sources.records import TABLES, read_table
from curate.sources.tables import PathReader, choose_columns

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


# Folders that `datasets` takes for splits, if all folders are such.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def find_folder(look: Look) -> list[Place] | str:
    """Return a folder that holds images at any depth, or a metadata file."""
    if not look.is_folder:
        return "is a file, not a folder"
    if any(item.name in METADATA for item in look.files):
        return [look.path]
    if not look.has_image:
        return "holds no image file at any depth, and no metadata.csv, .jsonl or .parquet"
    look.warn_unread(look.ending(*TABLES), "to have a table read, name it metadata.csv or give its own path")
    return [look.path]


def open_folder(folder: Place, columns: Columns, name: str) -> MetadataFolder | ImageFolder:
    """Return the source of a folder, by its metadata files if it has any."""
    found = scan(folder, lambda path: is_image_name(path) or _is_metadata(path))
    metadata = [entry for entry in found if _is_metadata(entry.name)]
    entries = [entry for entry in found if not _is_metadata(entry.name)]
    if metadata:
        return MetadataFolder(folder, metadata, columns, entries, name)
    return ImageFolder(folder, columns, entries, name)


def _is_metadata(path: str) -> bool:
    return path.rpartition("/")[2] in METADATA


class ImageFolder:
    """Every image below a folder, sorted by relative path, which is the key.

    As Hugging Face `datasets` lays folders out: where all images lie equally deep, and in folders of more than one
    name, that name is the label. Where the uppermost folders are `train`, `test` and the like, they are splits, kept as
    metadata `split`, and no labels.
    """

    kind = "folder"

    def __init__(self, folder: Place, columns: Columns, entries: list[Entry], name: str) -> None:
        columns.require((), f"the folder {folder}, which holds no metadata.csv, .jsonl or .parquet,")
        self._names = [entry.name for entry in entries]
        self._has_splits = _has_splits(self._names)
        self._has_classes = _has_classes(self._names, self._has_splits)
        self.id = name
        self.root = str(folder)
        self.count: int | None = len(entries)
        self.fingerprint = fingerprint(columns, entries)

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on."""
        yield from each(self._sample, islice(self._names, start, None), self.root)

    def _sample(self, name: str) -> Sample:
        label = as_name(name.split("/")[-2]) if self._has_classes else None
        return _bare_sample(self.id, self.root, name, label, self._has_splits)


class MetadataFolder:
    """The images that a folder's metadata files list, in their order, then those that none lists, sorted.

    Paths are relative to the metadata file that names them, the deepest files first, so that of two that name an image
    the one nearer to it counts. The key is the path as the metadata writes it, below the file's own folder. A path that
    leads out of the folder is refused unopened: unlike a lone table, a folder is downloaded whole. Links inside the
    folder are its owner's and are followed.
    """

    kind = "folder"

    def __init__(self, folder: Place, metadata: list[Entry], columns: Columns, entries: list[Entry], name: str) -> None:
        self.id = name
        self.root = str(folder)
        self._readers: list[tuple[PathReader, int]] = []
        listed: set[str] = set()
        has_splits = _has_splits([entry.name for entry in entries])
        for base, file in _one_per_folder(folder, metadata):
            table = read_table(file)
            names = choose_columns(columns, table.columns, file, captions=("caption", "text"))
            split_of = split_name if has_splits else None
            reader = PathReader(file, self.id, self.root, names, confined=True, base=base, split_of=split_of)
            self._readers.append((reader, table.height))
            others = [column for column in table.columns if column.endswith("_file_name")]
            for row in table.rows():
                paths = [reader.path_of(row), *(as_text(row.get(column)) for column in others)]
                listed.update(locate(self.root, reader.below(path)) for path in paths if path is not None)
        self._unlisted = [entry.name for entry in entries if entry.name not in listed]
        self._has_splits = has_splits
        self.count: int | None = sum(count for _, count in self._readers) + len(self._unlisted)
        hidden = sorted(listed.difference(entry.name for entry in entries))  # files that no search finds
        beside = stat_entries(self.root, [path for path in hidden if not is_outside(path)])
        self.fingerprint = fingerprint(columns, [*metadata, *entries, *beside])

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; of the rows before it only the keys are looked at."""
        seen: set[str] = set()
        if start < sum(count for _, count in self._readers):
            for reader, count in self._readers:
                yield from reader.samples(read_table(reader.table), max(0, start), seen)
                start -= count
        else:
            start -= sum(count for _, count in self._readers)
        rest = islice(self._unlisted, max(0, start), None)
        yield from each(lambda name: _bare_sample(self.id, self.root, name, None, self._has_splits), rest, self.root)


def split_name(path: str) -> str | None:
    """Return the split that a path below a folder belongs to, by the name of the uppermost folder."""
    return _SPLITS.get(path.split("/", maxsplit=1)[0]) if "/" in path else None


def _bare_sample(source: str, root: str, name: str, label: str | None = None, has_splits: bool = False) -> Sample:
    """Return the sample of an image that no metadata describes.

    A name that is not UTF-8 cannot be stored as it is, so whoever reads the manifest could not open the file.
    """
    data, problem = read_image(place(root, name)) if as_name(name) == name else (b"", "unreadable_file")
    fields = Fields(label=label, meta={"split": split_name(name)} if has_splits else {})
    return make_sample(fields, source=source, key=name, path=name, data=data, problem=problem)


def _has_splits(names: list[str]) -> bool:
    return bool(names) and all(split_name(name) for name in names)


def _has_classes(names: list[str], has_splits: bool) -> bool:
    depths = {name.count("/") for name in names}
    return len(depths) == 1 and depths.pop() > has_splits and len({name.split("/")[-2] for name in names}) > 1


def _one_per_folder(folder: Place, metadata: list[Entry]) -> list[tuple[str, Place]]:
    """Return each metadata file with its folder below the source's, the deepest first; SourceError for two in one."""
    found: dict[str, Place] = {}
    for entry in sorted(metadata, key=lambda entry: (-entry.name.count("/"), entry.name)):
        base, _, name = entry.name.rpartition("/")
        if base in found:
            where = folder / base if base else folder
            raise SourceError(
                f"the folder {where} has several metadata files ({found[base].name}, {name}): keep one of them"
            )
        found[base] = place(folder, *base.split("/"), name) if base else place(folder, name)
    return list(found.items())
