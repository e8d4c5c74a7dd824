"""Densities, sketched and exact, and the chances that undo them."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from curate.errors import UsageError
from curate.scoring.density import inclusion, kde, knn_density, median_distance
from curate.scoring.nearest import nearest
from curate.scoring.race import Race


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def clusters(rng: np.random.Generator, sizes: list[int], d: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows around random directions, and the number of each row's cluster."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    middle = unit(rng.standard_normal((len(sizes), d)))
    return unit(middle[label] + spread / np.sqrt(d) * rng.standard_normal((label.size, d))), label


def angular(x: np.ndarray, y: np.ndarray, power: int, offset: float = 0.0) -> np.ndarray:
    x, y = (np.hstack([rows, np.full((len(rows), 1), offset)]) for rows in (x, y))
    return (1 - np.arccos(np.clip(unit(x).astype(float) @ unit(y).T.astype(float), -1, 1)) / np.pi) ** power


# --- sketch


def sketch(x: np.ndarray, **options: int) -> Race:
    race = Race(np.zeros(x.shape[1]), **{"hashes": 20, "bits": 4, **options})
    race.add(x)
    return race


PARTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 9), st.integers(0, 999))


@given(PARTS)
def test_sketch_merges_and_forgets(sizes: tuple[int, ...]) -> None:
    n, m, d, seed = sizes
    x = np.random.default_rng(seed).standard_normal((n + m, d), dtype=np.float32)
    whole, first = sketch(x), sketch(x[:n])
    merged = sketch(x[:n])
    merged.merge(sketch(x[n:]))
    np.testing.assert_array_equal(merged.counts, whole.counts)
    assert merged.n == n + m
    whole.add(x[n:], sign=-1.0)
    np.testing.assert_array_equal(whole.counts, first.counts)


def test_sketch_is_saved_and_restored() -> None:
    x = np.random.default_rng(0).standard_normal((30, 5), dtype=np.float32)
    race = Race(x.mean(axis=0), hashes=7, bits=3, seed=5, offset=0.7)
    race.add(x)
    again = Race.from_arrays({name: value.copy() for name, value in race.arrays().items()})
    np.testing.assert_array_equal(again.query(x), race.query(x))
    again.add(x)
    again.merge(race)
    assert again.n == 90


def test_sketches_that_hash_differently_do_not_merge() -> None:
    race = Race(np.zeros(4), hashes=5, bits=3)
    for other in (
        Race(np.zeros(4), 5, 3, offset=1.0),
        Race(np.zeros(4), 5, 2),
        Race(np.zeros(4), 6, 3),
        Race(np.zeros(4), 5, 3, seed=1),
        Race(np.ones(4), 5, 3),
    ):
        with pytest.raises(UsageError, match="do not go together"):
            race.merge(other)


def test_senseless_sketches_and_rows_are_refused() -> None:
    for arguments in ((0, 8, 0), (10, 0, 0), (10, 17, 0), (10, 8, -1)):
        with pytest.raises(UsageError, match="needed are"):
            Race(np.zeros(4), *arguments)
    with pytest.raises(UsageError, match="offset nan"):
        Race(np.zeros(4), offset=float("nan"))
    with pytest.raises(UsageError, match="no rows"):
        Race.around(np.zeros((0, 4)))
    race = Race(np.zeros(4))
    with pytest.raises(UsageError, match="4 dimensions"):
        race.add(np.zeros((2, 5), dtype=np.float32))
    with pytest.raises(ValueError, match="NaN"):
        race.query(np.full((1, 4), np.nan, dtype=np.float32))


def test_empty_sketch_and_empty_query() -> None:
    race = Race(np.zeros(3), hashes=4, bits=2)
    assert race.query(np.zeros((0, 3), dtype=np.float32)).shape == (0,)
    assert race.query(np.ones((2, 3), dtype=np.float32)).tolist() == [0, 0]
    assert race.n == 0


def test_equal_rows_and_rows_at_the_centre_collide_in_every_hash() -> None:
    x = np.ones((5, 3), dtype=np.float32)
    for centre in (np.zeros(3), np.ones(3)):
        race = Race(centre)
        race.add(x)
        assert race.query(x).tolist() == [5.0] * 5
        assert race.n == 5
        assert race.query(x, exclude_self=True).tolist() == [4.0] * 5


@pytest.mark.parametrize("offset", [0.0, 1.5])
@pytest.mark.parametrize("d", [1, 2, 3, 40, 300])
def test_sketch_estimates_the_angular_kernel_without_bias(d: int, offset: float) -> None:
    """In any number of dimensions: the mean over many hashes comes close to the collision probability of each pair."""
    rng = np.random.default_rng(d)
    x, centre = rng.standard_normal((12, d), dtype=np.float32), rng.standard_normal(d)
    truth = angular(x - centre, x - centre, 4, offset)
    estimate = np.empty((12, 12))
    for i in range(12):
        race = Race(centre, hashes=8000, bits=4, offset=offset)
        race.add(x[i : i + 1])
        estimate[i] = race.query(x)
    np.testing.assert_allclose(estimate, truth, atol=4 * 0.5 / np.sqrt(8000) + 0.01)


def test_sketch_ranks_rows_like_the_exact_density() -> None:
    rng = np.random.default_rng(0)
    x, _ = clusters(rng, [800, 400, 200, 100, 50, 50], 96, 0.9)
    for race in (Race(x.mean(axis=0)), Race.around(x)):
        race.add(x.astype(np.float16))
        options = {"centre": race.centre, "offset": race.offset, "bandwidth": race.bits}
        exact = kde(x, kernel="angular", exclude_self=True, **options)
        estimate = race.query(x.astype(np.float16), exclude_self=True)
        assert spearmanr(estimate, exact)[0] > 0.95
        np.testing.assert_allclose(estimate.sum(), exact.sum(), rtol=0.03)


def test_offset_makes_rows_near_the_centre_dense() -> None:
    """The usual rows of a collection are near its mean: a Gaussian density sees it, angles at the mean do not."""
    x = np.random.default_rng(0).standard_normal((1500, 24), dtype=np.float32)
    x *= np.random.default_rng(1).uniform(0.2, 2, (1500, 1)).astype(np.float32)
    gaussian = kde(x, bandwidth=median_distance(x), exclude_self=True)
    around, plain = Race.around(x), Race(x.mean(axis=0))
    for race in (around, plain):
        race.add(x)
    assert spearmanr(around.query(x, exclude_self=True), gaussian)[0] > 0.9
    assert abs(spearmanr(plain.query(x, exclude_self=True), gaussian)[0]) < 0.3


# --- exact kernel sums


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("exclude_self", [True, False])
def test_kernel_sums_equal_brute_force_across_tiles(symmetric: bool, exclude_self: bool) -> None:
    rng = np.random.default_rng(1)
    x = unit(rng.standard_normal((2100, 6)) + 0.5)
    q = 2100 if symmetric else 1500
    queries = None if symmetric else x[:q]
    centre = x.mean(axis=0)
    square = np.maximum(2 - 2 * x[:q].astype(float) @ x.T.astype(float), 0)
    for truth, options in (
        (np.exp(-square / (2 * 0.3**2)), {"bandwidth": 0.3}),
        (angular(x[:q] - centre, x - centre, 7), {"kernel": "angular", "bandwidth": 7, "centre": centre}),
    ):
        if exclude_self:
            truth[np.arange(q), np.arange(q)] = 0
        ours = kde(x, queries, exclude_self=exclude_self, **options)
        np.testing.assert_allclose(ours, truth.sum(axis=1), rtol=1e-4)


def test_kernel_sums_of_few_and_equal_rows() -> None:
    assert kde(np.zeros((0, 3), np.float32), bandwidth=1.0).shape == (0,)
    assert kde(np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32), bandwidth=1.0).tolist() == [0, 0]
    assert kde(np.ones((1, 3), np.float32), bandwidth=1.0, exclude_self=True).tolist() == [0]
    same = np.ones((4, 3), dtype=np.float16)
    np.testing.assert_allclose(kde(same, bandwidth=0.1), [4] * 4)
    np.testing.assert_allclose(kde(same, kernel="angular", bandwidth=3, exclude_self=True), [3] * 4, rtol=1e-3)


def test_lone_row_has_density_zero_although_it_is_near_itself() -> None:
    x = np.float32([[1e3, 0], [0, 1], [0, 1.001]])
    density = kde(x, bandwidth=0.01, exclude_self=True)
    assert density[0] == 0
    assert density[1] > 0.9


def test_senseless_kernels_are_refused() -> None:
    x = np.ones((3, 2), dtype=np.float32)
    for options in ({"bandwidth": 0.0}, {"kernel": "box", "bandwidth": 1.0}, {"kernel": "angular", "bandwidth": 2.5}):
        with pytest.raises(UsageError, match="bandwidth"):
            kde(x, **options)
    with pytest.raises(UsageError, match="do not fit"):
        kde(x, np.ones((2, 3), np.float32), bandwidth=1.0)
    with pytest.raises(UsageError, match="do not fit"):
        kde(x, np.ones((4, 2), np.float32), bandwidth=1.0, exclude_self=True)
    with pytest.raises(UsageError, match="needed"):
        kde(np.ones(3, np.float32), bandwidth=1.0)


def test_median_distance_by_hand() -> None:
    x = np.float32([[0], [1], [3]])
    assert median_distance(x) == pytest.approx(2.0)
    assert median_distance(x[:1]) == 0.0
    many = np.random.default_rng(0).standard_normal((5000, 8)).astype(np.float16)
    assert median_distance(many, sample=500) == pytest.approx(median_distance(many, sample=5000), rel=0.05)


# --- nearest neighbours


def test_neighbour_densities_by_hand() -> None:
    sim = np.float32([[0.9, 0.5], [0.8, -np.inf], [-np.inf, -np.inf]])
    np.testing.assert_allclose(knn_density(sim), [0.7, 0.8, -1.0], rtol=1e-6)


def test_neighbour_density_agrees_with_the_kernel_sum() -> None:
    x, _ = clusters(np.random.default_rng(2), [300, 100, 30], 16, 0.5)
    sim, _ = nearest(x, k=10, exclude_self=True)
    dense = kde(x, bandwidth=0.3, exclude_self=True)
    assert spearmanr(knn_density(sim), dense)[0] > 0.8


# --- chances of being drawn


@given(st.lists(st.floats(0, 1e6), max_size=30), st.integers(0, 35))
@example([0.0, 0.0, 1.0, 1.175494351e-38, 4.918453116692135e-63], 4)
def test_chances_sum_to_the_count_and_never_rise_with_density(values: list[float], count: int) -> None:
    density = np.array(values)
    chance = inclusion(density, count)
    assert chance.sum() == pytest.approx(min(count, len(values)), abs=1e-9)
    assert ((chance >= 0) & (chance <= 1)).all()
    order = np.argsort(density, kind="stable")
    assert (np.diff(chance[order]) <= 1e-12).all()


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=30), st.data())
def test_chances_below_one_are_inverse_to_density(values: list[float], data: st.DataObject) -> None:
    density = np.array(values)
    chance = inclusion(density, data.draw(st.integers(1, len(values) - 1)))
    level = (chance * density)[chance < 1]
    np.testing.assert_allclose(level, level[0] if level.size else 0, rtol=1e-9)
    assert (density[chance == 1] <= level[0] * (1 + 1e-9)).all()


def test_chances_by_hand() -> None:
    np.testing.assert_allclose(inclusion(np.array([1.0, 2.0, 2.0, 4.0]), 2), [8 / 9, 4 / 9, 4 / 9, 2 / 9])
    np.testing.assert_allclose(inclusion(np.array([0.1, 2.0, 2.0, 4.0]), 2), [1, 0.4, 0.4, 0.2])
    np.testing.assert_allclose(inclusion(np.array([0.0, 0.0, 5.0]), 1), [0.5, 0.5, 0])
    np.testing.assert_allclose(inclusion(np.array([-1e-9, 3.0, 3.0]), 2), [1, 0.5, 0.5])
    assert inclusion(np.zeros(0), 3).shape == (0,)
    assert inclusion(np.ones(2), 5).tolist() == [1, 1]
    assert inclusion(np.ones(2), 0).tolist() == [0, 0]


def test_senseless_chances_are_refused() -> None:
    with pytest.raises(UsageError, match="count -1"):
        inclusion(np.ones(2), -1)
    with pytest.raises(UsageError, match="1 densities"):
        inclusion(np.array([1.0, np.nan]), 1)


SIZES = [12000, 5000, 2000, 700, 250, 50]


def is_evened_out(drawn: np.ndarray) -> bool:
    """Of 2000 rows: still in the order of the clusters' sizes, but far more even than they are, and the rarest kept."""
    ordered = bool((np.diff(drawn) < 0).all())
    return ordered and drawn[0] < 0.4 * 2000 and drawn[0] / drawn[4] < 8 and drawn[5] > 0.4 * SIZES[5]


