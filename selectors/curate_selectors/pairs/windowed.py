"""k-center among the best: the window widens with the selection, so that quality comes first and every prefix holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_selectors.coverage.blocks import TAKEN
from curate_selectors.coverage.kcenter import farther
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, need_rows, need_score, need_text
from curate_selectors.types import Candidates, Selection

_FIRST = 16  # rows that the first window serves; each serves √2 times as many as the one before
_SURE = 0.75  # of the rows above the gate: below lie most of the faults that pass it


@dataclass(frozen=True, slots=True)
class WindowedKCenter:
    """Farthest-point traversal of the rows with the best scores, `window` times as many as are chosen or a little more.

    With a small budget easy, clean rows teach most (Sorscher et al., NeurIPS 2022, arXiv:2206.14486), and among them
    different ones: neither the best rows nor the farthest ones alone are good. The windows serve 16, 22, 32, … rows
    whatever is asked for, so smaller selections are prefixes of larger ones. Once the window holds three quarters of
    the rows that reach `least`, it stays; what remains follows by score.

    score: high is good; least: rows below come last; window: at least 1
    view: `joint`, distances of image and caption count alike, where there are captions; `image`: that of the image
    """

    score: str = "pvi"
    least: float = 0.0
    window: float = 2.5
    view: str = "joint"

    def __post_init__(self) -> None:
        if not self.window >= 1:
            raise SelectorError(f"window is {self.window}; it must be at least 1")
        if not np.isfinite(self.least):
            raise SelectorError(f"least is {self.least}; it must be a number")
        if self.view not in {"joint", "image"}:
            raise SelectorError(f"view is {self.view!r}; it must be 'joint' or 'image'")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows in order; gain is the distance to the nearest earlier one, 0 of what follows by score.

        Time O(window count² d), memory O(n d) for the joint embeddings.
        """
        del seed  # nothing is drawn
        check_count(data, count)
        x = need_rows(data, "windowed-kcenter")
        if self.view == "joint" and data.text is not None:
            x = joint(x, need_text(data, "windowed-kcenter"))
        index, gain = windowed(x, need_score(data, self.score, "windowed-kcenter"), count, self.window, self.least)
        ones = np.ones(count, dtype=np.float32)
        return Selection(index, gain, ones, ones.copy())


def joint(x: F32, text: F32) -> F32:
    """Return images (n, d) and captions (n, t) side by side, (n, d + t): a distance is the mean of both ones."""
    return np.hstack([x, text]) * np.float32(np.sqrt(0.5))


def windowed(x: F32, score: F32, count: int, window: float, least: float) -> tuple[I64, F32]:
    """Return `count` rows of x (n, d) in order and their gains; score: (n,), NaN is the worst."""
    rank = np.argsort(-np.where(np.isnan(score), -np.inf, score), kind="stable").astype(np.int64)
    sure = int(np.ceil(_SURE * int((score >= least).sum())))
    index, gain = np.empty(min(count, sure), dtype=np.int64), np.empty(min(count, sure), dtype=np.float32)
    bound = np.full(x.shape[0], TAKEN, dtype=np.float32)
    fresh = np.zeros(x.shape[0], dtype=np.int64)
    done = opened = 0
    serves = float(_FIRST)
    while done < index.size:
        wide = min(int(np.ceil(window * serves)), sure)
        bound[rank[opened:wide]] = 2.0  # no distance is longer
        opened = wide
        goal = index.size if wide == sure else min(int(serves), index.size)
        if not done:
            inside = np.sort(rank[:wide])
            index[0] = inside[np.argmax(x[inside] @ x[inside].mean(axis=0))]
            gain[0], bound[index[0]], done = 1.0, TAKEN, 1
        farther(x, bound, fresh, index[:goal], gain[:goal], done)
        done, serves = goal, serves * np.sqrt(2.0)
    rest = rank[~np.isin(rank, index)][: count - done]
    return np.concatenate([index, rest]), np.concatenate([gain, np.zeros(rest.size, dtype=np.float32)])
