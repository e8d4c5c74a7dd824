"""Clusters' prototypes: how far a row lies from its centre tells how typical it is (Sorscher et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_selectors.coverage.rank import clusters_of
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Rows by their distance to the centre of their own cluster (spherical k-means, whose
    centres are fitted on 64 rows a cluster).

    keep: "far", hard rows first, where data abound; "near", easy ones, where they are scarce
    clusters: how many; 0: √n
    """

    keep: str = "far"
    clusters: int = 0

    def __post_init__(self) -> None:
        if self.keep not in {"far", "near"}:
            raise SelectorError(f"keep is {self.keep!r}; it must be 'far' or 'near'")
        if self.clusters < 0:
            raise SelectorError(f"clusters is {self.clusters}; it must be 0 or more")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is the distance, or minus it. Time O(n clusters d), memory O(n + clusters d)."""
        check_count(data, count)
        x = need_rows(data, "prototypes")
        if not data.n:
            return in_order(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        far = clusters_of(x, self.clusters, seed)[1]
        worth = far if self.keep == "far" else -far
        index = np.argsort(-worth, kind="stable")[:count]
        return in_order(index, worth[index])
