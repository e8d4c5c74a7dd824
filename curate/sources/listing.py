"""The files behind a source: finding them, reading one, and the fingerprint of them all."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from curate.errors import RemoteDeniedError, RemoteError, SourceError, UnknownSchemeError, UsageError
from curate.ranges import ahead
from curate.remote import Place, Remote, Status, is_url, join, place
from curate.sources.columns import Columns, as_name

_LOG = logging.getLogger("curate")

T = TypeVar("T")
U = TypeVar("U")

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "ppm", "dcm")
_MOST_LOOKED_UP = 64  # files of one remote folder that are looked at one by one


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its name relative to the source's root in POSIX form, its size in bytes, when it was last written.

    stamp: the time in ns; of a remote file, its entity tag, or its time as the server writes it
    """

    name: str
    size: int
    stamp: int | str


def stat_entry(path: Place, name: str) -> Entry | None:
    """Return the entry of a file under a name, or None where there is none that can be looked at."""
    if isinstance(path, Remote):
        try:
            return Entry(name, *path.status())
        except (FileNotFoundError, UnknownSchemeError):
            return None
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return Entry(name, status.st_size, status.st_mtime_ns)


def stat_entries(root: str, names: Iterable[str]) -> Iterator[Entry]:
    """Yield the entries of files that a table names, sizes of -1 for those that are not there.

    Many files in one folder of a store are looked up in its listing. Files behind a web server are not looked at:
    it lists nothing, and a request for each would cost as much as reading them.
    """
    names = list(names)
    found: dict[str, Entry | None] = {}
    folders: dict[Remote, list[str]] = {}
    for name in names:
        at = place(root, name)
        if isinstance(at, Path):
            found[name] = stat_entry(at, name)
        elif at.is_listable:
            folders.setdefault(at.parent, []).append(name)
    for folder, inside in folders.items():
        if len(inside) > _MOST_LOOKED_UP:
            there = _listing(folder)
            pairs: Iterable[Entry | Status | None] = (there.get(name.rpartition("/")[2]) for name in inside)
        else:
            pairs = ahead(lambda name: stat_entry(place(root, name), name), inside)
        for name, status in zip(inside, pairs, strict=True):
            found[name] = Entry(name, status.size, status.stamp) if status else None
    for name in names:
        yield found.get(name) or Entry(name, -1, -1)


def _listing(folder: Remote) -> dict[str, Status]:
    try:
        return {item.name: item.status() for item in folder.iterdir() if item.is_file()}
    except UnknownSchemeError:
        return {}


def is_there(path: Place) -> bool:
    """Tell whether there is a file that need not be; one that may not be looked at counts as none, with a warning."""
    try:
        return path.is_file()
    except RemoteDeniedError as error:
        _LOG.warning("%s; going on without it", error)
        return False


def each(work: Callable[[T], U], items: Iterable[T], root: str) -> Iterator[U]:
    """Yield work(item) in order; where the root is remote, several at a time."""
    return ahead(work, items) if is_url(root) else map(work, items)


def list_folder(folder: Place) -> list[Place]:
    """Return what lies directly in a folder and is not hidden, by name."""
    try:
        items: list[Place] = [item for item in folder.iterdir() if not item.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"cannot list the folder {folder}: {error.strerror}") from error
    return sorted(items, key=lambda item: item.name)


def scan(folder: Place, wanted: Callable[[str], bool]) -> list[Entry]:
    """Return the files below a folder whose relative path is wanted, sorted by it.

    Hidden files and folders are skipped. Links to folders are followed unless they lead to a folder above themselves;
    a link to nowhere is listed, with size 0, so that its image counts as missing. Raises SourceError if a folder
    cannot be listed.
    """
    found = _find(folder, wanted) if isinstance(folder, Remote) else _walk(folder, "", (), wanted)
    return sorted(found, key=lambda entry: entry.name)


def has_image(folder: Place) -> bool:
    """Tell whether there is an image file below a folder; stops at the first."""
    if isinstance(folder, Remote):
        items = [item for item in folder.iterdir() if not item.name.startswith(".")]
        folders = [item for item in items if item.is_dir()]
        return any(is_image_name(item.name) for item in items) or any(has_image(item) for item in folders)
    return next(_walk(folder, "", (), is_image_name), None) is not None


def _find(folder: Remote, wanted: Callable[[str], bool]) -> Iterator[Entry]:
    """Yield the files below a prefix that are wanted, from one listing."""
    for name, status in folder.find():
        if wanted(name) and not any(part.startswith(".") for part in name.split("/")):
            yield Entry(name, *status)


