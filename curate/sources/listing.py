"""The files behind a source: finding them, reading one, and the fingerprint of them all."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

from curate.errors import SourceError
from curate.sources.columns import Columns, as_name

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "ppm")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: its name relative to the source's root in POSIX form, its size in bytes, when it was last written."""

    name: str
    size: int
    mtime_ns: int


def stat_entry(root: Path, name: str) -> Entry | None:
    """Return the entry of a file below root, or None where there is none that can be looked at."""
    try:
        status = os.stat(root / name)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return Entry(name, status.st_size, status.st_mtime_ns)


def list_folder(folder: Path) -> list[Path]:
    """Return what lies directly in a folder and is not hidden, by name."""
    try:
        return sorted(item for item in folder.iterdir() if not item.name.startswith("."))
    except OSError as error:
        raise SourceError(f"cannot list the folder {folder}: {error.strerror}") from error


def scan_images(folder: Path) -> list[Entry]:
    """Return the image files below a folder, told by their extension, sorted by relative path.

    Hidden files and folders are skipped. Links to folders are followed unless they lead to a folder above themselves;
    a link to nowhere is listed, with size 0, so that its image counts as missing. Raises SourceError if a folder
    cannot be listed.
    """
    return sorted(_walk(folder, "", ()), key=lambda entry: entry.name)


def has_image(folder: Path) -> bool:
    """Tell whether there is an image file below a folder; stops at the first."""
    return next(_walk(folder, "", ()), None) is not None


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
    """Yield the image files below a folder; above: device and inode of the folders that led here."""
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
            yield from _walk(folder / item.name, name + "/", (*above, here))
        elif is_image_name(name):
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


def read_image(path: Path) -> tuple[bytes, str]:
    """Return the bytes of an image file, and the problem if there is one (`missing_file`, `unreadable_file`)."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            return b"", "unreadable_file"
        return path.read_bytes(), ""
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return b"", "missing_file"
    except OSError:
        return b"", "unreadable_file"


def locate(root: str, name: str) -> str:
    """Return a path that a table gives, relative to the root in POSIX form if it is inside it, else absolute."""
    prefix = root.rstrip(os.sep) + os.sep
    full = os.path.normpath(os.path.join(root, name))
    if not full.startswith(prefix) and os.path.isabs(name) and "\0" not in name:
        folder, last = os.path.split(full)
        full = os.path.join(os.path.realpath(folder), last)  # the same folder, written through a link
    return full[len(prefix) :].replace(os.sep, "/") if full.startswith(prefix) else full


def fingerprint(columns: Columns, entries: Iterable[Entry]) -> str:
    """Return 32 hex digits over the columns and over name, size and time of each file, in the order given."""
    digest = hashlib.blake2b(repr(astuple(columns)).encode("utf-8", "replace"), digest_size=16)
    for entry in entries:
        digest.update(f"\n{as_name(entry.name)}\0{entry.size}\0{entry.mtime_ns}".encode())
    return digest.hexdigest()


class Names:
    """Gives sources their ids: the last part of a folder's path, the last two of a file's, more where those are taken.

    saved: {id: root} of sources seen before. A source found again under its root keeps its id, and so does one that was
    moved; another source of the same name, whose namesake still exists, gets a longer id.
    """

    def __init__(self, saved: Mapping[str, str]) -> None:
        self._saved = saved
        self._given: set[str] = set()

    def of_folder(self, folder: Path) -> str:
        """Return the id of an image folder, given its resolved path."""
        return self._choose(folder, 1, str(folder), "")

    def of_file(self, path: Path) -> str:
        """Return the id of a tar or table, given its path in a resolved folder."""
        return self._choose(path, 2, str(path.parent), path.name)

    def _choose(self, path: Path, fewest: int, root: str, file: str) -> str:
        parts = [as_name(part) for part in path.parts if part != path.anchor]
        ids = ["/".join(parts[-count:]) for count in range(min(fewest, len(parts)), len(parts) + 1)]
        free = [name for name in (ids if parts else ["/"]) if name not in self._given]
        own = [name for name in free if self._saved.get(name) == root]
        gone = [name for name in free if name not in self._saved or not Path(self._saved[name], file).exists()]
        chosen = (own or gone or free)[0]
        self._given.add(chosen)
        return chosen
