"""Which images an epoch sees, and how often: by weight, by InfoGrowth's two phases, by InfoBatch's pruning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from curate.errors import UsageError
from curate.loaders.subset import Subset
from curate_kernels.arrays import F32, F64, I64


class Sampler(Protocol):
    """Draws an epoch's images. A pure function of its settings, state, `epoch` and `rng`, so that all ranks agree."""

    def counts(self, subset: Subset, epoch: int, rng: np.random.Generator) -> I64:
        """Return (n,) int64: how often the epoch sees each row."""
        ...


@dataclass(frozen=True, slots=True)
class Weighted:
    """Draws with replacement, with chances in proportion to a column.

    column: finite numbers, none negative, not all 0
    draws: images of an epoch; as many as the manifest has unless given
    """

    column: str = "weight"
    draws: int | None = None

    def counts(self, subset: Subset, epoch: int, rng: np.random.Generator) -> I64:
        """Return how often each image is drawn."""
        weight = _column(subset, self.column)
        total = np.cumsum(weight)
        if not weight.size or total[-1] <= 0:
            raise UsageError(f"column {self.column!r} has no weight above 0; nothing can be drawn")
        draws = weight.size if self.draws is None else self.draws
        # Not beyond the last image with a weight, where rounding would lead.
        drawn = np.searchsorted(total, rng.random(draws) * total[-1], side="right")
        return np.bincount(np.minimum(drawn, np.flatnonzero(weight)[-1]), minlength=weight.size)


@dataclass(frozen=True, slots=True)
class Repeats:
    """Repeats each image as often as a column says; a fraction is the chance of once more, drawn anew each epoch."""

    column: str = "weight"

    def counts(self, subset: Subset, epoch: int, rng: np.random.Generator) -> I64:
        """Return how often each image is repeated."""
        weight = _column(subset, self.column)
        whole = np.floor(weight)
        return (whole + (rng.random(weight.size) < weight - whole)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class TwoPhase:
    """Keeps each image with the chance of `epoch_odd` in odd, `epoch_even` in even epochs; epoch 0 is the first, odd.

    InfoGrowth (Qin et al. 2024, arXiv 2405.18347), section 3.4: odd epochs see what is informative, even ones the rest.
    The manifest has both columns where the method draws by information gain.
    """

    def counts(self, subset: Subset, epoch: int, rng: np.random.Generator) -> I64:
        """Return 1 for images kept, 0 for others."""
        name = "epoch_even" if epoch % 2 else "epoch_odd"
        if name not in subset.columns:
            raise UsageError(
                f"the manifest has no column {name!r}; choose it by a method that draws by gain: infogrowth"
            )
        chance = _column(subset, name)
        return (rng.random(chance.size) < chance).astype(np.int64)


class InfoBatch:
    """Leaves out a share of what the model already does well, and gives the rest of it more weight in the loss.

    Images whose last loss is below the mean are left out with probability `ratio`; those that stay have `scale`
    1 / (1 - ratio) in their items, by which the loss must be multiplied, so that gradients stay unbiased. Epochs from
    `anneal` · `epochs` on see everything (Qin et al. 2023, arXiv 2303.04947, equations 3 to 5; ratio .5, anneal .875).

    Feed losses back with `update`; they count from the next epoch on. Each image has the loss that was fed back last;
    one without is never left out.

    Raises UsageError for settings that make no sense.
    """

    def __init__(self, epochs: int, ratio: float = 0.5, anneal: float = 0.875) -> None:
        if not 0 <= ratio < 1 or not 0 <= anneal <= 1 or epochs < 1:
            raise UsageError(f"InfoBatch(epochs={epochs}, ratio={ratio}, anneal={anneal}): ratio must lie in [0, 1), "
                             "anneal in [0, 1], and epochs must be at least 1")  # fmt: skip
        self.epochs, self.ratio, self.anneal = epochs, ratio, anneal
        self._epoch = -1
        self._judged = self._fresh = np.zeros(0, dtype=np.float32)
        self._heard = np.zeros(0, dtype=bool)  # in this epoch

    def update(self, rows: ArrayLike, losses: ArrayLike) -> None:
        """Take the losses, (b,) floats, of items, (b,) numbers as in their `row`.

        Raises UsageError before the first epoch has begun, or when a loss is not finite.
        """
        index, values = np.asarray(rows, dtype=np.int64), np.asarray(losses, dtype=np.float32)
        if not self._fresh.size:
            raise UsageError("losses can be fed back once an epoch has begun")
        if index.shape != values.shape or not np.isfinite(values).all():
            raise UsageError("each row needs one finite loss")
        self._fresh[index], self._heard[index] = values, True

    @property
    def epoch(self) -> int:
        """Return the epoch that has begun, -1 before the first."""
        return self._epoch

    def merge(self, add: Callable[[F64], F64]) -> None:
        """Take the losses that other ranks heard in this epoch. add: sums an array over all ranks, for each of them."""
        times = add(self._heard.astype(np.float64))
        total = add(np.where(self._heard, self._fresh, 0).astype(np.float64))
        heard = times > 0
        self._fresh[heard] = (total[heard] / times[heard]).astype(np.float32)

    def __repr__(self) -> str:
        return f"InfoBatch(epochs={self.epochs}, ratio={self.ratio}, anneal={self.anneal})"

    def counts(self, subset: Subset, epoch: int, rng: np.random.Generator) -> I64:
        """Return 1 for images kept, 0 for others."""
        self._begin(subset, epoch)
        out = self._below() & (rng.random(subset.n) < self.ratio)
        return (~out).astype(np.int64)

    def scale(self) -> F32:
        """Return (n,) float32: the factor of each image's loss in the epoch that has begun."""
        return np.where(self._below(), 1 / (1 - self.ratio), 1.0).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and the losses that it was drawn by and those since, as arrays."""
        return {"epoch": self._epoch, "judged": self._judged.copy(), "fresh": self._fresh.copy(),
                "heard": self._heard.copy()}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as the sampler that gave the state."""
        self._epoch = int(state["epoch"])
        self._judged = np.array(state["judged"], dtype=np.float32)
        self._fresh = np.array(state["fresh"], dtype=np.float32)
        self._heard = np.array(state["heard"], dtype=bool)

    def _begin(self, subset: Subset, epoch: int) -> None:
        if self._fresh.size != subset.n:
            self._fresh = np.full(subset.n, np.nan, dtype=np.float32)
            self._epoch = -1
        if epoch != self._epoch:
            self._epoch, self._judged = epoch, self._fresh.copy()
            self._heard = np.zeros(subset.n, dtype=bool)

    def _below(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        known = np.isfinite(self._judged)
        if self._epoch >= self.anneal * self.epochs or not known.any():
            return np.zeros(self._judged.size, dtype=bool)
        below: np.ndarray[Any, np.dtype[np.bool_]] = known & (self._judged < self._judged[known].mean(dtype=np.float64))
        return below


def _column(subset: Subset, name: str) -> F64:
    """Return a column, (n,) float64; UsageError when a number is negative or not finite."""
    values = subset.numbers(name).astype(np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise UsageError(f"column {name!r} of the manifest holds negative or infinite numbers")
    return values
