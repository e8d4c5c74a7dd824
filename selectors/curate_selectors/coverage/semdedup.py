"""SemDeDup: near duplicates inside clusters go first (Abbas et al. 2023); D4: then the most typical (Tirumala 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_selectors.coverage.rank import clusters_of
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.types import Candidates, Selection

_TILE = 512
_LONGEST = 16  # times the mean size of a cluster: longer ones are cut


@dataclass(frozen=True, slots=True)
class SemDeDup:
    """The rows that are least similar to any row before them in their cluster.

    A cluster's rows come in order of distance to its centre. Published, a row goes when one before it is nearer than
    ε; here the budget sets ε, so the rows that remain are those of the published form at that ε.

    keep: of near duplicates the one "far" from the centre, as published, or "near"
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
        """Return `count` rows, those first that duplicate least; gain is 1 - cosine to the nearest row before.

        Time O(n clusters d + n² d / clusters), memory O(n + clusters d) and a cluster's rows.
        """
        check_count(data, count)
        x = need_rows(data, "semdedup")
        sim = similarity_before(x, *clusters_of(x, self.clusters, seed), self.keep == "far")
        index = np.argsort(sim, kind="stable")[:count]
        return in_order(index, 1 - sim[index])


@dataclass(frozen=True, slots=True)
class D4:
    """SemDeDup down to a share, then rows far from the centres of new clusters of what remains.

    share: of the rows, after which deduplication ends; a larger budget takes the rest, least duplicate first
    clusters: how many each time; 0: √n
    """

    share: float = 0.75
    clusters: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SelectorError(f"share is {self.share}; it must lie in (0, 1]")
        if self.clusters < 0:
            raise SelectorError(f"clusters is {self.clusters}; it must be 0 or more")

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is the distance to the new centre, 0 for duplicates. Time, memory as SemDeDup."""
        check_count(data, count)
        x = need_rows(data, "d4")
        sim = similarity_before(x, *clusters_of(x, self.clusters, seed), True)
        order = np.argsort(sim, kind="stable")
        left = np.sort(order[: int(np.ceil(self.share * data.n))])
        far = clusters_of(x[left], self.clusters, seed)[1]
        best = np.argsort(-far, kind="stable")
        index = np.concatenate([left[best], order[left.size :]])[:count]
        gain = np.concatenate([far[best], np.zeros(data.n - left.size, dtype=np.float32)])[:count]
        return in_order(index, gain)


def similarity_before(x: F32, cluster: I64, far: F32, far_first: bool) -> F32:
    """Return each row's cosine to the most similar row before it in its cluster, (n,) float32; -1 for the first.

    cluster: (n,) int64; far: (n,) distance to the cluster's centre, by which rows come, the farthest first or last
    Clusters over 16 times the mean (4,096 rows at least) are cut: duplicates lie equally far from the centre.
    """
    n = x.shape[0]
    order = np.lexsort((-far if far_first else far, cluster))
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    longest = max(4096, _LONGEST * n // max(starts.size, 1))
    sim = np.full(n, -1.0, dtype=np.float32)
    not_before = np.triu(np.ones((_TILE, _TILE), dtype=np.bool_))
    for start, stop in zip(starts, np.append(starts, n)[1:], strict=True):
        for piece in range(start, stop, longest):
            rows = order[piece : min(piece + longest, stop)]
            held = x[rows]
            for low in range(0, rows.size, _TILE):
                tile = held[low : low + _TILE]
                product = tile @ held[: low + tile.shape[0]].T
                product[:, low:][not_before[: tile.shape[0], : tile.shape[0]]] = -1.0
                sim[rows[low : low + _TILE]] = np.maximum(product.max(axis=1), -1.0)
    return sim
