"""`curate select --on ray`: what one process chooses in as many parts, though a worker dies; nearly the best value."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killing import a_worker_killed

import curate
from curate.errors import UsageError
from curate.manifest import read_manifest
from curate.pool import Pool
from curate_kernels.arrays import unit_rows
from curate_selectors.coverage.facility import FacilityLocation
from curate_selectors.coverage.kcenter import KCenter
from curate_selectors.coverage.logdet import LogDet
from curate_selectors.types import Candidates

pytestmark = pytest.mark.usefixtures("cluster")
_ROWS, _DIM = 900, 24
_WAYS: dict[str, dict[str, Any]] = {
    "kcenter": {"parts": 4},
    "facility-location": {"parts": 4},
    "log-det": {"parts": 4},
    "semdedup": {"clusters": 20},
    "hierarchical": {"levels": [30, 6], "resample": 2},
}


def _clusters(n: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(25, dim))
    sizes = rng.dirichlet(np.full(25, 0.7))
    return unit_rows((centres[rng.choice(25, n, p=sizes)] + 0.4 * rng.normal(size=(n, dim))).astype(np.float32))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pool of three fragments of given embeddings."""
    folder = tmp_path_factory.mktemp("grown")
    np.save(folder / "rows.npy", _clusters(_ROWS, _DIM))
    curate.grow([str(folder / "rows.npy")], folder / "pool", options={"limits": {"batch_size": 300}})
    opened = Pool.open(folder / "pool")
    assert len(opened.dataset.get_fragments()) == 3
    return folder / "pool"


@pytest.mark.parametrize("method", list(_WAYS))
def test_a_cluster_chooses_what_one_process_does(cluster: Any, pool: Path, tmp_path: Path, method: str) -> None:
    given = {"method": method, "budget": 60, "params": _WAYS[method], "seed": 3}
    one = curate.select_from_pool(pool, tmp_path / "one", **given)
    with a_worker_killed(cluster) if method in ("semdedup", "log-det") else contextlib.nullcontext():
        many = curate.select_from_pool(pool, tmp_path / "many", **given, on="ray")
    assert many.selected == one.selected == 60
    assert read_manifest(tmp_path / "many").equals(read_manifest(tmp_path / "one"))
    assert (tmp_path / "many" / "manifest.json").read_bytes() == (tmp_path / "one" / "manifest.json").read_bytes()


def test_what_has_no_parts_is_refused_with_what_has(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'herding' does not run on a cluster; these do: facility-location, hierarch"):
        curate.select_from_pool(pool, tmp_path / "m", method="herding", on="ray")
    with pytest.raises(UsageError, match="--set parts=16"):
        curate.select_from_pool(pool, tmp_path / "m", method="log-det", on="ray")


def _covered(x: np.ndarray, picks: np.ndarray) -> float:
    return float(np.maximum(x @ x[picks].T, 0).max(axis=1).sum())


def _volume(x: np.ndarray, picks: np.ndarray) -> float:
    return float(np.linalg.slogdet(np.eye(x.shape[1]) + x[picks].T @ x[picks] / 0.1)[1])


def _radius(x: np.ndarray, picks: np.ndarray) -> float:
    return float(np.maximum(1 - (x @ x[picks].T).max(axis=1), 0).max())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_levels_reach_nearly_the_centralised_value(seed: int) -> None:
    x = _clusters(3000, 32, seed)
    data = Candidates(n=3000, x=x)
    for parts in (4, 16):
        for one, many, value in (
            (FacilityLocation(neighbors=0), FacilityLocation(neighbors=0, parts=parts), _covered),
            (LogDet(), LogDet(parts=parts), _volume),
        ):
            best = value(x, one.select(data, 60, 0).index)
            assert value(x, many.select(data, 60, 0).index) > 0.97 * best
        radius = _radius(x, KCenter(parts=parts).select(data, 60, 0).index)
        assert _radius(x, KCenter().select(data, 60, 0).index) ** 0.5 > 0.95 * radius**0.5
