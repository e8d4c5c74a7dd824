"""A threshold in the words of the user: the share of good samples that may be lost.

The scores are a mixture of good and bad samples. What bad ones look like is known: real samples put together wrongly
(a caption of another image, a label of another class). With F the observed and B the bad distribution function, the
share of bad samples is at most F(t)/B(t) at every t, and close to it at the low end, where good samples are rare;
then F_good = (F - share B) / (1 - share) tells what any threshold loses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from curate_kernels.arrays import F64

_LEVELS = np.linspace(0.20, 0.60, 9)
_WINDOW = 5


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
    observed, bad_scores = np.sort(scores), np.sort(wrong)
    n, m = observed.size, bad_scores.size
    levels = np.quantile(bad_scores, _LEVELS)
    ratio = (np.searchsorted(observed, levels, "right") / n) / (np.searchsorted(bad_scores, levels, "right") / m)
    # One level alone is noise, and good samples lift the higher ones: the least mean over neighbouring levels.
    bad = float(min(np.convolve(ratio, np.full(_WINDOW, 1 / _WINDOW), "valid").min(), 0.95))
    below = np.searchsorted(observed, observed, "left") / n  # share of scores strictly below each score
    caught = np.searchsorted(bad_scores, observed, "left") / m
    lost = np.maximum.accumulate(np.clip((below - bad * caught) / (1 - bad), 0.0, 1.0))
    precise = bad * caught >= min_precision * below
    fits = np.flatnonzero((lost <= max_loss) & precise)
    at = int(fits[-1]) if fits.size else 0
    return Threshold(float(observed[at]), bad, float(lost[at]), float(caught[at]))
