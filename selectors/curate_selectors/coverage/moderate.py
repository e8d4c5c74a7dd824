"""Moderate coreset: rows neither typical nor odd (Xia et al., ICLR 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate_selectors.coverage.rank import classes_of
from curate_selectors.inputs import check_count, in_order, need_rows
from curate_selectors.types import Candidates, Selection


@dataclass(frozen=True, slots=True)
class Moderate:
    """Rows whose distance to the mean of their class is nearest to the class's median; every class gives one share.

    Without labels clusters (spherical k-means, √n of them) stand for classes.
    """

    def select(self, data: Candidates, count: int, seed: int) -> Selection:
        """Return `count` rows; gain is minus the distance from the median. Time O(nd) with labels, memory O(n)."""
        check_count(data, count)
        x = need_rows(data, "moderate")
        group, far = classes_of(data, x, "moderate", seed)
        away, part = np.empty(data.n, dtype=np.float32), np.empty(data.n, dtype=np.float64)
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        for rows in np.split(order, starts[1:]):
            away[rows] = np.abs(far[rows] - np.median(far[rows])) if rows.size else 0
            part[rows[np.argsort(away[rows], kind="stable")]] = (np.arange(rows.size) + 0.5) / max(rows.size, 1)
        index = np.argsort(part, kind="stable")[:count]
        return in_order(index, -away[index])