def _walk(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...], wanted: Callable[[str], bool]
) -> Iterator[Entry]:
    """Yield the files below a folder that are wanted; above: device and inode of the folders that led here."""
    try:
        status = folder.stat()
        with os.scandir(folder) as found:
            items = [item for item in found if not item.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"cannot list the folder {folder}: {error.strerror}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for item in items:
        name = prefix + item.name
        if item.is_dir():
            yield from _walk(folder / item.name, name + "/", (*above, here), wanted)
        elif wanted(name):
            entry = _entry(item, name)
            if entry is not None:
                yield entry


def _entry(item: os.DirEntry[str], name: str) -> Entry | None:
    try:
        status = item.stat()
    except OSError:  # a link to nowhere
        return Entry(name, 0, 0)
    return Entry(name, status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def is_image_name(name: str) -> bool:
    """Tell whether a name ends like an image file."""
    return name.rpartition(".")[2].lower() in IMAGES


def read_image(path: Place) -> tuple[bytes, str]:
    """Return the bytes of an image file, and the problem if there is one (`missing_file`, `unreadable_file`).

    Raises SourceError where a store does not answer or denies access: that says nothing about the image.
    """
    if isinstance(path, Remote):
        return _read_remote(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return b"", "unreadable_file"
        return path.read_bytes(), ""
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return b"", "missing_file"
    except OSError:
        return b"", "unreadable_file"


def _read_remote(path: Remote) -> tuple[bytes, str]:
    try:
        return path.read_bytes(), ""
    except FileNotFoundError:
        return b"", "missing_file"
    except UnknownSchemeError:
        return b"", "unreadable_file"
    except RemoteError as error:
        raise SourceError(str(error)) from None


def locate(root: str, name: str) -> str:
    """Return a path that a table gives, relative to the root in POSIX form if it is inside it, else absolute."""
    if is_url(root) or is_url(name):
        return join(root, name)
    prefix = root.rstrip(os.sep) + os.sep
    full = os.path.normpath(os.path.join(root, name))
    if not full.startswith(prefix) and os.path.isabs(name) and "\0" not in name:
        folder, last = os.path.split(full)
        full = os.path.join(os.path.realpath(folder), last)  # the same folder, written through a link
    return full[len(prefix) :].replace(os.sep, "/") if full.startswith(prefix) else full


def is_outside(location: str) -> bool:
    """Tell whether what `locate` returned leads out of the root."""
    return os.path.isabs(location) or is_url(location)


def fingerprint(columns: Columns, entries: Iterable[Entry]) -> str:
    """Return 32 hex digits over the columns and over name, size and time of each file, in the order given."""
    named = astuple(columns)
    asked = named if any(named[5:]) else named[:5]  # the first five are as old as the fingerprints in pools
    digest = hashlib.blake2b(repr(asked).encode("utf-8", "replace"), digest_size=16)
    for entry in entries:
        digest.update(f"\n{as_name(entry.name)}\0{entry.size}\0{entry.stamp}".encode())
    return digest.hexdigest()


class Names:
    """Gives sources their ids: the last part of a folder's path, the last two of a file's, more where those are taken.

    A URL's query, as far as it is shown, is in the id as a digest.
    saved: {id: root} of sources seen before. A source found again under its root keeps its id, and so does one that was
    moved; another source of the same name, whose namesake still exists, gets a longer id.
    """

    def __init__(self, saved: Mapping[str, str]) -> None:
        self._saved = saved
        self._given: set[str] = set()

    def check_root(self, name: str, root: str) -> None:
        """Raise SourceError where an object has the id of another source of the pool, which lies elsewhere still."""
        known = self._saved.get(name, "")
        if known and known != root and _exists(known, ""):
            raise SourceError(
                f"the pool knows another source {name!r}, at {known}: give this data set a name of its own"
                " (dataset.info.dataset_name)"
            )

    def of_folder(self, folder: Place) -> str:
        """Return the id of an image folder, given its resolved path."""
        return self._choose(folder, 1, str(folder), "")

    def of_file(self, path: Place, root: Place | None = None) -> str:
        """Return the id of a tar or table, given its path in a resolved folder. root: its samples', if another folder.

        Raises SourceError if none is left.
        """
        root = root or path.parent
        return self._choose(path, 2, str(root), "/".join(path.parts[len(root.parts) :]))

    def _choose(self, path: Place, fewest: int, root: str, file: str) -> str:
        parts = [as_name(part) for part in path.parts if part != getattr(path, "anchor", "")]
        query = str(path).partition("?")[2] if isinstance(path, Remote) and not path.is_listable else ""
        if query:  # the URLs of two files may differ in nothing else
            parts[-1] += f"-{hashlib.blake2b(query.encode(), digest_size=4).hexdigest()}"
        ids = ["/".join(parts[-count:]) for count in range(min(fewest, len(parts)), len(parts) + 1)]
        free = [name for name in (ids if parts else ["/"]) if name not in self._given]
        own = (name for name in free if self._saved.get(name) == root)
        gone = (name for name in free if name not in self._saved or not _exists(self._saved[name], file))
        chosen = next(chain(own, gone, free), None)  # in turn: whether one exists may take a request
        if chosen is None:
            raise SourceError(f"{path} cannot be told from another source of the same name: copy or rename one of them")
        self._given.add(chosen)
        return chosen


def _exists(root: str, file: str) -> bool:
    """Tell whether a source seen before is still where it was; one that may not be looked at counts as gone."""
    at = place(root, file) if file else place(root)
    try:
        return at.exists()
    except (RemoteDeniedError, UsageError):
        return False
