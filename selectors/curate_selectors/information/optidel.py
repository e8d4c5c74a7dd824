"""OptiDEL, in an honest form: V-information of a set by diversity behind a gate, inside a hardness window.

After: Maximizing V-information for Pre-training Superior Foundation Models, arXiv:2408.07107. Its aim is a set S with
large H_V(Y|∅), by diversity, and small H_V(Y|X), by hard samples. Pointwise, though, hard means large -log q(y|x) and
so *low* information, and noise is hardest of all: ranking by either sign of it is wrong. Here noise is refused by its
own information, hardness is a window of quantiles, and diversity alone is maximised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_selectors.coverage.logdet import LogDet
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_rows, need_score
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class OptiDel:
    """Rows with pvi ≥ threshold, of them a window of hardness s1, of them the most diverse: greedy log-determinant.

    The log-determinant of the set's second moments is its entropy H_V(Y|∅) under the Gaussian family, as s0 is a
    row's. If the gate leaves too few, the rest follow by pvi, highest first. The window depends on the count, so a
    smaller selection is not a prefix.

    view: whose `pvi_<view>` and `s1_<view>` are read: self, text, image, label, infonce, learned, vote
    threshold: least pvi, bits; epochs: passes that training will make over the selection, see `hardness_window`
    ridge: σ² of the log-determinant, in units of 1/d, the mean square of a unit row's entries
    """

    view: str = "self"
    threshold: float = 0.0
    epochs: float = 10.0
    ridge: float = 1.0

    def __post_init__(self) -> None:
        if not self.epochs > 0 or not self.ridge > 0:
            raise SelectorError(f"epochs {self.epochs}, ridge {self.ridge}: both must be above 0")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` picks; gain is what each adds to the entropy, bits. Time O(n d count), memory O(n + d²)."""
        check_count(data, count)
        x = need_rows(data, "optidel")
        pvi = need_score(data, f"pvi_{self.view}", "optidel")
        hard = need_score(data, f"s1_{self.view}", "optidel")
        clean = np.flatnonzero(pvi >= self.threshold)
        inside = clean[_window(hard[clean], count, self.epochs)]
        among = Candidates(n=inside.size, x=x[inside])
        diverse = LogDet(self.ridge / max(x.shape[1], 1)).select(among, min(count, inside.size), seed)
        left = np.setdiff1d(np.arange(data.n), inside)
        rest = left[np.argsort(-pvi[left], kind="stable")][: max(count - inside.size, 0)]
        gain = np.concatenate([diverse.gain / (2 * np.log(2)), np.zeros(rest.size)])
        return in_order(np.concatenate([inside[diverse.index], rest]), gain.astype(np.float32))


def hardness_window(count: int, n: int, epochs: float) -> tuple[float, float]:
    """Return the quantiles of hardness, easiest 0 … hardest 1, between which `count` of n rows are chosen.

    Half of the rows that the budget leaves over are cut by hardness, the other half is left to diversity to refuse. The
    cut takes from the easy end the share u = p / (1 + p), p = epochs · count / n, the passes that training makes
    over the whole: with little training keep the easy, with much the hard (Sorscher et al., NeurIPS 2022,
    arXiv:2206.14486, section 2; Goyal et al., CVPR 2024, arXiv:2404.07177, on compute). The form of u is ours.
    """
    share = min(count / n, 1.0) if n else 1.0
    passes = epochs * share
    cut = (1.0 - share) / 2.0
    low = cut * passes / (1.0 + passes)
    return low, low + 1.0 - cut


def _window(hard: F32, count: int, epochs: float) -> I64:
    """Return the positions inside the window, at least `count` of them if there are as many; ties in order."""
    low, high = hardness_window(count, hard.size, epochs)
    first = int(np.floor(low * hard.size + 1e-9))
    last = int(np.ceil(high * hard.size - 1e-9))
    return np.sort(np.argsort(hard, kind="stable")[first:last])
