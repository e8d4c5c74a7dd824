"""Decoding ahead: while one batch is encoded, the next is read, decoded and measured in threads or processes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from curate.crops import Crop
from curate.encoders import ImageEncoder
from curate.engine.arrivals import Arrival
from curate.engine.decoders import AVAILABLE, Decoders
from curate.engine.examine import Examined, Terms, examine, terms
from curate.recipe import Recipe

_LOG = logging.getLogger("curate")

_THREADS = 2
_MANY = 256  # rows from which a second of start for each process, and 170 MB, are a small price
_MOST = 8  # processes, unless the recipe asks for more: some 2,000 photographs of 170 KB a second


@dataclass(frozen=True, slots=True)
class Prepared(Examined):
    """An arrival with what its bytes gave."""

    arrival: Arrival = field(kw_only=True)


def prepare(arrival: Arrival, encoder: ImageEncoder, asked: Terms, decoders: Decoders | None) -> Prepared:
    """Decode one arrival, hash its pixels, measure its quality, and cut the encoder's input: in a process or here."""
    if arrival.sample.problem:
        return Prepared(arrival.sample.problem, arrival=arrival)
    data = arrival.sample.data
    found = decoders.examine(data) if decoders else examine(data, asked, encoder.prepare)
    return Prepared(**{name: getattr(found, name) for name in Examined.__slots__}, arrival=arrival)


def prepared_batches(
    batches: Iterator[list[Arrival]], encoder: ImageEncoder, recipe: Recipe
) -> Generator[list[Prepared], None, None]:
    """Yield each batch prepared, in order, one batch ahead of the consumer; close it to end threads and processes.

    Whether threads or processes do it changes no result, but that only a process can be killed: `Decoders`.
    """
    with _Crew(encoder, recipe) as crew:
        ahead = crew.submit(next(batches, []))
        while ahead:
            current, ahead = ahead, crew.submit(next(batches, []))
            yield [future.result() for future in current]


class _Crew:
    """Threads that prepare; each has a process of its own where the recipe asks for them or there are many rows."""

    def __init__(self, encoder: ImageEncoder, recipe: Recipe) -> None:
        crop = getattr(encoder, "crop", None)
        self._encoder, self._recipe = encoder, recipe
        self._crop = crop if isinstance(crop, Crop) and AVAILABLE else None
        self._asked = terms(recipe, crop)
        self._count = _processes(recipe.encode.workers) if self._crop else 0
        if recipe.encode.workers > 0 and not self._count:
            _LOG.warning("images are decoded in threads: %s cannot be prepared for in another process", encoder.name)
        self._seen = 0
        self._decoders: Decoders | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="curate-decode")
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._threads.shutdown, cancel_futures=True)

    def submit(self, batch: list[Arrival]) -> list[Future[Prepared]]:
        self._seen += len(batch)
        if self._decoders is None and self._count and (self._recipe.encode.workers > 0 or self._seen >= _MANY):
            self._start()
        return [self._threads.submit(prepare, a, self._encoder, self._asked, self._decoders) for a in batch]

    def _start(self) -> None:
        assert self._crop is not None  # or there would be no count
        decoders = Decoders(self._count, self._asked, self._crop, self._recipe.limits.decode_seconds)
        self._closing.callback(decoders.close)
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="curate-decoder")
        self._closing.callback(self._threads.shutdown, cancel_futures=True)
        self._closing.callback(decoders.kill)  # so that no thread waits for an answer
        self._decoders = decoders

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()


def _processes(asked: int) -> int:
    """Return how many decode processes a recipe means; -1 leaves one of the CPUs that may be used to this process."""
    if asked >= 0:
        return asked
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count - 1, _MOST))
