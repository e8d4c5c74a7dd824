"""Images read again where a pool says that they lie."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from curate.cells import read_cell, split_cell
from curate.errors import DecodeError, RemoteError, RemoteShortError, UnknownSchemeError, UsageError
from curate.images import Pixels, decode
from curate.remote import Remote, place
from curate.samples import content_hash

PLACE = ("source", "path", "offset", "size", "sha256")  # columns of a pool that say where the bytes lie


def read_stored(row: Mapping[str, Any], roots: Mapping[str, str]) -> bytes:
    """Return a row's stored bytes, unchecked: a range of a file, or a value of a table (`curate.cells`).

    row: PLACE by name; roots: {source id: what its paths are relative to}
    Raises OSError with the words for a user in `strerror`, or ValueError for a path that cannot be one.
    """
    if min(row["offset"] or 0, row["size"] or 0) < 0:
        raise ValueError("its offset or size is below 0")
    root = roots.get(row["source"])
    if root is None or not row["path"]:
        raise FileNotFoundError(None, "no stored image")
    if (cell := split_cell(row["path"])) is not None:
        return read_cell(root, *cell, row["offset"] or 0)
    path = place(root, row["path"])
    if isinstance(path, Remote):
        return path.read_range(row["offset"] or 0, row["size"] or 0)
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise OSError(None, "not a regular file")
    with path.open("rb") as file:
        file.seek(row["offset"] or 0)
        return file.read(row["size"] or 0)


class Unread(NamedTuple):
    """Why a row's bytes cannot be had, `missing`, `changed` or `unreadable`, and words for a user."""

    reason: str
    words: str


def stored_bytes(row: Mapping[str, Any], roots: Mapping[str, str]) -> bytes | Unread:
    """Return what `read_stored` gives, or why there is nothing; the bytes may be others than those that were decided.

    A store that does not answer or denies access says nothing of an image, and a library that is missing neither: they
    raise RemoteError and UsageError.
    """
    try:
        return read_stored(row, roots)
    except (FileNotFoundError, NotADirectoryError) as error:
        return Unread("missing", error.strerror or str(error))
    except (RemoteShortError, OverflowError, MemoryError) as error:  # what a size that lies leads to
        return Unread("changed", str(error) or "it ends before its last byte")
    except UnknownSchemeError as error:
        return Unread("unreadable", str(error))
    except (RemoteError, UsageError):
        raise
    except (OSError, ValueError) as error:
        return Unread("unreadable", getattr(error, "strerror", None) or str(error))


def stored_pixels(
    rows: Iterable[Mapping[str, Any]], roots: Mapping[str, str], max_pixels: int, least: int = 0
) -> Iterator[Pixels | None]:
    """Yield every row's pixels, None where its file is gone, has changed since it was decided, or does not decode.

    least: of `decode`
    """
    for row in rows:
        try:
            data = read_stored(row, roots)
            yield decode(data, max_pixels, least).pixels if content_hash(data) == row["sha256"] else None
        except (OSError, ValueError, DecodeError):
            yield None
