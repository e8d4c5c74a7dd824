"""A manifest's items for numpy and JAX: plain Python, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from curate.errors import UsageError
from curate.loaders.batches import batched, stacked
from curate.loaders.epochs import read_items
from curate.loaders.items import Item
from curate.loaders.plan import Options, Plan, open_items, position_of, split_options
from curate.loaders.subset import Subset
from curate_kernels.arrays import I64


class Reading:
    """One epoch of a manifest as an iterator: dicts of single items, or of batches of them.

    `state_dict()` says where it stands; given as `state` to `iterate`, reading goes on exactly there.
    """

    def __init__(self, plan: Plan, epoch: int, batch_size: int | None, drop_last: bool, threads: int) -> None:
        self._plan, self._epoch, self._threads = plan, epoch, threads
        self._batch, self._drop_last = batch_size, drop_last
        self._position = 0
        self._stream: Iterator[Any] | None = None

    def __iter__(self) -> Reading:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._stream is None:
            self._stream = self._items() if self._batch is None else self._batches(self._batch)
        item: dict[str, Any] = next(self._stream)
        return item

    @property
    def skipped(self) -> dict[str, int]:
        """Return {reason: samples} that were skipped so far."""
        return self._plan.items.tally.skipped

    def state_dict(self) -> dict[str, Any]:
        """Return epoch, position and settings, as JSON has them. What a sampler learned is in its own state."""
        return {"epoch": self._epoch, "position": self._position, "settings": self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the reading stood that gave the state. Raises UsageError when its settings were others."""
        self._epoch, self._position = position_of(state, self._settings())
        self._stream = None

    def _settings(self) -> dict[str, Any]:
        return self._plan.settings(batch_size=self._batch, drop_last=self._drop_last)

    def _items(self) -> Iterator[Item]:
        for position, item in self._read(self._plan.images(self._epoch)):
            self._position = position
            if item is not None:
                yield item

    def _batches(self, size: int) -> Iterator[dict[str, Any]]:
        """Yield batches of `size` positions each; what is skipped is missing in its batch."""
        images = self._plan.images(self._epoch, batch=size, drop_last=self._drop_last)
        for position, batch in batched(self._read(images), size, images.size):
            self._position = position
            if batch:
                yield stacked(batch)

    def _read(self, images: I64) -> Iterator[tuple[int, Item | None]]:
        plan = self._plan
        scale = plan.scale()
        for position, item in read_items(plan.items, images, plan.order.window, self._position, self._threads):
            if item is not None and scale is not None:
                item["scale"] = scale[item["row"]]
            yield position, item


def iterate(
    manifest: str | Path | Subset,
    *,
    epoch: int = 0,
    batch_size: int | None = None,
    drop_last: bool = False,
    threads: int = 1,
    state: Mapping[str, Any] | None = None,
    **options: Unpack[Options],
) -> Reading:
    """Return an iterator over one epoch of a manifest: items as dicts, or batches of them as dicts of numpy arrays.

    An item has `row`, `image`, the columns asked for and, of crops, `crop`; with InfoBatch `scale`. A batch has the
    numbers, and arrays of one shape, as arrays, everything else as lists.

    manifest: its folder or file, or an open Subset
    epoch: from 0; each has an order of its own
    threads: how many decode ahead; 0 for none
    state: what `state_dict()` of an earlier reading returned: this one goes on there; its epoch counts
    options: Options

    Raises UsageError for options that make no sense, ManifestError, and, while reading, SampleError.
    """
    making, ordering = split_options(options)
    if (batch_size is not None and batch_size < 1) or threads < 0 or (drop_last and batch_size is None):
        raise UsageError("batch_size must be at least 1, threads at least 0, and drop_last needs a batch_size")
    reading = Reading(Plan(open_items(manifest, making), ordering), epoch, batch_size, drop_last, threads)
    if state is not None:
        reading.load_state_dict(state)
    return reading
