"""InfoBatch as a subset: well-learned rows are thinned at random, hard ones stay (Qin et al., arXiv:2303.04947)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_selectors.inputs import check_count, need_score
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class InfoBatch:
    """Rows whose loss is at least the mean all stay; of the others as many as the budget leaves, drawn uniformly.

    The loss is -log p_y of a leave-one-out probe. The published rate r of pruning follows from the budget, 1 - r is the
    probability of a thinned row, and the published rescaling 1 / (1 - r) its inverse, the Horvitz-Thompson weight: sums
    over the selection are unbiased. With a budget below the hard rows' number those are drawn, and sums are biased.

    score: column of p_y
    """

    score: str = "confidence"

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows, hard ones first, in random order; gain is the loss in nats. Memory O(n)."""
        check_count(data, count)
        p = need_score(data, self.score, "infobatch").astype(np.float64)
        loss = -np.log(np.clip(p, 1e-12, 1.0))
        hard = loss >= loss.mean() if data.n else np.zeros(0, dtype=np.bool_)
        order = np.random.default_rng(seed).permutation(data.n)
        order = np.concatenate([order[hard[order]], order[~hard[order]]])
        index = order[:count].astype(np.int64)
        many = int(hard.sum())
        first, rest = min(1.0, count / max(many, 1)), max(0, count - many) / max(data.n - many, 1)
        chance = np.where(hard[index], first, rest).astype(np.float32)
        return Selection(index, loss[index].astype(np.float32), np.ones(count, dtype=np.float32), chance)
