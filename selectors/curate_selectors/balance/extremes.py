"""The ends of a score: by any name, hard negatives, anomalies first or last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_score
from curate_selectors.topscore import TopScore
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class AnyScore(TopScore):
    """The highest values of a score first.

    column: name of the score; lowest: the lowest values first instead
    """

    column: str = "pvi"


@dataclass(frozen=True, slots=True)
class AnomalyFirst(TopScore):
    """The strangest rows first: the largest Mahalanobis distance.

    column: anomaly, anomaly_class or anomaly_relative; lowest: the most usual first instead
    """

    column: str = "anomaly"


@dataclass(frozen=True, slots=True)
class AnomalyLast(TopScore):
    """The most usual rows first: the smallest Mahalanobis distance.

    column: anomaly, anomaly_class or anomaly_relative; lowest: the most usual first, as it should be here
    """

    column: str = "anomaly"
    lowest: bool = True


@dataclass(frozen=True, slots=True)
class HardNegative:
    """The rows most like another class than their own first, but for the very first, which are put last.

    Wrong labels look like the hardest negatives of all: where the labels were not gated, put some aside.

    column: how much more a row is like another class; aside: share of the rows, the highest, that come last
    """

    column: str = "negative_margin"
    aside: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.aside < 1:
            raise SelectorError(f"aside is {self.aside}; it must lie in [0, 1)")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return the `count` hardest rows, ties to the lowest index; gain is the margin. Memory O(n)."""
        del seed  # nothing is drawn
        check_count(data, count)
        margin = need_score(data, self.column, "hard-negative")
        order = np.argsort(-margin, kind="stable")
        aside = int(self.aside * data.n)
        index = np.concatenate([order[aside:], order[:aside][::-1]])[:count]
        return in_order(index, margin[index])
