"""Batches of a manifest for torch, with a state that says exactly which were given, whatever was fetched ahead."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from curate.errors import UsageError
from curate.loaders.batches import batched, stacked, stacked_arrays
from curate.loaders.epochs import read_items
from curate.loaders.items import Item
from curate.loaders.plan import Options, Plan, position_of, split_options
from curate.loaders.pytorch import SubsetDataset, this_worker
from curate.loaders.samplers import InfoBatch
from curate.loaders.subset import Subset
from curate.loaders.tally import WORKERS
from curate_kernels.arrays import F32, F64, I64

Batch = Any

_OWN = {"batch_size", "shuffle", "sampler", "batch_sampler", "num_workers", "collate_fn", "drop_last", "in_order"}


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Return items as a batch: numbers, and tensors of one shape, as tensors; texts, nulls, PIL images as lists."""
    return stacked(items, _stacked_tensors)


def _stacked_tensors(values: list[Any]) -> Any:
    if all(isinstance(value, torch.Tensor) for value in values):
        return torch.stack(values) if len({(value.shape, value.dtype) for value in values}) == 1 else None
    joined = stacked_arrays(values)
    return None if joined is None else torch.from_numpy(joined)


class SubsetLoader:
    """Batches of one rank, an epoch each time it is iterated, in worker processes; resumes exactly.

    `state_dict()` counts the batches that were given, not those fetched ahead: saved after a step and loaded into a
    loader of the same settings, training goes on with the next batch, in the same order, also with workers and also
    after a crash. The number of workers may change, unless `streaming`. Where nothing else is said, epochs follow each
    other; one that was left early begins anew when the loader is iterated again.

    manifest: its folder or file, or an open Subset
    streaming: workers read windows of neighbours instead of batches planned ahead, which is quicker for distant files
    drop_last: leave out the last, smaller batch
    collate_fn: makes a batch of a list of items; `collate` unless given
    loader: further arguments of torch's DataLoader: pin_memory, persistent_workers, prefetch_factor, …
    options: Options; decode="tensor" gives images as uint8 of (3, height, width)

    Raises UsageError for options that make no sense, ManifestError, and, while reading, SampleError.
    """

    def __init__(
        self,
        manifest: str | Path | Subset,
        batch_size: int = 1,
        *,
        num_workers: int = 0,
        drop_last: bool = False,
        streaming: bool = False,
        collate_fn: Callable[[list[Item]], Batch] | None = None,
        loader: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> None:
        if batch_size < 1 or not 0 <= num_workers < WORKERS:
            raise UsageError(f"batch_size={batch_size} must be at least 1, num_workers={num_workers} below {WORKERS}")
        if own := sorted(_OWN & set(loader or ())):
            raise UsageError(f"loader= may not hold {', '.join(own)}, which SubsetLoader sets itself")
        making, ordering = split_options(options)
        self.dataset = SubsetDataset(manifest, **making)
        self.plan = Plan(self.dataset.items, ordering)
        self._batch, self._drop_last = batch_size, drop_last
        self._streams = max(num_workers, 1) if streaming else 0
        if streaming and hasattr(self.plan.sampler, "state_dict"):
            raise UsageError(f"{self.plan.sampler!r} learns from losses, which streaming workers do not hear")
        self.epoch = 0
        self._place = _Place(self._streams)
        self._is_loaded = False
        self._drawn: tuple[int, I64] | None = None
        given = {"num_workers": num_workers, "collate_fn": _Collate(collate_fn or collate), **(loader or {})}
        self._batches = _Batches(batch_size)
        self._shared = torch.zeros(2 + self._streams, dtype=torch.int64).share_memory_()
        if streaming:
            streams = _Streams(self.dataset, self.plan, self._shared, batch_size, drop_last)
            self._loader = DataLoader(streams, batch_size=None, **given)
        else:
            self._loader = DataLoader(_Numbered(self.dataset), batch_sampler=self._batches, **given)

    @property
    def skipped(self) -> dict[str, int]:
        """Return {reason: samples} that were skipped, by all workers; they are missing in their batches."""
        return self.dataset.skipped

    def __len__(self) -> int:
        """Return this rank's batches in this epoch, those in which everything is skipped included."""
        return math.ceil(self._images().size / self._batch)

    def set_epoch(self, epoch: int) -> None:
        """Iterate over this epoch next, from its beginning; if it is the one that was loaded, from where it stood."""
        if epoch != self.epoch:
            self.epoch, self._place, self._is_loaded = epoch, _Place(self._streams), False

    def __iter__(self) -> Iterator[Batch]:
        if not self._is_loaded:
            self._place = _Place(self._streams)
        self._is_loaded = False
        images, scale = self._images(), self.plan.scale()
        if self._streams:
            self._shared[:] = torch.tensor([self.epoch, self._place.turn, *self._place.streams])
        else:
            self._batches.images, self._batches.scale, self._batches.start = images, scale, self._place.batches
        for stream, position, batch in self._loader:
            self._place.move(stream, position)
            if batch is not None:
                yield batch
        self.set_epoch(self.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs: numbers and texts; with InfoBatch also tensors, on each rank its own."""
        state = {"epoch": self.epoch, "settings": self._settings(), **self._place.as_dict()}
        if isinstance(self.plan.sampler, InfoBatch):
            learned = self.plan.sampler.state_dict()
            state["sampler"] = {name: torch.as_tensor(value) for name, value in learned.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the last batch that was given before the state was taken.

        Raises UsageError when it is of another manifest or other settings.
        """
        epoch, batches = position_of(state, self._settings())
        if isinstance(self.plan.sampler, InfoBatch):
            self.plan.sampler.load_state_dict({name: value.numpy() for name, value in state["sampler"].items()})
        self.epoch, self._drawn, self._is_loaded = epoch, None, True
        self._place = _Place(self._streams, batches, state.get("turn", 0), state.get("streams"))

    def _settings(self) -> dict[str, Any]:
        return self.plan.settings(batch_size=self._batch, drop_last=self._drop_last, streams=self._streams)

    def _images(self) -> I64:
        """Return the images of this epoch, drawn once; ranks tell each other the losses that they heard before."""
        if self._drawn is None or self._drawn[0] != self.epoch:
            sampler = self.plan.sampler
            ranks = torch.distributed.is_available() and torch.distributed.is_initialized()
            if isinstance(sampler, InfoBatch) and ranks and 0 <= sampler.epoch != self.epoch:
                sampler.merge(_sum_over_ranks)
            images = self.plan.images(self.epoch, batch=self._batch, drop_last=self._drop_last)
            self._drawn = self.epoch, images
        return self._drawn[1]


class _Place:
    """Where an epoch stands: batches given; of streams, the position of each, and whose turn it is."""

    def __init__(self, streams: int, batches: int = 0, turn: int = 0, positions: Sequence[int] | None = None) -> None:
        self.batches, self.turn = batches, turn
        self.streams = list(positions or [0] * streams)

    def move(self, stream: int, position: int) -> None:
        """Take account of a batch of a stream that ends at a position."""
        self.batches += 1
        if self.streams:
            self.streams[stream], self.turn = position, (stream + 1) % len(self.streams)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"position": self.batches, "turn": self.turn, "streams": list(self.streams)}


class _Batches:
    """A batch sampler: (row, its scale or None) of one batch after another, from batch `start` on."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.images: I64 = np.zeros(0, dtype=np.int64)
        self.scale: F32 | None = None
        self.start = 0

    def __iter__(self) -> Iterator[list[tuple[int, np.float32 | None]]]:
        for at in range(self.start * self._size, self.images.size, self._size):
            rows = self.images[at : at + self._size]
            scale = [None] * rows.size if self.scale is None else list(self.scale[rows])
            yield list(zip(rows.tolist(), scale, strict=True))

    def __len__(self) -> int:
        return -(-self.images.size // self._size) - self.start


class _Numbered:
    """What workers get for batches that are planned ahead: first rows and scales to stream 0, position 0, and items."""

    def __init__(self, dataset: SubsetDataset) -> None:
        self._dataset = dataset

    def __getitems__(self, planned: list[tuple[int, np.float32 | None]]) -> tuple[int, int, list[Item]]:
        step = self._dataset.items.step
        items = self._dataset.__getitems__([row // step for row, _ in planned])
        scales = {row: scale for row, scale in planned if scale is not None}
        return 0, 0, [item | {"scale": scales[item["row"]]} for item in items] if scales else items


class _Streams(IterableDataset):  # type: ignore[misc]
    """What streaming workers get: stream, position after it, and items of each batch.

    shared: (2 + streams,) int64: the epoch, the stream whose turn it is, and the positions where they begin. The first
    worker is asked first, so it reads the stream whose turn it is.
    """

    def __init__(self, dataset: SubsetDataset, plan: Plan, shared: torch.Tensor, size: int, drop_last: bool) -> None:
        self._dataset, self._plan, self._shared, self._size, self._drop_last = dataset, plan, shared, size, drop_last

    def __iter__(self) -> Iterator[tuple[int, int, list[Item]]]:
        plan = self._plan
        worker, workers = this_worker(plan.items)
        epoch, turn, *starts = self._shared.tolist()
        stream = (worker + turn) % workers
        images = plan.images(epoch, stream, workers, batch=self._size, drop_last=self._drop_last)
        items = read_items(plan.items, images, plan.order.window, starts[stream])
        for position, batch in batched(items, self._size, images.size):
            yield stream, position, batch


class _Collate:
    """Makes a batch of items, and None of no items."""

    def __init__(self, collate_fn: Callable[[list[Item]], Batch]) -> None:
        self._collate = collate_fn

    def __call__(self, found: tuple[int, int, list[Item]]) -> tuple[int, int, Batch]:
        stream, position, items = found
        return stream, position, self._collate(items) if items else None


def _sum_over_ranks(values: F64) -> F64:
    """Return an array summed over all ranks, on each of them."""
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    tensor = torch.from_numpy(values).to(device)
    torch.distributed.all_reduce(tensor)
    summed: F64 = tensor.cpu().numpy()
    return summed
