"""Work done ahead in threads while earlier results are used; dropping the iterator leaves undone what has not begun."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from curate.ranges import in_order


def done_ahead(work: Iterator[Callable[[], Any]], threads: int) -> Generator[Any, None, None]:
    """Yield what each call returns, in order, as many under way ahead as there are threads."""
    if not threads:
        for call in work:
            yield call()
        return
    pool = ThreadPoolExecutor(threads, "curate-items")
    try:
        yield from in_order(pool, lambda call: call(), work, threads)
    finally:
        # Not waited for: a generator that is dropped may be closed within threading's own code, which holds locks.
        pool.shutdown(wait=False, cancel_futures=True)
