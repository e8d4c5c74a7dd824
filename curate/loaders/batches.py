"""Items put together: numbers and equal shapes as arrays, everything else as lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from curate.loaders.items import Item


def batched(stream: Iterable[tuple[int, Item | None]], size: int, total: int) -> Iterator[tuple[int, list[Item]]]:
    """Yield (position after it, items) of batches of `size` positions, the last of which ends at `total`.

    stream: positions after items, and the items, None for one that is missing in its batch
    """
    batch: list[Item] = []
    for position, item in stream:
        if item is not None:
            batch.append(item)
        if position % size == 0 or position == total:
            yield position, batch
            batch = []


def stacked(items: Sequence[Item], stack: Callable[[list[Any]], Any] | None = None) -> dict[str, Any]:
    """Return {name: the items' values}: numbers and arrays of one shape and dtype as one array, others as a list.

    An entry that only some items have, or that is null in some, is a list. No items give no entries.
    stack: makes one array of a list of numbers, or arrays of one shape and dtype, or returns None; numpy's unless given
    """
    join = stack or stacked_arrays
    batch: dict[str, Any] = {}
    for name in items[0] if items else ():
        values = [item.get(name) for item in items]
        joined = join(values)
        batch[name] = values if joined is None else joined
    return batch


def stacked_arrays(values: list[Any]) -> Any:
    """Return numbers, or arrays of one shape and dtype, as one array; None for anything else."""
    if all(isinstance(value, np.ndarray) for value in values):
        alike = len({(value.shape, value.dtype) for value in values}) == 1
        return np.stack(values) if alike else None
    if all(isinstance(value, (int, float, np.number)) and not isinstance(value, bool) for value in values):
        return np.array(values)
    return None
