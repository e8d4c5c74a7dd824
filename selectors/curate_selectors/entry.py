"""One row of the table of methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a method is, what it reads, who wrote it.

    target: `module:Class`; kind: which protocols it meets
    needs: fields of `Candidates` (`embeddings` for x, `text`, `captions`, `labels`, `groups`, `target`);
        `score:NAME` for `scores["NAME"]`, which that score of `curate methods --scores` computes;
        `a or b` where either will do
    nested: a smaller selection is a prefix of a larger one
    """

    target: str
    kind: tuple[Literal["stream", "subset"], ...]
    needs: tuple[str, ...]
    paper: str
    summary: str
    nested: bool = True
