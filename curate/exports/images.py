"""Images as an export takes them: read where they lie, compared with the manifest, several at a time."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from curate.cells import split_cell
from curate.errors import RemoteDeniedError
from curate.ranges import in_order
from curate.remote import Remote, place
from curate.samples import content_hash
from curate.stored import Unread, stored_bytes

_ARCHIVES = (".tar", ".parquet", ".lance")
_THREADS, _AHEAD = 8, 16

Row = Mapping[str, Any]


class Refused(Exception):  # noqa: N818
    """A row that cannot be exported: a reason that is counted, and words."""

    def __init__(self, reason: str, words: str = "") -> None:
        super().__init__(words)
        self.reason = reason


def fetch(row: Row, roots: Mapping[str, str]) -> bytes:
    """Return a row's stored bytes, which are those that were selected.

    Raises Refused: `missing`, `unreadable`, or `changed` where the bytes have another SHA-256. An outage of a store
    says nothing of an image: it ends the export (RemoteError).
    """
    try:
        data = stored_bytes(row, roots)
    except RemoteDeniedError as error:
        raise Refused("unreadable", str(error)) from error
    if isinstance(data, Unread):
        raise Refused(*data)
    if row["sha256"] and content_hash(data) != row["sha256"]:
        raise Refused("changed", f"{len(data)} bytes, not those that were selected")
    return data


def own_file(row: Row, roots: Mapping[str, str]) -> Path | None:
    """Return the absolute path of a row whose image is a local file of its own, None where it lies in an archive.

    Only the size is compared with the manifest's. Raises Refused as `fetch` does.
    """
    root = roots.get(row["source"])
    if root is None or not row["path"]:
        raise Refused("missing", "no stored image")
    try:
        path = place(root, row["path"])
        inside = row["offset"] or path.suffix.lower() in _ARCHIVES or split_cell(row["path"]) is not None
        if isinstance(path, Remote) or inside:
            return None
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise Refused("missing", _words(error)) from error
    except OSError as error:
        raise Refused("unreadable", _words(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise Refused("unreadable", "not a regular file")
    if status.st_size != row["size"]:
        raise Refused("changed", f"{status.st_size} bytes, not {row['size']}")
    return path.absolute()


def _words(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


def fetch_all(rows: Iterable[Row], roots: Mapping[str, str]) -> Iterator[bytes | Refused]:
    """Yield what `fetch` gives or raises for each row, in order; 16 are read ahead by 8 threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from in_order(pool, lambda row: _attempt(row, roots), rows, _AHEAD)


def _attempt(row: Row, roots: Mapping[str, str]) -> bytes | Refused:
    try:
        return fetch(row, roots)
    except Refused as error:
        return error
