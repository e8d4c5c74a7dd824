"""Greedy methods of coverage, against the plain loop over every candidate."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import curate
from curate.errors import UsageError
from curate.selection import Constraints
from curate_kernels.arrays import unit_rows
from curate_selectors.coverage.cut import GraphCut, likeness
from curate_selectors.coverage.facility import FacilityLocation
from curate_selectors.coverage.graph import nearest_rows
from curate_selectors.coverage.herding import Herding
from curate_selectors.coverage.kcenter import KCenter
from curate_selectors.coverage.logdet import LogDet
from curate_selectors.errors import SelectorError
from curate_selectors.registry import make
from curate_selectors.types import Candidates


def rows(n: int, d: int = 8, seed: int = 0) -> np.ndarray:
    """Unit rows in clusters of unequal size."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(7, d))
    at = np.minimum(rng.geometric(0.35, n) - 1, 6)
    return unit_rows((centre[at] + 0.5 * rng.normal(size=(n, d))).astype(np.float32))


def of(x: np.ndarray) -> Candidates:
    return Candidates(n=len(x), x=x)


def greedy(value, n: int, count: int) -> list[int]:
    """Add the row with the best value of the set, the lowest of equals, again and again."""
    chosen: list[int] = []
    for _ in range(count):
        values = {i: value([*chosen, i]) for i in range(n) if i not in chosen}
        chosen.append(max(values, key=lambda i: (values[i], -i)))
    return chosen


def covered(sim: np.ndarray):
    return lambda chosen: np.maximum(sim[:, chosen], 0).max(axis=1).sum()


# --- nearest neighbours


@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 1), (50, 4), (4200, 3)])
def test_nearest_rows_over_several_tiles(n: int, k: int) -> None:
    x = rows(n)
    sim, row = nearest_rows(x, k)
    at = np.unique(np.linspace(0, n - 1, 40).astype(int))
    full = (x[at] @ x.T).astype(float)
    full[np.arange(at.size), at] = -np.inf
    best = np.argsort(-full, axis=1, kind="stable")[:, :k]
    found = min(k, n - 1)
    np.testing.assert_allclose(sim[at][:, :found], np.take_along_axis(full, best, 1)[:, :found], atol=1e-6)
    assert (row[:, found:] == -1).all()
    assert (row != np.arange(n)[:, None]).all()


def test_of_equal_neighbours_the_lowest_across_tiles() -> None:
    x = np.tile(np.float32([[0.6, 0.8]]), (4200, 1))
    _, row = nearest_rows(x, 2)
    assert row[0].tolist() == [1, 2]
    assert row[3000].tolist() == [0, 1]


# --- facility location


def test_facility_location_is_the_plain_greedy() -> None:
    x = rows(120)
    sim = (x @ x.T).astype(float)
    chosen = FacilityLocation(neighbors=0).select(of(x), 20, 0)
    assert chosen.index.tolist() == greedy(covered(sim), 120, 20)
    assert chosen.gain.sum() == pytest.approx(covered(sim)(chosen.index), rel=1e-5)


def test_each_gain_is_the_candidates_own_and_not_its_place_in_a_batch() -> None:
    """A published form reads the gain of another candidate than the one it asks about."""
    x = rows(60)
    sim = (x @ x.T).astype(float)
    chosen = FacilityLocation(neighbors=0).select(of(x), 60, 0)
    values = [covered(sim)(chosen.index[: i + 1]) for i in range(60)]
    np.testing.assert_allclose(chosen.gain, np.diff(values, prepend=0), atol=1e-4)


def test_sparse_facility_location_is_the_plain_greedy_on_the_graph() -> None:
    x = rows(150)
    sim, row = nearest_rows(x, 5)
    near = np.zeros((150, 150))
    near[np.repeat(np.arange(150), 5), row.ravel()] = sim.ravel()
    np.fill_diagonal(near, 1)
    assert FacilityLocation(neighbors=5).select(of(x), 30, 0).index.tolist() == greedy(covered(near), 150, 30)


