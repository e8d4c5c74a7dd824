"""DataComp's basic filter: Gadre et al., DataComp, NeurIPS 2023, arXiv:2304.14108, appendix on baselines."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import B1
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, need_score
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class DatacompBasic:
    """A uniform draw among the pairs that pass every rule; those that fail come after, fewest failures first.

    Rules: a caption of more than `words` words and `chars` characters; in English, judged by its letters, of which the
    share `latin` must be A to Z (they ask a language detector); a shorter side of at least `side` pixels; a longer one
    of at most `aspect` times the shorter. Sizes are the scores `width` and `height`.
    """

    words: int = 2
    chars: int = 5
    latin: float = 0.9
    side: int = 200
    aspect: float = 3.0

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` picks; gain is 1 for those that pass, less ¼ per rule that fails. Memory O(n)."""
        check_count(data, count)
        if data.captions is None or len(data.captions) != data.n:
            has = "none" if data.captions is None else len(data.captions)
            raise SelectorError(f"method 'datacomp-basic' needs {data.n} captions; there are {has}")
        width, height = (need_score(data, name, "datacomp-basic") for name in ("width", "height"))
        small, large = np.minimum(width, height), np.maximum(width, height)
        failed = self._too_short(data.captions).astype(np.int64) + self._foreign(data.captions)
        failed += (small < self.side).astype(np.int64) + (large > self.aspect * small)
        order = np.random.default_rng(seed).permutation(data.n)
        index = order[np.argsort(failed[order], kind="stable")][:count].astype(np.int64)
        size = np.bincount(failed, minlength=5)
        before = np.cumsum(size) - size
        share = np.clip((count - before) / np.maximum(size, 1), 0.0, 1.0)[failed[index]]
        gain = (1.0 - failed[index] / 4).astype(np.float32)
        return Selection(index, gain, np.ones(count, dtype=np.float32), share.astype(np.float32))

    def _too_short(self, captions: Sequence[str | None]) -> B1:
        texts = [" ".join((caption or "").split()) for caption in captions]
        return np.array([t.count(" ") + 1 <= self.words or len(t) <= self.chars for t in texts], dtype=np.bool_)

    def _foreign(self, captions: Sequence[str | None]) -> B1:
        found = np.ones(len(captions), dtype=np.bool_)
        for i, caption in enumerate(captions):
            # Decomposed, an accent is a mark of its own and the letter counts.
            letters = [c for c in unicodedata.normalize("NFD", caption or "") if c.isalpha()]
            found[i] = not letters or sum(c.isascii() for c in letters) < self.latin * len(letters)
        return found
