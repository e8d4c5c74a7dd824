"""Where samples come from: tars, image folders and tables, told apart by what is there.

Every source yields its rows in a fixed order and can begin at any of them without reading the images before it. What
a source itself knows to be wrong with a row (`missing_file`, `missing_image`, `unreadable_file`, `outside_root`,
`download_failed`, `duplicate_key`) is that sample's `problem`; a source that cannot be read at all is a SourceError.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from curate.errors import RemoteError, SourceError
from curate.remote import Place, Remote, place
from curate.samples import Source
from curate.sources.columns import Columns
from curate.sources.folders import ImageFolder, MetadataFolder
from curate.sources.listing import Names, has_image, is_image_name, list_folder, scan_images
from curate.sources.records import TABLES
from curate.sources.tables import TableSource
from curate.sources.tars import TarSource

__all__ = ["Columns", "open_sources"]

_LOG = logging.getLogger("curate")

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_COMPRESSED_TAR = re.compile(r"\.(tgz|tbz2?|txz|tzst|tar\.\w+)$", re.IGNORECASE)
_BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<words>[^{}]*,[^{}]*))\}")
_MOST_EXPANSIONS = 1_000_000
_KINDS = f"a .tar, a table ({', '.join(TABLES)}), a folder of tars, of images or of tables"


def open_sources(
    paths: Sequence[str | Place], columns: Columns | None = None, saved: Mapping[str, str] | None = None
) -> list[Source]:
    """Return the sources that some paths stand for, in the order of the paths; each file or folder once.

    A path is a tar, a table, a folder, or a pattern such as `shards/{00000..00099}.tar`, on disk or behind a URL such
    as `s3://bucket/shards` (of a web server, `https://`, files only). A folder is, by what is in
    it and in this order: its tars, one source each; its metadata file and images; its images at any depth; its tables.
    saved: {id: root} of the sources that a pool knows; they keep their ids, and no other source gets one of them.

    Raises SourceError if a path is missing, unreadable, empty or of an unknown kind, or lacks a named column.
    """
    columns = columns or Columns()
    found: dict[Place, Place] = {}  # by what they resolve to
    names = Names(saved or {})
    try:
        for given in paths:
            for path in _expand(given):
                for part in _parts(path):
                    found.setdefault(part.resolve(), part)
        _check_apart(found)
        opened = [_open(part, columns, names) for part in found.values()]
        remote = any(isinstance(path, Remote) for path in found)
        if not remote:
            return [make() for make in opened]
        with ThreadPoolExecutor(16, "curate-open") as threads:  # not those of the requests that each waits for
            return list(threads.map(lambda make: make(), opened))
    except RemoteError as error:
        raise SourceError(str(error)) from None


def _check_apart(paths: Iterable[Place]) -> None:
    """Raise SourceError where URLs differ only in what is never stored: their samples could not be told apart."""
    [(told, times)] = Counter(map(str, paths)).most_common(1) or [("", 0)]
    if times > 1:
        raise SourceError(
            f"{times} of the URLs given are {told} but for a query that holds a signature or key: such queries are not"
            " stored, so their samples could not be told apart; give one of them, or copy the files"
        )


def _open(path: Place, columns: Columns, names: Names) -> Callable[[], Source]:
    """Name one tar, table or image folder, its own folder resolved, and return what opens it.

    A link to a file keeps its name.
    """
    if path.is_dir():
        folder = path.resolve()
        return partial(_open_folder, folder, columns, names.of_folder(folder))
    path = path.resolve() if isinstance(path, Remote) else path.parent.resolve() / path.name
    kind = TarSource if path.suffix.lower() == ".tar" else TableSource
    return partial(kind, path, columns, names.of_file(path))


def _open_folder(folder: Place, columns: Columns, name: str) -> Source:
    found = [folder / name for name in _METADATA if (folder / name).is_file()]
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise SourceError(f"the folder {folder} has several metadata files ({listed}): keep one of them")
    entries = scan_images(folder)
    if found:
        return MetadataFolder(folder, found[0], columns, entries, name)
    return ImageFolder(folder, columns, entries, name)


def _parts(path: Place) -> list[Place]:
    """Return the tars, tables or image folder that one existing path stands for."""
    if not _is_folder(path):
        return [_supported(path)]
    files = [item for item in list_folder(path) if not item.is_dir()]
    tars = [item for item in files if item.suffix.lower() == ".tar"]
    tables = [item for item in files if item.suffix.lower() in TABLES]
    packed = [item for item in files if _COMPRESSED_TAR.search(item.name)]
    if tars:
        _warn_unread(path, packed, "decompress them to have them read")
        return tars
    if any(item.name in _METADATA for item in files):
        return [path]
    if any(is_image_name(item.name) for item in files) or has_image(path):
        _warn_unread(path, tables, "to have a table read, name it metadata.csv or give its own path")
        return [path]
    if tables:
        return tables
    if packed:
        return [_supported(packed[0])]
    raise SourceError(f"the folder {path} is empty of images at any depth, of tars and of tables; give {_KINDS}")


def _is_folder(path: Place) -> bool:
    """Tell whether a path is a folder; SourceError if it is nothing, or nothing that we may look at."""
    if isinstance(path, Remote):
        if path.is_dir():
            return True
        path.status()
        return False
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"cannot open {path}: {reason}; give {_KINDS}") from error
    return path.is_dir()


def _supported(path: Place) -> Place:
    """Return a file's path if its extension is one that we read, else raise SourceError."""
    if _COMPRESSED_TAR.search(path.name):
        raise SourceError(f"{path} is a compressed tar, whose images have no place in the file: decompress it first")
    if path.suffix.lower() not in (".tar", *TABLES):
        raise SourceError(f"{path} is of an unknown kind (extension {path.suffix!r}); give {_KINDS}")
    return path


def _warn_unread(folder: Place, items: list[Place], advice: str) -> None:
    if items:
        names = ", ".join(item.name for item in items[:3]) + (", ..." if len(items) > 3 else "")
        _LOG.warning("%s: %d files are not read (%s): %s", folder, len(items), names, advice)


def _expand(given: str | Place) -> Iterator[Place]:
    """Yield the paths of a brace pattern, `{000..123}` or `{a,b}`, in order; a file of that very name comes first."""
    whole, pattern = place(given), str(given)
    match = None if isinstance(given, Remote) else _BRACES.search(pattern)
    if match is None or (isinstance(whole, Path) and _exists(whole)):
        yield whole
        return
    for word in _words(match):
        yield from _expand(pattern[: match.start()] + word + pattern[match.end() :])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _words(match: re.Match[str]) -> Iterator[str]:
    if match["words"] is not None:
        yield from match["words"].split(",")
        return
    first, last = int(match["first"]), int(match["last"])
    if abs(last - first) >= _MOST_EXPANSIONS:
        raise SourceError(f"the pattern {match[0]} stands for {abs(last - first) + 1:,} paths: that is too many")
    width = len(match["first"]) if match["first"].startswith("0") or match["last"].startswith("0") else 0
    step = 1 if first <= last else -1
    for number in range(first, last + step, step):
        yield str(number).zfill(width)