def test_six_unequal_clusters_are_drawn_almost_evenly() -> None:
    """Inverse density evens out; density itself (algorithm 2 as printed in arXiv 2402.09668) drops the rare."""
    x, label = clusters(np.random.default_rng(0), SIZES, 64, 0.7)
    race = Race(np.zeros(64), hashes=200)  # random directions: no cone to take out
    race.add(x)
    density = race.query(x, exclude_self=True)

    def drawn(chance: np.ndarray) -> np.ndarray:
        return np.bincount(label, weights=chance)

    assert is_evened_out(drawn(inclusion(density, 2000)))
    assert not is_evened_out(drawn(2000 * density / density.sum()))
    assert not is_evened_out(drawn(np.full(20000, 0.1)))


def test_cluster_that_holds_most_rows_is_dense_although_the_mean_lies_in_it() -> None:
    x, label = clusters(np.random.default_rng(0), SIZES, 64, 0.7)
    share = {}
    for name, race in (("plain", Race(x.mean(axis=0))), ("around", Race.around(x))):
        race.add(x)
        chance = inclusion(race.query(x, exclude_self=True), 2000)
        share[name] = np.bincount(label, weights=chance)[0] / 2000
    assert share["around"] < 0.5 < 0.6 < share["plain"]  # it holds 0.6 of the rows
