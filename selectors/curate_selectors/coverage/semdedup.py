"""SemDeDup: near duplicates inside clusters go first (Abbas et al. 2023); D4: then the most typical (Tirumala 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_selectors.coverage.rank import clusters_in_tiles, clusters_of
from curate_selectors.errors import SelectorError
from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.parts import over_parts
from curate_selectors.types import Candidates, Selection

_TILE = 512
_LONGEST = 16  # times the mean size of a cluster: longer ones are cut
_PART_BYTES = 1 << 32  # float32 rows in memory at a time
_PARTS_EACH = 4  # of a worker, where there are several: parts are not equally long


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

        Time O(n clusters d + n² d / clusters). The embeddings need only be sliced: memory O(n), 64 rows a cluster to
        train centres, and the rows of as many clusters as fit 4 GiB, read once for each such part.
        """
        check_count(data, count)
        sim = similarity_in_parts(data, *clusters_in_tiles(data, "semdedup", self.clusters, seed), self.keep == "far")
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


def similarity_in_parts(data: Candidates, cluster: I64, far: F32, far_first: bool) -> F32:
    """Return what `similarity_before` does, (n,), with the rows of some whole clusters in memory at a time."""
    if isinstance(data.x, np.ndarray) and not isinstance(data.x, np.memmap) and data.x.dtype == np.float32:
        return similarity_before(data.x, cluster, far, far_first)
    assert data.x is not None
    sizes = np.bincount(cluster) if data.n else np.zeros(0, dtype=np.int64)
    longest = _longest(data.n, int(np.count_nonzero(sizes)))
    most = max(_PART_BYTES // (4 * max(data.x.shape[1], 1)), 1)
    most = min(most, max(-(-data.n // (_PARTS_EACH * getattr(data.x, "workers", 0) or 1)), 1))
    part = np.cumsum(sizes) // most  # of each cluster; none is cut, so a part may hold one cluster's rows more
    owner = np.unique(part[cluster], return_inverse=True)[1].reshape(-1).astype(np.int64)
    told = [{"far_first": far_first, "longest": longest}] * (int(owner.max(initial=-1)) + 1)
    sim = np.empty(data.n, dtype=np.float32)
    found = over_parts(data, "semdedup", owner, _similarity, told, {"cluster": cluster, "far": far})
    for number, own in enumerate(found):
        sim[owner == number] = own["sim"]
    return sim


def _similarity(x: F32, told: dict[str, Any]) -> dict[str, F32]:
    return {"sim": similarity_before(x, told["cluster"], told["far"], told["far_first"], told["longest"])}


def similarity_before(x: F32, cluster: I64, far: F32, far_first: bool, longest: int = 0) -> F32:
    """Return each row's cosine to the most similar row before it in its cluster, (n,) float32; -1 for the first.

    cluster: (n,) int64; far: (n,) distance to the cluster's centre, by which rows come, the farthest first or last
    longest: clusters of more rows are cut, as duplicates lie equally far from the centre; 0: 16 times the mean, or 4096
    """
    n = x.shape[0]
    order = np.lexsort((-far if far_first else far, cluster))
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    longest = longest or _longest(n, starts.size)
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


def _longest(n: int, clusters: int) -> int:
    return max(4096, _LONGEST * n // max(clusters, 1))
