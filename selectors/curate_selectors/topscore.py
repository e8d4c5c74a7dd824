"""The rows that a score ranks first: one class for every method that is no more than that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_selectors.inputs import check_count, in_order, need_score
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class TopScore:
    """The highest values of a score first.

    column: name of the score; lowest: the lowest values first instead
    """

    column: str
    lowest: bool = False

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return the `count` best rows, ties to the lowest index; gain is the score. Memory O(n)."""
        del seed  # nothing is drawn
        check_count(data, count)
        score = need_score(data, self.column, f"top by {self.column}")
        index = np.argsort(score if self.lowest else -score, kind="stable")[:count]
        return in_order(index, score[index])
