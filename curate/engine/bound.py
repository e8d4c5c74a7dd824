"""A kept set of bounded size: a weighted reservoir, in which a sample's weight is its gain.

Efraimidis & Spirakis 2006 (doi:10.1016/j.ipl.2005.11.003): of n samples those with the m largest log w + G, G standard
Gumbel, are m successive draws without replacement with probability proportional to w: InfoGrowth's sampling (Dataset
Growth, arXiv:2405.18347), valid at any time. A sample's G is a function of its uid, so that nothing depends on when it
came or how often it is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from curate_kernels.arrays import B1, F32, F64

if TYPE_CHECKING:
    from curate.engine.core import Engine

_SLACK = 5  # an eviction makes room for a fifth of the bound and a batch
_QUANTILE = 0.99  # gains at or above this quantile count alike, as in the sampler


def luck(uids: Sequence[str]) -> F64:
    """Return each sample's Gumbel noise (b,) float64, a function of its uid (hex digits)."""
    uniform = np.array([int(uid[:13], 16) for uid in uids], dtype=np.float64)
    draw: F64 = -np.log(-np.log((uniform + 0.5) / 16.0**13))
    return draw


def is_crowded(engine: Engine, kept: int) -> bool:
    """Tell whether the next batch might not fit."""
    limits = engine.recipe.limits
    return 0 < limits.max_kept < kept + limits.batch_size


def bar(engine: Engine) -> tuple[float, float]:
    """Return (least, top): a sample enters where log(min(gain, top)) + luck reaches least."""
    bound = engine.state.bound
    if bound is None or bound.max_kept != engine.recipe.limits.max_kept:
        return -np.inf, np.inf
    return bound.least, bound.top


def room(engine: Engine) -> int:
    """Return how many an eviction leaves, so that it is paid for by many arrivals."""
    limits = engine.recipe.limits
    return int(max(limits.max_kept - limits.batch_size - limits.max_kept // _SLACK, 1))


def keys(gain: F32, luck: F64, top: float) -> F64:
    """Return what samples are ordered by, (n,) float64; gain: (n,) float32, as it is now."""
    key: F64 = np.log(np.clip(gain.astype(np.float64), 1e-300, top)) + luck
    return key


def reservoir(engine: Engine, gain: F32, uids: Sequence[str], luck: F64, sure: B1) -> tuple[B1, float, float]:
    """Return which of the kept stay (n,) bool, and the bar (least, top) for those to come. Ties: the lowest uid.

    sure: (n,) bool, those that stay whatever they gain
    """
    top = float(np.quantile(gain, _QUANTILE)) or 1.0
    key = keys(gain, luck, top)
    order = np.lexsort((np.array(uids), -key, ~sure))
    stays = np.zeros(gain.size, dtype=np.bool_)
    stays[order[: room(engine)]] = True
    drawn = key[stays & ~sure]
    return stays, float(drawn.min() if drawn.size else key.max()), top
