"""What a linear probe's short training tells of each row: gradient norms early on, and forgetting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order
from curate_selectors.training.probe import Labelled
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class Grand:
    """The rows of the largest gradients first: E ‖∇ℓ‖ = E ‖p - y‖ ‖x̃‖ over several trainings, early in them.

    Paul et al., NeurIPS 2021, arXiv:2107.07075, definition 2.1. Rows without a label come last.

    repeats: trainings from other weights; epochs: of each
    """

    repeats: int = 5
    epochs: int = 3

    def __post_init__(self) -> None:
        _at_least_one(repeats=self.repeats, epochs=self.epochs)

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return the `count` largest; gain is the norm. Time O(repeats epochs n C d), memory O(n (C + d))."""
        check_count(data, count)
        known = Labelled.of(data, "grand")
        total = np.zeros(known.y.size)
        for repeat in range(self.repeats):
            error = known.errors(known.trained(self.epochs, seed + repeat))
            total += np.linalg.norm(error, axis=1)
        return _highest(known, total * known.norms() / self.repeats, data.n, count)


@dataclass(frozen=True, slots=True)
class Forgetting:
    """The rows that a probe forgets most often first: right after one epoch, wrong after a later one.

    Rows that are never right count as forgotten once more than any other can be. Toneva et al., ICLR 2019,
    arXiv:1812.05159, algorithm 1, by epochs. Of equally many the one wrong in more epochs comes first. Rows without a
    label come last.

    epochs: of the training
    """

    epochs: int = 20

    def __post_init__(self) -> None:
        _at_least_one(epochs=self.epochs)

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return the `count` most forgotten; gain is how often. Time O(epochs n C d), memory O(n (C + d))."""
        check_count(data, count)
        known = Labelled.of(data, "forgetting")
        before = np.zeros(known.y.size, dtype=np.bool_)
        times = np.zeros(known.y.size)
        wrong = np.zeros(known.y.size)
        for weight in known.train(self.epochs, seed):
            right = np.zeros(known.y.size, dtype=np.bool_)
            for part, features in known.tiles():
                right[part] = (features @ weight.T).argmax(axis=1) == known.y[part]
            times += before & ~right
            wrong += ~right
            before = right
        times[wrong == self.epochs] = self.epochs
        chosen = _highest(known, times + wrong / (self.epochs + 1), data.n, count)
        return in_order(chosen.index, np.floor(chosen.gain))


def _at_least_one(**given: int) -> None:
    for name, value in given.items():
        if value < 1:
            raise SelectorError(f"{name} is {value}; it must be at least 1")


def _highest(known: Labelled, value: F64, n: int, count: int) -> Selection:
    """Return the labelled rows of the highest values, ties to the lowest row, then the others with gain 0."""
    told = value.astype(np.float32)  # what differs by rounding only is equal
    column = np.zeros(n, dtype=np.float32)
    column[known.rows] = told
    index = known.then_others(np.argsort(-told, kind="stable"), n)[:count]
    return in_order(index, column[index])
