"""One fragment of a pool, read as a pool of its own: what a worker of a cluster sees of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from curate.pool.reader import Pool


class _Fragment:
    """The reading half of a Lance dataset, of one fragment's rows; all else is the dataset's."""

    def __init__(self, dataset: Any, number: int) -> None:
        self._dataset, self._only = dataset, [dataset.get_fragment(number)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def to_table(self, **read: Any) -> Any:
        return self._dataset.scanner(fragments=self._only, **read).to_table()

    def to_batches(self, **read: Any) -> Iterator[Any]:
        found: Iterator[Any] = self._dataset.scanner(fragments=self._only, **read).to_batches()
        return found

    def get_fragments(self) -> list[Any]:
        return list(self._only)

    def count_rows(self, **read: Any) -> int:
        return int(self._only[0].count_rows(**read))


def part_of(pool: Pool, fragment: int) -> Pool:
    """Return a pool of which only one fragment's rows are read; state, schema and places of images are the whole's."""
    return Pool(pool.path, _Fragment(pool.dataset, fragment))
