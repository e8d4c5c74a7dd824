"""The order of an epoch: which images, shuffled by blocks of neighbours, and which of them each process reads."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curate.errors import UsageError
from curate.loaders.samplers import Sampler
from curate.loaders.subset import Subset
from curate_kernels.arrays import I64

Uneven = Literal["keep", "pad", "drop"]


@dataclass(frozen=True, slots=True)
class Order:
    """How an epoch's images are ordered and shared. Equal settings give equal orders, on every machine.

    shuffle: blocks of `block` images that lie beside each other come in random order, and images are mixed within
        windows of `window`; block=1 is a uniform permutation. Without it images come in rank order, best first
    seed: of the shuffles and of what samplers draw; each epoch has draws of its own
    uneven: what happens when ranks cannot have equally many: "keep" (each image once; ranks differ by one at most),
        "pad" (some images twice), "drop" (some images left out, other ones each epoch if shuffled)

    Raises UsageError for what makes no sense.
    """

    shuffle: bool = True
    seed: int = 0
    block: int = 32
    window: int = 1024
    uneven: Uneven = "keep"

    def __post_init__(self) -> None:
        if self.block < 1 or self.window < 1:
            raise UsageError(f"block={self.block} and window={self.window} must be at least 1")
        if self.seed < 0:
            raise UsageError(f"seed={self.seed} must not be negative")
        if self.uneven not in ("keep", "pad", "drop"):
            raise UsageError(f"uneven={self.uneven!r} must be 'keep', 'pad' or 'drop'")

    def epoch(self, subset: Subset, sampler: Sampler | None, epoch: int, step: int = 1) -> I64:
        """Return (m,) int64: the first rows of an epoch's images, for all processes; drawn twice, one is twice in it.

        step: rows of an image. Raises UsageError when a sampler is to draw images of several rows.
        """
        if epoch < 0:
            raise UsageError(f"epoch {epoch} must not be negative")
        if sampler is not None and step > 1:
            raise UsageError("a sampler draws rows, and tiles are several rows; give one or the other")
        drawn = sampler.counts(subset, epoch, self._rng(epoch, 0)) if sampler else None
        by_rank = np.arange(0, subset.n, step, dtype=np.int64)
        base = subset.by_place if self.shuffle and step == 1 else by_rank
        if drawn is not None:
            base = np.repeat(base, drawn[base])
        if not self.shuffle:
            return base
        starts = self._rng(epoch, 1).permutation(-(-base.size // self.block)).astype(np.int64) * self.block
        at = (starts[:, None] + np.arange(self.block)).ravel()
        blocks: I64 = base[at[at < base.size]]
        return blocks

    def share(self, images: I64, rank: int, world: int) -> I64:
        """Return the images of one of `world` ranks."""
        m = images.size
        if self.uneven == "drop":
            m -= m % world
        elif self.uneven == "pad" and m:
            m += -m % world
        together = np.arange(rank * m // world, (rank + 1) * m // world)  # so do neighbours
        at = together if self.shuffle else np.arange(rank, m, world)
        mine: I64 = images[at % max(images.size, 1)]
        return mine

    def split(self, images: I64, worker: int, workers: int, batch: int = 1) -> I64:
        """Return the images of one of a rank's workers: whole batches, the last of which may be smaller."""
        batches = -(-images.size // batch)
        if self.shuffle:
            return images[worker * batches // workers * batch : (worker + 1) * batches // workers * batch]
        mine: I64 = images[np.arange(images.size) // batch % workers == worker]
        return mine

    def mixed(self, images: I64, epoch: int, part: int) -> I64:
        """Return images mixed within windows, if the order is shuffled. part: number of what they are a part of."""
        if not self.shuffle:
            return images
        window = np.arange(images.size) // self.window
        mixed: I64 = images[np.lexsort((self._rng(epoch, 2, part).random(images.size), window))]
        return mixed

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])


def this_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and number of ranks: as given, else of torch.distributed, else of RANK and WORLD_SIZE, else 0 of 1.

    Raises UsageError when only one is given, or rank is not below world_size.
    """
    if (rank is None) != (world_size is None):
        raise UsageError("rank and world_size must be given together, or neither")
    if rank is None or world_size is None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        else:
            rank, world_size = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} must be at least 0 and below world_size {world_size}")
    return rank, world_size


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdigit():
        raise UsageError(f"the environment's {name}={text!r} is not a number; give rank= and world_size=")
    return int(text)