@pytest.mark.parametrize("params", [{"neighbors": 0, "epsilon": 0.1}, {"parts": 3}, {"parts": 3, "neighbors": 0}])
def test_approximate_facility_location_is_nearly_as_good(params: dict[str, float]) -> None:
    x = rows(400, seed=3)
    value = covered((x @ x.T).astype(float))
    best = value(FacilityLocation(neighbors=0).select(of(x), 10, 0).index)
    for seed in range(3):
        assert value(FacilityLocation(**params).select(of(x), 10, seed).index) > 0.97 * best
    assert np.mean([value(np.random.default_rng(seed).permutation(400)[:10]) for seed in range(5)]) < 0.95 * best


def test_stochastic_greedy_that_is_nearly_random_is_refused() -> None:
    with pytest.raises(SelectorError, match=r"epsilon is 0.9"):
        FacilityLocation(neighbors=0, epsilon=0.9)
    with pytest.raises(SelectorError, match="neighbors = 0"):
        FacilityLocation(neighbors=5, epsilon=0.1)


# --- graph cut


@pytest.mark.parametrize("weight", [2.0, 3.5])
def test_graph_cut_is_the_plain_greedy(weight: float) -> None:
    x = rows(130, seed=1)
    sim = np.maximum(x @ x.T, 0).astype(float)

    def value(chosen: list[int]) -> float:
        return weight * sim[:, chosen].sum() - sim[np.ix_(chosen, chosen)].sum()

    chosen = GraphCut(weight).select(of(x), 40, 0)
    assert chosen.index.tolist() == greedy(value, 130, 40)
    assert chosen.gain.sum() == pytest.approx(value(chosen.index), rel=1e-5)


def test_graph_cut_over_several_blocks_equals_the_plain_update() -> None:
    x = rows(1500, 16, seed=2)
    gain = 2 * likeness(x) - 1
    plain = []
    for _ in range(300):
        plain.append(int(gain.argmax()))
        gain -= 2 * np.maximum(x @ x[plain[-1]], 0)
        gain[plain] = -np.inf
    chosen = GraphCut().select(of(x), 300, 0).index
    assert np.mean(chosen == plain) > 0.98  # rounding may turn two that are equally good


def test_graph_cut_that_is_not_monotone_is_refused() -> None:
    with pytest.raises(SelectorError, match="weight is 1"):
        GraphCut(1.0)


# --- log-determinant


def plain_map(kernel: np.ndarray, count: int) -> list[int]:
    """Chen et al. 2018, algorithm 1, as printed."""
    left, columns, chosen = np.diag(kernel).copy(), np.zeros((len(kernel), 0)), []
    for _ in range(count):
        best = int(np.argmax(left))
        chosen.append(best)
        more = (kernel[best] - columns @ columns[best]) / np.sqrt(left[best])
        columns = np.column_stack([columns, more])
        left = left - more**2
        left[best] = -np.inf
    return chosen


@pytest.mark.parametrize("block", [1, 7, 512])
def test_log_det_is_greedy_map_beyond_the_number_of_dimensions(block: int) -> None:
    x = rows(200, 12) * np.random.default_rng(1).uniform(0.5, 1, (200, 1)).astype(np.float32)
    kernel = x.astype(float) @ x.T + 0.1 * np.eye(200)
    chosen = LogDet(0.1, block).select(of(x), 60, 0)
    assert chosen.index.tolist() == plain_map(kernel, 60)
    picks = x[chosen.index].astype(float)
    volume = np.linalg.slogdet(np.eye(60) + picks @ picks.T / 0.1)[1]
    assert chosen.gain.sum() == pytest.approx(volume, rel=1e-5)


def test_log_det_prefers_what_is_new_to_what_is_there() -> None:
    """A published form returns only the part that redundancy takes away, and so prefers copies."""
    x = np.eye(6, dtype=np.float32)[[0, 0, 0, 1, 1, 2]]
    assert LogDet().select(of(x), 3, 0).index.tolist() == [0, 3, 5]


# --- k-center


