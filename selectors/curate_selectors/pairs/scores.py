"""Filters of image-text pairs that keep the top of one score."""

from __future__ import annotations

from dataclasses import dataclass

from curate_selectors.topscore import TopScore


@dataclass(frozen=True, slots=True)
class ClipScore(TopScore):
    """The pairs whose caption fits the image best: Hessel et al., EMNLP 2021; LAION-400M, arXiv:2111.02114.

    column: name of the score; lowest: the lowest values first instead
    """

    column: str = "align"


@dataclass(frozen=True, slots=True)
class NegClip(TopScore):
    """The pairs that fit each other better than the other images and captions: Wang et al., NeurIPS 2024.

    column: name of the score; lowest: the lowest values first instead
    """

    column: str = "pvi_infonce"


@dataclass(frozen=True, slots=True)
class NormSim(TopScore):
    """The rows most like a target set: Wang et al., NeurIPS 2024, equation 5.

    column: `normsim_2` (as a whole) or `normsim_inf` (its nearest); lowest: the lowest values first instead
    """

    column: str = "normsim_2"


@dataclass(frozen=True, slots=True)
class Vas(TopScore):
    """The rows in the directions in which a target set varies: Wang et al., 2024, arXiv:2402.02055.

    column: name of the score; lowest: the lowest values first instead
    """

    column: str = "vas"
