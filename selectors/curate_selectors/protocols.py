"""The two protocols behind which every method stands."""

from __future__ import annotations

from typing import Protocol

from curate_selectors.types import Batch, Candidates, Decision, Selection


class StreamSelector(Protocol):
    """Decides batch by batch. Parameters are the fields of a frozen dataclass."""

    def decide(self, batch: Batch) -> Decision:
        """Return the decision for each row of a batch, in row order; inputs are not changed."""
        ...


class SubsetSelector(Protocol):
    """Ranks a finished set of candidates. Parameters are the fields of a frozen dataclass."""

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` picks, best first (0 ≤ count ≤ n); the same input and seed give the same picks.

        With the same seed a smaller count is a prefix of a larger one, unless the method's entry, or a property
        `nested` of its own, says that it is not nested. Ties go to the lowest index.
        """
        ...
