"""A manifest opened to be read in epochs by one rank, from the options that all readers share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypedDict

from curate.budgets import Budget
from curate.errors import UsageError
from curate.loaders.items import Items
from curate.loaders.order import Order, Uneven, this_rank
from curate.loaders.samplers import InfoBatch, Sampler
from curate.loaders.subset import Subset
from curate.loaders.tally import Tally
from curate_kernels.arrays import F32, I64

_LOG = logging.getLogger("curate")


class ItemOptions(TypedDict, total=False):
    """What a reader reads, and what it makes of it: see Subset and Items."""

    roots: Mapping[str, str]
    budget: Budget
    decode: str | Callable[[bytes], Any]
    transform: Callable[[Any], Any]
    columns: Sequence[str]
    tiles: int
    verify: bool
    on_error: Literal["raise", "skip"]
    max_pixels: int


class OrderOptions(TypedDict, total=False):
    """Order and share of a reader: see Order, `curate.loaders.samplers` and `this_rank`."""

    shuffle: bool
    seed: int
    block: int
    window: int
    uneven: Uneven
    sampler: Sampler
    rank: int
    world_size: int


class Options(ItemOptions, OrderOptions):
    """All options of a reader that chooses its own order."""


def open_items(manifest: str | Path | Subset, options: Mapping[str, Any], tally: Tally | None = None) -> Items:
    """Return the items of a manifest. options: ItemOptions. Raises UsageError for others."""
    if unknown := sorted(options.keys() - ItemOptions.__annotations__.keys()):
        raise UsageError(f"unknown options: {', '.join(unknown)}; known are {', '.join(Options.__annotations__)}")
    opening = {name: options[name] for name in ("roots", "budget") if name in options}
    if isinstance(manifest, Subset) and opening:
        raise UsageError("roots and budget are given where the manifest is opened: Subset(manifest, roots=, budget=)")
    subset = manifest if isinstance(manifest, Subset) else Subset(manifest, **opening)
    making = {name: value for name, value in options.items() if name not in opening}
    return Items(subset, tally=tally, **making)


class Plan:
    """The epochs of one rank. Options are Order's, `sampler`, `rank` and `world_size`."""

    def __init__(self, items: Items, options: Mapping[str, Any]) -> None:
        rest = dict(options)
        self.items = items
        self.sampler: Sampler | None = rest.pop("sampler", None)
        self.rank, self.world = this_rank(rest.pop("rank", None), rest.pop("world_size", None))
        self.order = Order(**rest)
        if self.world > 1 and self.order.uneven == "keep":
            _LOG.warning(
                "ranks may differ by one sample, as each is read exactly once; training that waits for all ranks in "
                "each step needs uneven='pad' or 'drop'"
            )

    def share(self, epoch: int) -> I64:
        """Return (m,) int64: this rank's images of an epoch, by their first rows, not yet mixed."""
        drawn = self.order.epoch(self.items.subset, self.sampler, epoch, self.items.step)
        return self.order.share(drawn, self.rank, self.world)

    def images(self, epoch: int, worker: int = 0, workers: int = 1, *, batch: int = 1, drop_last: bool = False) -> I64:
        """Return (m,) int64: the images of an epoch, in order, that one of this rank's workers reads.

        batch: images that are not split among workers; drop_last: without the last, incomplete one
        """
        share = self.share(epoch)
        mine = self.order.split(share[: share.size - share.size % batch if drop_last else None], worker, workers, batch)
        return self.order.mixed(mine, epoch, self.rank * workers + worker)

    def scale(self) -> F32 | None:
        """Return (n,) float32: by row, the factor of the loss in the epoch drawn last; None without InfoBatch."""
        return self.sampler.scale() if isinstance(self.sampler, InfoBatch) else None

    def settings(self, **more: object) -> dict[str, Any]:
        """Return what must be equal for a position to mean the same, as JSON has it."""
        has_address = type(self.sampler).__repr__ is object.__repr__  # another one in each run
        subset = self.items.subset
        return {
            "manifest": subset.digest,
            "rows": subset.n,
            "tiles": self.items.step,
            **asdict(self.order),
            "sampler": type(self.sampler).__name__ if has_address else repr(self.sampler),
            "world_size": self.world,
            **more,
        }


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of items, with any that are unknown, and those of the order."""
    ordering = {name: value for name, value in options.items() if name in OrderOptions.__annotations__}
    return {name: value for name, value in options.items() if name not in ordering}, ordering


def position_of(state: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[int, int]:
    """Return epoch and position of a state. Raises UsageError when it is of another order, and says of which."""
    try:
        found, epoch, position = dict(state["settings"]), int(state["epoch"]), int(state["position"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"this is no state of a reader of curate: {error!r} is missing or damaged") from None
    if other := sorted(name for name in settings.keys() | found.keys() if settings.get(name) != found.get(name)):
        differences = ", ".join(f"{name}: {found.get(name)} then, {settings.get(name)} now" for name in other)
        raise UsageError(f"the state is of another order ({differences}); only the same settings go on exactly")
    return epoch, position
