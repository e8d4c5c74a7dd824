"""One row of the table of methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a method is, what it reads, who wrote it.

    target: `module:Class`; kind: which protocols it meets; `pool`: none, `curate select` cuts and reads what it chooses
    needs: fields of `Candidates` (`embeddings` for x, `text`, `captions`, `labels`, `groups`, `target`); `images` for
        the files of a pool's rows; `score:NAME` for `scores["NAME"]`: NAME is a column of `curate methods --scores`,
        or a score, whose columns are then all there and whose first one has the score's name too; `{PARAMETER}` is what
        a parameter says, and `score:` of an empty one is no need; `a or b` where either will do, what is at hand before
        what is computed; `a else b` where b will do, but only if a cannot be computed and names no other parameter than
        the default; `a?` is read where it is at hand (of
        plain arrays a score is computed if it can be), and rows that lack it stay candidates
    nested: with the same seed a smaller selection is a prefix of a larger one, weights and all
    draws: rows are taken by chance, and their probabilities are told
    tiled: embeddings are only ever sliced, so they need not fit memory

    Where one depends on parameters, the class has a property of the same name and the entry says what holds with
    the defaults.
    """

    target: str
    kind: tuple[Literal["stream", "subset", "pool"], ...]
    needs: tuple[str, ...]
    paper: str
    summary: str
    nested: bool = True
    draws: bool = False
    tiled: bool = False

    def nested_as(self, made: Any) -> bool:
        """Tell whether a method made with its parameters is nested."""
        return bool(getattr(made, "nested", self.nested))

    def draws_as(self, made: Any) -> bool:
        """Tell whether a method made with its parameters draws."""
        return bool(getattr(made, "draws", self.draws))

    def tiled_as(self, made: Any) -> bool:
        """Tell whether a method made with its parameters reads embeddings by slices only."""
        return bool(getattr(made, "tiled", self.tiled))
