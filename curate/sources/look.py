"""A path that is looked at to tell what kind of source it is: a listing and first bytes, each fetched once."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import cached_property

from curate.errors import SourceError
from curate.remote import Place, Remote
from curate.sources.columns import Columns
from curate.sources.listing import has_image, is_image_name, list_folder

_LOG = logging.getLogger("curate")
MOST_INSIDE = 16  # folders, or files of a kind, that are looked into
_COMPRESSED_TAR = re.compile(r"\.(tgz|tbz2?|txz|tzst|tar\.\w+)$", re.IGNORECASE)


class Look:
    """One path that exists; SourceError if it does not, or may not be looked at. columns: those asked for."""

    def __init__(self, path: Place, columns: Columns | None = None) -> None:
        self.path = path
        self.columns = columns or Columns()
        self.is_folder = _is_folder(path)

    @cached_property
    def _items(self) -> list[tuple[Place, bool]]:
        """Return what lies directly in a folder and is not hidden, by name, and whether each is a folder."""
        return [(item, item.is_dir()) for item in list_folder(self.path)] if self.is_folder else []

    @cached_property
    def files(self) -> list[Place]:
        """Return the files of a folder by name; for a file, itself."""
        return [item for item, is_folder in self._items if not is_folder] if self.is_folder else [self.path]

    @cached_property
    def folders(self) -> list[Place]:
        """Return the folders in a folder, by name."""
        return [item for item, is_folder in self._items if is_folder]

    @property
    def few_folders(self) -> list[Place]:
        """Return the folders if they are few: to look into each of a thousand classes would take as long as reading."""
        return self.folders if len(self.folders) <= MOST_INSIDE else []

    @cached_property
    def has_image(self) -> bool:
        """Tell whether a folder holds an image file at any depth; stops at the first."""
        return any(is_image_name(item.name) for item in self.files) or has_image(self.path)

    def ending(self, *suffixes: str) -> list[Place]:
        """Return the files whose extension is one of some, in whatever case."""
        return [item for item in self.files if item.suffix.lower() in suffixes]

    def warn_unread(self, items: Sequence[Place], advice: str) -> None:
        """Log that some files of a folder are passed over."""
        if items:
            names = ", ".join(item.name for item in items[:3]) + (", ..." if len(items) > 3 else "")
            _LOG.warning("%s: %d files are not read (%s): %s", self.path, len(items), names, advice)


def is_packed(path: Place) -> bool:
    """Tell whether a path is named like a compressed tar, whose members have no place in the file."""
    return _COMPRESSED_TAR.search(path.name) is not None


def head(path: Place, size: int) -> bytes:
    """Return the first bytes of a file, nothing where it cannot be read: whoever opens it will say why."""
    try:
        if isinstance(path, Remote):
            return path.read_range(0, min(size, path.status().size))
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, ValueError):
        return b""


def _is_folder(path: Place) -> bool:
    if isinstance(path, Remote):
        if path.is_dir():
            return True
        path.status()
        return False
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(
            f"cannot open {path}: {reason}; give a path of one of the kinds that `curate sources` lists"
        ) from error
    return path.is_dir()
