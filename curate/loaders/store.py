"""Stored bytes of many rows at once: near files by position, distant ones in few requests, several at a time."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.errors import ManifestError, RemoteMissingError, RemoteShortError, SampleError
from curate.loaders.subset import Subset
from curate.ranges import ahead
from curate.remote import Place, Remote, is_url, place
from curate.stored import PLACE, Unread, stored_bytes

Bytes = bytes | SampleError

_OPEN = 128  # files held open at once by one process
_NEAR = 1 << 20  # bytes between two images that are fetched rather than left out
_REQUEST = 1 << 24  # bytes of one request that joins several images
_UNMEASURED = 1 << 26  # bytes of one image beyond which a distant file's size is asked for first
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_POSITION = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Bytes of one image: where its answer goes, the number of its file, first byte, length."""

    answer: int
    file: int
    offset: int
    size: int


class Store:
    """Reads the stored bytes of a subset's rows.

    Files are read by position, so processes that share descriptors after a fork do not disturb each other; threads may
    share a store.
    """

    def __init__(self, subset: Subset) -> None:
        self._subset = subset
        self._open: OrderedDict[int, _File] = OrderedDict()
        # Images in a table have no bytes to seek to: `curate.stored` knows how to read them.
        self._in_tables = "rows" in subset.info["required_features"]

    def __getstate__(self) -> dict[str, Any]:
        return {"subset": self._subset}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["subset"])  # type: ignore[misc]

    def read(self, rows: Sequence[int]) -> list[Bytes]:
        """Return each row's bytes, unchecked, or why they cannot be had.

        Raises ManifestError for a path that leads out of its root, and RemoteError when a server does not answer or
        denies access: that says nothing about an image.
        """
        subset = self._subset
        index = np.asarray(rows, dtype=np.int64)
        file, offset, size = subset.file[index], subset.offset[index], subset.size[index]
        answers: list[Bytes] = [SampleError("the manifest does not say where its image is stored")] * len(index)
        distant = []
        for at in np.lexsort((offset, file)).tolist():
            wanted = _Wanted(at, int(file[at]), int(offset[at]), int(size[at]))
            if wanted.file < 0:
                continue
            try:
                if self._in_tables:
                    answers[at] = self._stored(int(index[at]), wanted)
                elif self._is_remote(wanted.file):
                    self._path(wanted.file)
                    distant.append(wanted)
                else:
                    answers[at] = self._near(wanted)
            except SampleError as error:
                answers[at] = error
        for wanted, found in self._distant(distant):
            answers[wanted.answer] = found
        return answers

    def is_far(self, row: int) -> bool:
        """Tell whether a row is read best together with its neighbours: from behind a URL, or from a table."""
        return self._in_tables or self._is_remote(int(self._subset.file[row]))

    def _is_remote(self, file: int) -> bool:
        if file < 0 or file in self._open:
            return False
        source, path = self._subset.location(file)
        return is_url(self._subset.roots[source]) or is_url(path)

    def _path(self, file: int) -> Place:
        source, path = self._subset.location(file)
        if not path:
            raise SampleError("the manifest does not say where its image is stored")
        if ".." in path.replace("\\", "/").split("/") and not is_url(path):
            raise ManifestError(f"path {path!r} of source {source!r} leads out of its root; no file of it is read")
        return place(self._subset.roots[source], path)

    def _near(self, wanted: _Wanted) -> bytes:
        file = self._open.get(wanted.file) or self._opened(wanted.file)
        return file.read(wanted.offset, wanted.size)

    def _opened(self, number: int) -> _File:
        path = self._path(number)
        assert isinstance(path, Path)
        file = self._open[number] = _File(path)
        while len(self._open) > _OPEN:
            self._open.popitem(last=False)  # closed when no thread reads it any more
        return file

    def _distant(self, wanted: list[_Wanted]) -> Iterator[tuple[_Wanted, Bytes]]:
        paths = {one.file: self._path(one.file) for one in wanted}
        for found in ahead(lambda span: _fetch(paths[span[0].file], span), _spans(wanted)):
            yield from found

    def _stored(self, row: int, wanted: _Wanted) -> bytes:
        path = self._path(wanted.file)
        columns = {name: self._subset.values(name, [row])[0] for name in PLACE}
        data = stored_bytes(columns, self._subset.roots)
        if isinstance(data, Unread):
            raise SampleError(f"{path}: {data.words}", "changed" if data.reason == "changed" else "missing")
        if len(data) != wanted.size:
            raise SampleError(f"{path} has {len(data)} bytes in row {wanted.offset}, not {wanted.size}", "changed")
        return data


class _File:
    """An open file, closed when nobody holds it. Raises SampleError when it cannot be opened or is too short."""

    def __init__(self, path: Path) -> None:
        self._handle = -1
        self._path = path
        try:
            self._handle = os.open(path, _FLAGS)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise SampleError(
                f"{path}: {getattr(error, 'strerror', None) or error}; if its folder has moved, give roots={{OLD: NEW}}"
            ) from None
        status = os.fstat(self._handle)
        if not stat.S_ISREG(status.st_mode):
            raise SampleError(f"{path} is not a regular file")
        self._size = status.st_size

    def __del__(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`."""
        if offset + size > self._size:
            raise SampleError(f"{self._path} has {self._size} bytes, and ends before byte {offset + size}", "changed")
        data = _read_at(self._handle, size, offset)
        while len(data) < size:
            more = _read_at(self._handle, size - len(data), offset + len(data))
            if not more:
                raise SampleError(f"{self._path} was cut while it was read", "changed")
            data += more
        return data


def _seek_and_read(handle: int, size: int, offset: int) -> bytes:
    """Do as os.pread where there is none; nothing is forked there, so one lock holds off all who share a position."""
    with _POSITION:
        os.lseek(handle, offset, os.SEEK_SET)
        return os.read(handle, size)


_read_at = getattr(os, "pread", _seek_and_read)


def _spans(wanted: list[_Wanted]) -> Iterator[list[_Wanted]]:
    """Yield what one request fetches: images of one file, in its order, near to each other."""
    span: list[_Wanted] = []
    end = 0
    for one in wanted:
        near = span and one.file == span[0].file and one.offset - end <= _NEAR
        if span and not (near and one.offset + one.size - span[0].offset <= _REQUEST):
            yield span
            span, end = [], 0
        span.append(one)
        end = max(end, one.offset + one.size)
    if span:
        yield span


def _fetch(path: Place, span: list[_Wanted]) -> list[tuple[_Wanted, Bytes]]:
    """Return the bytes of a span; where it does not exist as a whole, those of each image."""
    assert isinstance(path, Remote)
    start = span[0].offset
    try:
        size = max(one.offset + one.size for one in span) - start
        if size > _UNMEASURED:
            _check_length(path, start + size)
        data = path.read_range(start, size)
        return [(one, data[one.offset - start : one.offset - start + one.size]) for one in span]
    except RemoteMissingError as error:
        return [(one, SampleError(str(error))) for one in span]
    except RemoteShortError as error:
        if len(span) > 1:
            return [found for one in span for found in _fetch(path, [one])]
        return [(span[0], SampleError(str(error), "changed"))]


def _check_length(path: Remote, end: int) -> None:
    if path.status().size < end:
        raise RemoteShortError(f"{path} ends before byte {end}")
