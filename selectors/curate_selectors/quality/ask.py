"""Ask-LLM: Sachdeva et al., How to Train Data-Efficient LLMs, 2024, arXiv:2402.09668, section 3.1."""

from __future__ import annotations

from dataclasses import dataclass

from curate_selectors.topscore import TopScore


@dataclass(frozen=True, slots=True)
class Ask(TopScore):
    """The rows that a model would rather train on.

    column: name of the score; lowest: the lowest values first instead
    """

    column: str = "ask"
