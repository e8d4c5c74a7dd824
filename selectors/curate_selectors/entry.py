"""One row of the table of methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a method is, what it reads, who wrote it.

    target: `module:Class`; kind: which protocols it meets; `pool`: none, `curate select` cuts and reads what it chooses
    needs: fields of `Candidates` (`embeddings` for x, `text`, `captions`, `labels`, `groups`, `target`); `images` for
        the files of a pool's rows; `score:NAME` for `scores["NAME"]`: NAME is a column of `curate methods --scores`,
        or a score, whose columns are then all there and whose first one has the score's name too; `{PARAMETER}` is what
        a parameter says, and `score:` of an empty one is no need; `a or b` where either will do; `a?` is read where it
        is at hand, and rows that lack it stay candidates
    nested: with the same seed a smaller selection is a prefix of a larger one
    """

    target: str
    kind: tuple[Literal["stream", "subset", "pool"], ...]
    needs: tuple[str, ...]
    paper: str
    summary: str
    nested: bool = True