def test_kcenter_does_not_keep_the_distances_of_every_pick() -> None:
    """A published form keeps count x n numbers: 96 MB here."""
    data = of(rows(8000, 4))
    KCenter().select(data, 2, 0)  # compiled before it is measured
    tracemalloc.start()
    KCenter().select(data, 3000, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def radius(x: np.ndarray, index: np.ndarray) -> float:
    return float((1 - (x @ x[index].T).max(axis=1)).max())


@pytest.mark.parametrize("parts", [2, 7, 100])
def test_kcenter_in_parts_covers_nearly_as_well(parts: int) -> None:
    x = rows(1500, 6)
    whole = radius(x, KCenter().select(of(x), 40, 0).index)
    chosen = KCenter(parts=parts).select(of(x), 40, 0)
    assert np.unique(chosen.index).size == 40
    assert radius(x, chosen.index) < 2 * whole
    nearest = [1 - (x[chosen.index[:i]] @ x[chosen.index[i]]).max() for i in range(1, 40)]
    np.testing.assert_allclose(chosen.gain[1:], nearest, atol=1e-5)
    assert KCenter().nested
    assert not KCenter(parts=parts).nested


@pytest.mark.parametrize(("n", "parts"), [(0, 3), (1, 3), (10, 3), (37, 5), (37, 99)])
def test_kcenter_in_parts_meets_every_count(n: int, parts: int) -> None:
    for count in {0, n // 2, max(n - 1, 0), n}:
        chosen = KCenter(parts=parts, oversampling=1.0).select(of(rows(n)), count, 0)
        assert np.unique(chosen.index).size == count


def test_kcenter_in_parts_reads_a_memory_map_of_float16_one_part_at_a_time(tmp_path: Path) -> None:
    x = rows(20_000, 64).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = Candidates(n=20_000, x=np.load(tmp_path / "x.npy", mmap_mode="r"))
    KCenter(parts=20).select(mapped, 2, 0)  # compiled before it is measured
    tracemalloc.start()
    chosen = KCenter(parts=20).select(mapped, 20, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20 < x.nbytes  # a part is 256 kB of float32, a block of 512 rows and its products 1.2 MB
    assert chosen.index.tolist() == KCenter(parts=20).select(of(x.astype(np.float32)), 20, 0).index.tolist()
    with pytest.raises(SelectorError, match="parts"):
        KCenter(parts=0)


@pytest.mark.parametrize(("method", "params"), [("semdedup", {}), ("kcenter", {"parts": 4}), ("density-online", {})])
def test_a_memory_map_is_read_by_tiles_and_chosen_from_as_an_array_is(
    method: str, params: dict[str, int], tmp_path: Path
) -> None:
    x = (3 * rows(300, 16)).astype(np.float16)
    np.save(tmp_path / "x.npy", x)
    mapped = curate.select(np.load(tmp_path / "x.npy", mmap_mode="r"), method=method, budget=30, **params)
    assert mapped.index.tolist() == curate.select(x, method=method, budget=30, **params).index.tolist()
    some = Constraints(drop=list(range(100)))
    few = curate.select(
        np.load(tmp_path / "x.npy", mmap_mode="r"), method=method, budget=30, constraints=some, **params
    )
    assert few.index.tolist() == (curate.select(x, method=method, budget=30, constraints=some, **params).index.tolist())


def test_a_memory_map_with_nan_is_refused(tmp_path: Path) -> None:
    x = rows(300, 16).astype(np.float16)
    x[123, 4] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(UsageError, match="row 123"):
        curate.select(np.load(tmp_path / "x.npy", mmap_mode="r"), method="semdedup", budget=30)


# --- herding


def test_herding_is_the_plain_greedy_and_takes_the_nearest_not_the_farthest() -> None:
    """A published form takes the largest distance."""
    x = rows(100, seed=4)
    mean = x.mean(axis=0)
    chosen = Herding().select(of(x), 30, 0)
    assert chosen.index.tolist() == greedy(lambda c: -np.linalg.norm(mean - x[c].mean(axis=0)), 100, 30)
    random = np.random.default_rng(0).permutation(100)[:30]
    assert -chosen.gain[-1] < 0.5 * np.linalg.norm(mean - x[random].mean(axis=0))


@pytest.mark.parametrize("method", ["facility-location", "graph-cut", "log-det", "herding"])
def test_copies_and_zero_rows_are_taken_to_the_last(method: str) -> None:
    x = np.concatenate([rows(20), rows(20), np.zeros((3, 8), dtype=np.float32)])
    assert sorted(make(method).select(of(x), 43, 0).index) == list(range(43))
