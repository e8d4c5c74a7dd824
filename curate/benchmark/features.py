"""Frozen embeddings as the tasks read them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from curate.benchmark.world import World
from curate.errors import UsageError
from curate_kernels.arrays import F32, F64

_KEPT: dict[tuple[str, str, int], tuple[F64, F64]] = {}  # of the world at hand: every cell of it reads the same


def of_world(world: World, view: Literal["image", "text"], dims: int) -> tuple[F64, F64]:
    """Return the components of a world's training rows and of its held-out rows. Raises UsageError without captions."""
    key = (world.digest, view, dims)
    if key not in _KEPT:
        for old in [old for old in _KEPT if old[0] != world.digest]:
            del _KEPT[old]
        x, t = world.x, world.test_x
        if view == "text":
            if world.text is None or world.base.text is None:
                raise UsageError("this task needs captions, and the collection has none")
            x, t = world.text, world.base.text[world.test]
        _KEPT[key] = components(x, t, dims)
    return _KEPT[key]


def components(x: F32, t: F32, dims: int) -> tuple[F64, F64]:
    """Return x (n, p) and t (m, p) by the first `dims` principal components of x, all p of them in place if dims is 0.

    Square roots are taken first where no feature is negative. Centred on x, mean square 1 a coordinate. The components
    are those of all training rows, so they are the same for every selector.
    """
    wide, other = x.astype(np.float64), t.astype(np.float64)
    if min(wide.min(initial=0.0), other.min(initial=0.0)) >= 0:
        wide, other = np.sqrt(wide), np.sqrt(other)
    centre = wide.mean(axis=0)
    wide, other = wide - centre, other - centre
    if 0 < dims < wide.shape[1]:
        axes = np.linalg.eigh(wide.T @ wide)[1][:, ::-1][:, :dims]
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(dims)]
        axes = axes * np.where(largest < 0, -1.0, 1.0)  # an eigenvector's sign is the library's
        wide, other = wide @ axes, other @ axes
    scale = max(float(np.sqrt((wide**2).mean())), 1e-12)
    return wide / scale, other / scale
