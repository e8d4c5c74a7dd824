"""The two protocols behind which every method stands."""

from __future__ import annotations

from typing import Protocol

from curate_kernels.arrays import F32
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


class Pass(Protocol):
    """A selector at work on rows that arrive."""

    def add(self, rows: F32) -> None:
        """Take the next rows (b, d), unit rows, any number of them. Raises SelectorError for NaN or another d."""
        ...

    def chosen(self, count: int) -> Selection:
        """Return what `select` picks from all rows so far, which must be `count` at least; more rows may follow."""
        ...


class OnePassSelector(SubsetSelector, Protocol):
    """A subset selector that need not see all candidates at once. Checked by `checks.check_batches`."""

    def begin(self, most: int | None, seed: int) -> Pass:
        """Return a pass over rows that arrive, of which at most `most` will be asked for; None: any number."""
        ...
