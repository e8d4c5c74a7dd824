"""A file read by ranges, and work done ahead in threads: what makes distant files as quick to read as near ones."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

_SMALLEST, _LARGEST = 1 << 16, 1 << 22  # bytes of one request: grows as long as reading goes forward
_NEAR = 1 << 20  # bytes that are read rather than jumped over

T = TypeVar("T")
U = TypeVar("U")


class RangeFile(io.RawIOBase):
    """A file of `size` bytes read through fetch(start, size), in requests that grow while reading goes forward.

    The next one is fetched ahead. A jump is followed by a small request, so that skipping what is large costs little.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size = fetch, size
        self._position = 0
        self._windows: list[tuple[int, bytes]] = []  # the last two: a tar's reader looks one header ahead
        self._request = _SMALLEST
        self._ahead: tuple[int, Future[bytes]] | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position; nothing is read."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return the number of bytes, fewer than it holds only at the end."""
        size = max(0, min(len(buffer), self._size - self._position))
        done = 0
        while done < size:
            start, data = self._window(size - done)
            part = data[self._position - start : self._position - start + size - done]
            buffer[done : done + len(part)] = part
            self._position += len(part)
            done += len(part)
        return done

    def close(self) -> None:
        """Drop what was fetched; a request under way ends by itself."""
        self._windows, self._ahead = [], None
        super().close()

    def _window(self, wanted: int) -> tuple[int, bytes]:
        """Return (start, bytes) of a window that holds the position, fetched if it must be."""
        for start, data in reversed(self._windows):
            if start <= self._position < start + len(data):
                return start, data
        end = self._windows[-1][0] + len(self._windows[-1][1]) if self._windows else 0
        if self._windows and 0 <= self._position - end < _NEAR:
            start, data = end, self._next(end)
        else:
            start, self._request = self._position, _SMALLEST
            data = self._fetch(start, min(max(_SMALLEST, min(wanted, _LARGEST)), self._size - start))
        self._windows = [*self._windows[-1:], (start, data)]
        return self._window(wanted)

    def _next(self, end: int) -> bytes:
        """Return the window that begins where the last one ended, and have the one after it fetched."""
        self._request = min(max(_NEAR, 2 * self._request), _LARGEST)
        ready, self._ahead = self._ahead, None
        if ready is not None and ready[0] == end:
            data = ready[1].result()
        else:
            data = self._fetch(end, min(self._request, self._size - end))
        after = end + len(data)
        if after < self._size:
            size = min(self._request, self._size - after)
            self._ahead = after, _threads().submit(self._fetch, after, size)
        return data


def ahead(work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Yield work(item) in order, up to 16 of them under way in shared threads; work must not itself read ahead."""
    return in_order(_threads(), work, items, 15)


def in_order(threads: ThreadPoolExecutor, work: Callable[[T], U], items: Iterable[T], more: int) -> Iterator[U]:
    """Yield work(item) in order, each while threads have begun, or are to begin, `more` of those after it.

    Dropping the iterator leaves undone what has not begun.
    """
    waiting: deque[Future[U]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) > more:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads of single requests. What waits for requests must run elsewhere, or all wait for each other."""
    return ThreadPoolExecutor(16, "curate-remote")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of its parent's threads
