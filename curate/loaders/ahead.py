"""Work done ahead in threads while earlier results are used; dropping the iterator leaves undone what has not begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def done_ahead(work: Iterator[Callable[[], Any]], threads: int) -> Generator[Any, None, None]:
    """Yield what each call returns, in order, as many under way ahead as there are threads."""
    if not threads:
        for call in work:
            yield call()
        return
    pool = ThreadPoolExecutor(threads, "curate-items")
    waiting: deque[Future[Any]] = deque()
    try:
        for call in work:
            waiting.append(pool.submit(call))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Not waited for: a generator that is dropped may be closed within threading's own code, which holds locks.
        pool.shutdown(wait=False, cancel_futures=True)
