"""A manifest as torch datasets. With `loader`, the only modules of the readers that import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from curate.errors import UsageError
from curate.images import Pixels
from curate.loaders.epochs import read_items
from curate.loaders.items import Item, Items
from curate.loaders.plan import ItemOptions, Options, Plan, open_items, position_of, split_options
from curate.loaders.subset import Subset
from curate.loaders.tally import Tally


class SubsetDataset:
    """A manifest as a map-style dataset: `dataset[i]` is the item of rank i, a dict.

    An item has `row`, `image`, the columns asked for and, of crops, `crop`. `decode="tensor"` gives images as uint8 of
    (3, height, width). A DataLoader asks for whole batches, whose distant files are read in few requests. With
    on_error="skip" a batch is shorter by what is skipped, while `dataset[i]` alone raises.

    manifest: its folder or file, or an open Subset
    options: ItemOptions

    Raises UsageError for options that make no sense, ManifestError, and, while reading, SampleError.
    """

    def __init__(self, manifest: str | Path | Subset, **options: Unpack[ItemOptions]) -> None:
        self.items, self._counts = open_shared(manifest, options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.items.tally = Tally(self._counts.numpy())

    @property
    def skipped(self) -> dict[str, int]:
        """Return {reason: samples} that were skipped, by all workers."""
        return self.items.tally.skipped

    def __len__(self) -> int:
        return self.items.subset.n // self.items.step

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} items")
        item = self._made([index % len(self)], skip=False)[0]
        assert item is not None
        return item

    def __getitems__(self, index: Sequence[int]) -> list[Item]:
        return [item for item in self._made(index) if item is not None]

    def _made(self, index: Sequence[int], skip: bool | None = None) -> list[Item | None]:
        this_worker(self.items)
        rows = [int(i) * self.items.step for i in index]
        return self.items.make(rows, self.items.read(rows), skip)


class StreamingSubset(IterableDataset):  # type: ignore[misc]
    """A manifest as an iterable dataset: blocks of neighbours shuffled, shared among ranks and a DataLoader's workers.

    Each worker reads windows of its own, which makes distant files quick. `set_epoch` reaches persistent workers, too.
    `state_dict` and `load_state_dict` are those of the process that iterates: a worker of torchdata's
    StatefulDataLoader, or the caller's own where a DataLoader has no workers. A plain DataLoader with workers cannot
    say where they stand: use SubsetLoader.

    Make it after torch.distributed is initialised, or give rank and world_size.

    manifest: its folder or file, or an open Subset
    options: Options

    Raises UsageError for options that make no sense, ManifestError, and, while reading, SampleError.
    """

    def __init__(self, manifest: str | Path | Subset, **options: Unpack[Options]) -> None:
        making, ordering = split_options(options)
        items, self._counts = open_shared(manifest, making)
        self.plan = Plan(items, ordering)
        if hasattr(self.plan.sampler, "state_dict"):
            raise UsageError(f"{self.plan.sampler!r} learns from losses, which workers do not hear; use SubsetLoader")
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._position = 0
        self._state: dict[str, Any] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.plan.items.tally = Tally(self._counts.numpy())

    @property
    def skipped(self) -> dict[str, int]:
        """Return {reason: samples} that were skipped, by all workers."""
        return self.plan.items.tally.skipped

    def set_epoch(self, epoch: int) -> None:
        """Iterate over this epoch from now on, from its beginning; if it is the one that was loaded, from its place."""
        # A state without an epoch is kept: it is refused, by name, when it is used.
        now = int(self._epoch[0]) if self._state is None else self._state.get("epoch", epoch)
        if now != epoch:
            self._epoch[0], self._position, self._state = epoch, 0, None

    def __iter__(self) -> Iterator[Item]:
        worker, workers = this_worker(self.plan.items)
        epoch, start = int(self._epoch[0]), 0
        if self._state is not None:
            epoch, start = position_of(self._state, self._settings())
            self._epoch[0], self._state = epoch, None
        self._position = start
        images = self.plan.images(epoch, worker, workers)
        for position, item in read_items(self.plan.items, images, self.plan.order.window, start):
            self._position = position
            if item is not None:
                yield item

    def state_dict(self) -> dict[str, Any]:
        """Return epoch, position and settings of this process, as JSON has them."""
        if self._state is not None:
            return self._state
        return {"epoch": int(self._epoch[0]), "position": self._position, "settings": self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin the next iteration where the state was taken; it raises UsageError where settings or workers differ."""
        self._state = dict(state)

    def _settings(self) -> dict[str, Any]:
        worker, workers = this_worker(self.plan.items)
        return self.plan.settings(worker=worker, workers=workers)


class _Then:
    """One function after another; pickles, as workers that are not forked need it."""

    def __init__(self, first: Callable[[Any], Any], second: Callable[[Any], Any]) -> None:
        self._first, self._second = first, second

    def __call__(self, value: Any) -> Any:
        return self._second(self._first(value))


def as_tensor(pixels: Pixels) -> torch.Tensor:
    """Return (3, height, width) uint8 of (height, width, 3)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def open_shared(manifest: str | Path | Subset, options: Mapping[str, Any]) -> tuple[Items, torch.Tensor]:
    """Return the items of a manifest, and their counts, in memory that workers share."""
    counts = torch.from_numpy(Tally().table).share_memory_()
    if options.get("decode") == "tensor":
        then = options.get("transform")
        options = {**options, "decode": "array", "transform": as_tensor if then is None else _Then(as_tensor, then)}
    items = open_items(manifest, options, Tally(counts.numpy()))
    return items, counts


def this_worker(items: Items) -> tuple[int, int]:
    """Return number of this worker, and of workers, 0 of 1 outside of any; its counts are its own."""
    info = get_worker_info()
    if info is None:
        return 0, 1
    items.tally.worker = info.id + 1
    return int(info.id), int(info.num_workers)
