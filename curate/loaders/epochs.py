"""What a process reads of an epoch, item by item, with the position that reading can go on from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from curate.loaders.ahead import done_ahead
from curate.loaders.items import Item, Items
from curate.loaders.store import Bytes
from curate_kernels.arrays import I64

_PIECE = 64  # near images read at once
_DECODED = 8  # images decoded at once, by one thread


class _Read(NamedTuple):
    """Bytes of the items at positions from `start` on."""

    start: int
    rows: list[int]
    answers: list[Bytes]


def read_items(
    items: Items, images: I64, window: int, start: int = 0, threads: int = 0
) -> Iterator[tuple[int, Item | None]]:
    """Yield (position after it, item or None if skipped) of images, (m,) int64 first rows, from position `start` on.

    Distant files are read a window at a time, each in few requests, the next one meanwhile.
    threads: how many decode beside the caller's; 0: the caller's own, when it asks
    """
    step = items.step

    def decoded(read: _Read) -> Iterator[Callable[[], tuple[int, list[Item | None]]]]:
        for a in range(0, len(read.rows), _DECODED):
            rows, answers = read.rows[a : a + _DECODED], read.answers[a * step : (a + _DECODED) * step]
            yield lambda at=read.start + a, rows=rows, answers=answers: (at, items.make(rows, answers))  # type: ignore[misc]

    work = (piece for read in _reads(items, images, window, start, threads > 0) for piece in decoded(read))
    for first, made in done_ahead(work, threads):
        yield from enumerate(made, first + 1)


def _reads(items: Items, images: I64, window: int, start: int, threaded: bool) -> Iterator[_Read]:
    """Yield the bytes of images from position `start` on."""
    is_far = start < images.size and items.is_far(int(images[start]))
    size = window if is_far else _PIECE
    bounds = [max(start, a) for a in range(start // size * size, images.size, size)] + [images.size]

    def read(a: int, b: int) -> _Read:
        rows = images[a:b].tolist()
        return _Read(a, rows, items.read(rows))

    work = (lambda a=a, b=b: read(a, b) for a, b in pairwise(bounds))
    yield from done_ahead(work, 1 if is_far or threaded else 0)
