"""What several methods rank by: the distance to the own centre, and how hard each row is."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from curate_kernels.arrays import F32, F64, I64, unit_rows
from curate_kernels.codes import add_rows
from curate_selectors.coverage.clusters import assign, spherical_centres, training_rows
from curate_selectors.inputs import need_labels, need_rows, need_score
from curate_selectors.parts import by_row
from curate_selectors.tiles import TILE, check_shape, gathered
from curate_selectors.types import Candidates

ROUNDS = 20
EL2N = "el2n"


def clusters_of(x: F32, clusters: int, seed: int) -> tuple[I64, F32]:
    """Return each row's cluster and its distance to the centre (1 - cosine), both (n,); clusters 0: √n of them."""
    wanted = clusters or max(1, int(np.sqrt(x.shape[0])))
    at, sim = assign(x, spherical_centres(x, wanted, ROUNDS, np.random.default_rng(seed)))
    return at, np.maximum(1 - sim, 0)


def clusters_in_tiles(data: Candidates, method: str, clusters: int, seed: int) -> tuple[I64, F32]:
    """Return what `clusters_of` does of embeddings that can only be sliced; memory O(n) and the rows of training."""
    check_shape(data, method)
    wanted = min(clusters or max(1, int(np.sqrt(data.n))), data.n)
    rng = np.random.default_rng(seed)
    centre = spherical_centres(gathered(data, method, training_rows(data.n, wanted, rng)), wanted, ROUNDS, rng)
    found = by_row(data, method, partial(nearest_centre, centre), TILE)
    return found["at"], np.maximum(1 - found["sim"], 0)


def nearest_centre(centre: F32, x: F32, _: Any = None) -> dict[str, Any]:
    """Return what `assign` does, by name: `at` (n,) int64 and `sim` (n,) float32."""
    at, sim = assign(x, centre)
    return {"at": at, "sim": sim}


def classes_of(data: Candidates, x: F32, method: str, seed: int) -> tuple[I64, F32]:
    """Return each row's class, unknown ones together, and its distance to the class's mean; clusters without labels."""
    if data.label is None or not (need_labels(data, method) >= 0).any():
        return clusters_of(x, 0, seed)
    known, group = np.unique(data.label, return_inverse=True)
    total = np.zeros((known.size, x.shape[1]), dtype=np.float64)
    add_rows(x, group.astype(np.int64), total)
    centre = unit_rows(total.astype(np.float32))
    return group.astype(np.int64), np.maximum(1 - np.einsum("ij,ij->i", x, centre[group]), 0)


def difficulty(data: Candidates, score: str, method: str, seed: int) -> F64:
    """Return how hard each row is, (n,), higher is harder: the named score.

    Without the one that is read by default, EL2N, the distance to the mean of the own class (cluster) takes its place.
    """
    if score == EL2N and score not in data.scores:
        return classes_of(data, need_rows(data, method), method, seed)[1].astype(np.float64)
    return need_score(data, score, method).astype(np.float64)
