"""Clusters of clusters, and equal budgets from the top down (Vo et al. 2024, arXiv:2405.15613)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from curate_kernels.arrays import F32, F64, I64
from curate_selectors.balance.shares import turns
from curate_selectors.coverage.clusters import lloyd, spherical_centres, training_rows
from curate_selectors.coverage.rank import ROUNDS, nearest_centre
from curate_selectors.errors import SelectorError
from curate_selectors.fill import fill, in_turns
from curate_selectors.inputs import check_count, need_rows
from curate_selectors.parts import by_row, some_rows
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class Hierarchical:
    """k-means on the rows, then on the centres, and so on; each node shares its budget evenly among its children.

    A child that has fewer rows gives all of them, and chance says which children have one more than others. Centres are
    fitted again and again on the rows nearest to each, so that they spread over the support rather than over the
    density.

    levels: clusters of each level, finest first; (): about n^(2/3) and n^(1/3)
    resample, nearest: how often centres are fitted again, and on how many rows each
    leaf: which rows of a finest cluster come first: "random", or "nearest" to its centre
    """

    levels: tuple[int, ...] = ()
    resample: int = 10
    nearest: int = 10
    leaf: str = "random"

    def __post_init__(self) -> None:
        if self.leaf not in {"random", "nearest"}:
            raise SelectorError(f"leaf is {self.leaf!r}; it must be 'random' or 'nearest'")
        if self.resample < 0 or self.nearest < 1 or any(k < 1 for k in self.levels):
            raise SelectorError("resample must be at least 0, nearest and every level at least 1")

    @property
    def draws(self) -> bool:
        """Tell whether rows are taken by chance."""
        return self.leaf == "random"

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is the cosine to the own centre.

        Probability is the chance that the own cluster reaches the row, over all orders of clusters (and of its rows,
        where they are drawn), given the clusters: sums weighted by its inverse are unbiased where leaves are random.
        Time O(n levels[0] d), memory O(n + levels[0] d).
        """
        check_count(data, count)
        data = data if hasattr(data.x, "by_row") else replace(data, x=need_rows(data, "hierarchical"))
        rng = np.random.default_rng(seed)
        n = data.n
        nodes, sim = self._tree(data, self.levels or (int(n ** (2 / 3)) or 1, int(n ** (1 / 3)) or 1), rng)
        order = rng.permutation(n) if self.leaf == "random" else np.argsort(-sim, kind="stable")
        for node in nodes:
            order = in_turns(node, order, rng.permutation(n))
        index = order[:count].astype(np.int64)
        return Selection(index, sim[index], np.ones(count, dtype=np.float32), self._chances(nodes, order, count))

    def _tree(self, data: Candidates, levels: tuple[int, ...], rng: np.random.Generator) -> tuple[list[I64], F32]:
        """Return each row's node in every level, finest first, and its cosine to the finest one's centre."""
        nodes: list[I64] = []
        own = np.zeros(data.n, dtype=np.float32)
        points, to_points = data, np.arange(data.n, dtype=np.int64)
        for clusters in levels if data.n else ():
            centre = spread_centres(points, clusters, self.resample, self.nearest, rng)
            at, sim = _assigned(points, centre)
            own = own if nodes else sim
            to_points = at[to_points]
            nodes.append(to_points)
            points = Candidates(n=centre.shape[0], x=centre)
        return nodes or [to_points], own

    def _chances(self, nodes: list[I64], order: I64, count: int) -> F32:
        """Return the chance of each of the first `count` rows in `order`."""
        mean = expected(nodes, count)[nodes[0][order[:count]]]
        if self.leaf == "random":
            chance = mean / np.bincount(nodes[0])[nodes[0][order[:count]]]
        else:  # a cluster gives its first rows, and the next with the chance of what is left over
            turn, _ = turns(nodes[0], order)
            chance = np.clip(mean - turn[order[:count]], 0.0, 1.0)
        return chance.astype(np.float32)


def expected(nodes: list[I64], count: int) -> F64:
    """Return how many rows each finest node gives on average, whichever of its equals comes first.

    A node gives one of two neighbouring numbers, between which its children's shares are linear, so that shares of
    averages are averages of shares.
    nodes: of each row in every level, finest first; the nodes of a level lie inside those of the next
    """
    share, parent = np.array([float(count)]), np.zeros(nodes[0].size, dtype=np.int64)
    for node in nodes[::-1]:
        names, row = np.unique(node, return_index=True)
        size = np.bincount(node)
        below = np.zeros(size.size)
        above = parent[row]
        by_parent = np.argsort(above, kind="stable")
        for children in np.split(by_parent, np.flatnonzero(np.diff(above[by_parent])) + 1) if names.size else ():
            below[names[children]] = fill(size[names[children]], float(share[above[children[0]]]))
        share, parent = below, node
    return share


def spread_centres(data: Candidates, clusters: int, resample: int, nearest: int, rng: np.random.Generator) -> F32:
    """Return centres (k, d) of k-means, fitted again `resample` times on the `nearest` rows to each centre."""
    clusters = min(clusters, data.n)
    centre = spherical_centres(
        some_rows(data, "hierarchical", training_rows(data.n, clusters, rng)), clusters, ROUNDS, rng
    )
    for _ in range(resample):
        at, sim = _assigned(data, centre)
        order = np.lexsort((-sim, at))
        first = np.flatnonzero(np.diff(at[order], prepend=-1))
        place = np.arange(order.size) - np.repeat(first, np.diff(first, append=order.size))
        centre = lloyd(some_rows(data, "hierarchical", np.sort(order[place < nearest])), centre, 3)
    return centre


def _assigned(data: Candidates, centre: F32) -> tuple[I64, F32]:
    found = by_row(data, "hierarchical", partial(nearest_centre, centre), max(data.n, 1))
    return found["at"], found["sim"]
