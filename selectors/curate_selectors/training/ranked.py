"""Methods that rank by one score of a probe, or of a target set."""

from __future__ import annotations

from dataclasses import dataclass

from curate_selectors.topscore import TopScore


@dataclass(frozen=True, slots=True)
class El2n(TopScore):
    """The largest errors ‖p - y‖ of a leave-one-out probe first: the hardest rows, wrong labels among them.

    column: name of the score; lowest: the easiest first instead
    """

    column: str = "el2n"


@dataclass(frozen=True, slots=True)
class Margin(TopScore):
    """The smallest lead of the label's probability over the others' first.

    column: name of the score; lowest: the smallest first, as it should be here
    """

    column: str = "margin"
    lowest: bool = True


@dataclass(frozen=True, slots=True)
class Entropy(TopScore):
    """The least certain predictions first, whatever the label.

    column: name of the score; lowest: the most certain first instead
    """

    column: str = "entropy"


@dataclass(frozen=True, slots=True)
class InRunShapley(TopScore):
    """The rows first that took most off a target set's loss in a probe's training.

    column: name of the score; lowest: the most harmful first instead
    """

    column: str = "shapley_in_run"


@dataclass(frozen=True, slots=True)
class KnnShapley(TopScore):
    """The rows first that are worth most to a nearest-neighbour classifier of a target set.

    column: name of the score; lowest: the most harmful first instead
    """

    column: str = "shapley_knn"


@dataclass(frozen=True, slots=True)
class Bayes(TopScore):
    """The rows first from which most is still to be learned that is not noise: reducible surprise.

    column: name of the score; lowest: the least first instead
    """

    column: str = "bayes"
