"""Data selection by importance resampling: Xie et al., NeurIPS 2023, arXiv:2302.03169.

log w = log p_target - log p_raw at each row, then Gumbel top-k over log w (their section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F64
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, need_score
from curate_selectors.sampling import draw
from curate_selectors.sketch import Sketch
from curate_selectors.tiles import row_tiles, sample_tile
from curate_selectors.types import Candidates, Selection

_SAMPLE = 16_384
_BITS = 8


@dataclass(frozen=True, slots=True)
class Dsir:
    """Resampling so that what is drawn is distributed as the target.

    Hash codes of embeddings stand for the published hashed n-grams: log w is the score `importance` where there is one,
    else comes from sketches of the target set and of the candidates, with the same hashes.

    hashes: size of the sketches, 2048 · hashes bytes each
    """

    hashes: int = 1000

    def __post_init__(self) -> None:
        if self.hashes < 1:
            raise SelectorError(f"hashes is {self.hashes}; it must be at least 1")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` draws; gain is log w in nats. Reads the embeddings twice by tiles; memory O(n)."""
        check_count(data, count)
        if "importance" in data.scores:
            ratio = need_score(data, "importance", "dsir").astype(np.float64)
        else:
            ratio = self._by_embeddings(data)
        index, chance = draw(ratio, count, seed)
        return Selection(index, ratio[index].astype(np.float32), np.ones(count, dtype=np.float32), chance)

    def _by_embeddings(self, data: Candidates) -> F64:
        sample = sample_tile(data, "dsir", _SAMPLE)
        target = data.target
        if target is None or target.ndim != 2 or not target.shape[0] or target.shape[1] != sample.shape[1]:
            has = "none was given" if target is None else f"it has shape {target.shape}"
            raise SelectorError(
                f"method 'dsir' needs the score 'importance', or a target set of (m ≥ 1, {sample.shape[1]}) rows; {has}"
            )
        ratio = np.zeros(data.n)
        if not data.n:
            return ratio
        raw = Sketch(sample, self.hashes, _BITS, seed=0)
        aim = raw.copy_empty()
        aim.add(aim.codes(np.ascontiguousarray(target, dtype=np.float32)))
        for _, rows in row_tiles(data, "dsir"):
            raw.add(raw.codes(rows))
        for start, rows in row_tiles(data, "dsir"):
            codes = raw.codes(rows)
            # One more row in each sketch, spread over all cells evenly: an empty cell gives a finite ratio.
            both = [np.log((s.query(codes) + 2.0**-_BITS) / (s.n + 1.0)) for s in (aim, raw)]
            ratio[start : start + rows.shape[0]] = both[0] - both[1]
        return ratio
