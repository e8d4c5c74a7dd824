"""A threshold in the words of the user: the share of good samples that may be lost.

The scores are a mixture of good and bad samples. What bad ones look like is known: real samples put together wrongly
(a caption of another image, a label of another class). With F the observed and B the bad distribution function, the
share of bad samples is at most F(t)/B(t) at every t, and close to it at the low end, where good samples are rare;
then F_good = (F - share B) / (1 - share) tells what any threshold loses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from curate_kernels.arrays import F64, I64

_LEVELS = np.linspace(0.20, 0.60, 9)
_WINDOW = 5
_GRID = 1025  # points at which the losses of all classes are compared
_HALVINGS = 40
_UNEVEN = 1.7  # below 2, so that the share that a small class really loses stays below twice the largest's
_SPREAD = 0.05  # between classes, of the good share below the same score


@dataclass(frozen=True, slots=True)
class Threshold:
    """A calibrated gate: scores below `value` are refused.

    bad: estimated share of bad samples; lost: estimated share of good ones refused; caught: of bad ones
    """

    value: float
    bad: float
    lost: float
    caught: float

    def as_dict(self) -> dict[str, float]:
        """Return the four numbers, to be saved."""
        return asdict(self)


def calibrate(scores: F64, wrong: F64, max_loss: float, min_precision: float) -> Threshold:
    """Return the largest threshold that loses at most `max_loss` of the good samples, by the mixture above.

    scores: (n,) of the samples as they are, higher is better; wrong: (m,) of samples put together wrongly.
    Of the refused, at least `min_precision` must be bad by the same estimate, so a clean collection loses little.
    """
    observed = np.sort(scores)
    bad = _bad_share(scores, wrong)
    below, caught = _below(scores, observed), _below(wrong, observed)
    lost = np.maximum.accumulate(np.clip((below - bad * caught) / (1 - bad), 0.0, 1.0))
    precise = bad * caught >= min_precision * below
    fits = np.flatnonzero((lost <= max_loss) & precise)
    at = int(fits[-1]) if fits.size else 0
    return Threshold(float(observed[at]), bad, float(lost[at]), float(caught[at]))


@dataclass(frozen=True, slots=True)
class Observed:
    """Scores of one class: (n,) of its samples as they are and (m,) of wrong ones, higher is better.

    offset: what makes scores of different classes comparable once it is added
    """

    scores: F64
    wrong: F64
    offset: float


def calibrate_classes(classes: Mapping[int, Observed], max_loss: float, min_precision: float) -> dict[int, Threshold]:
    """Return a threshold for each class, such that together they lose at most `max_loss` of all good samples.

    A small class may lose up to 1.7 times the share that the largest loses: wrong labels come from the large classes,
    so a refusal in a small one is far more often right. At least `min_precision` of all that is refused must be bad.
    A class of few samples, whose own losses are known badly, borrows those of all classes (empirical Bayes).
    """
    if not classes:
        return {}
    labels = sorted(classes)
    parts = [classes[label] for label in labels]
    grid = np.unique(np.quantile(np.concatenate([p.scores + p.offset for p in parts]), np.linspace(0, 1, _GRID)))
    n = np.array([p.scores.size for p in parts], dtype=np.float64)
    bad = np.array([_bad_share(p.scores, p.wrong) for p in parts])
    below = np.stack([_below(p.scores + p.offset, grid) for p in parts])
    caught = np.stack([_below(p.wrong + p.offset, grid) for p in parts])
    lost = _shrunk_losses(below, caught, bad, n)
    good, every = n * (1 - bad), np.arange(n.size)
    allowed = np.minimum(_UNEVEN, np.sqrt(good.max() / good))

    def places(share: float) -> I64:
        return np.array(
            [np.searchsorted(row, share * more, "right") - 1 for row, more in zip(lost, allowed, strict=True)]
        )

    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        at = places(share)
        losses, catches = float(good @ lost[every, at]), float((n * bad) @ caught[every, at])
        fits = losses <= max_loss * good.sum() and catches >= min_precision * (catches + losses)
        low, high = (share, high) if fits else (low, share)
    return {
        label: Threshold(float(grid[at] - part.offset), float(bad[i]), float(lost[i, at]), float(caught[i, at]))
        for i, (label, part, at) in enumerate(zip(labels, parts, places(low), strict=True))
    }


def _shrunk_losses(below: F64, caught: F64, bad: F64, n: F64) -> F64:
    """Return the share of good samples below each point of the grid, (K, g); below, caught: (K, g), bad, n: (K,).

    Each class's own estimate is drawn to the mean over classes as far as its sampling error exceeds their spread.
    """
    own = np.clip((below - bad[:, None] * caught) / (1 - bad[:, None]), 0.0, 1.0)
    error = (below * (1 - below) / n[:, None] + 1 / n[:, None] ** 2) / (1 - bad[:, None]) ** 2
    weight = 1 / (error + _SPREAD**2)
    mean = (weight * own).sum(axis=0) / weight.sum(axis=0)
    trust = _SPREAD**2 / (error + _SPREAD**2)
    return np.maximum.accumulate(trust * own + (1 - trust) * mean, axis=1)


def _bad_share(scores: F64, wrong: F64) -> float:
    """Return the estimated share of bad samples among `scores`."""
    levels = np.quantile(wrong, _LEVELS)
    ratio = _below(scores, levels, "right") / _below(wrong, levels, "right")
    # One level alone is noise, and good samples lift the higher ones: the least mean over neighbouring levels.
    return float(min(np.convolve(ratio, np.full(_WINDOW, 1 / _WINDOW), "valid").min(), 0.95))


def _below(values: F64, points: F64, side: Literal["left", "right"] = "left") -> F64:
    """Return the share of values strictly below each point ("left"), or at most at it ("right")."""
    return np.searchsorted(np.sort(values), points, side) / values.size
