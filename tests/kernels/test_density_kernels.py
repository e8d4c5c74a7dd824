"""Kernel sums over tiles, and neighbours out of rounded similarities."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate_kernels.density import angular_sums, gaussian_sums, recheck_topk

SHAPES = st.tuples(st.integers(0, 5), st.integers(0, 40))
COSINES = st.one_of(st.floats(-1, 1, width=32), st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 1.0000001]))


def sums(function, sim, *arguments):
    row, column = np.full(sim.shape[0], 0.5), np.full(sim.shape[1], 0.25)
    function(sim, *arguments, row, column)
    return np.concatenate([row - 0.5, column - 0.25])


@given(hnp.arrays(np.float32, SHAPES, elements=COSINES), st.floats(0.01, 60.0), st.integers(0, 9))
def test_gaussian_sums_equal_their_twin(sim, scale, seed) -> None:
    rng = np.random.default_rng(seed)
    left, right = (rng.uniform(0, 2, m).astype(np.float32) for m in sim.shape)
    ours = sums(gaussian_sums, sim, left, right, scale)
    np.testing.assert_allclose(ours, sums(reference.gaussian_sums, sim, left, right, scale), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("square", [0.0, 1e-6, 0.3, 1.0, 40.0, 86.0])
def test_exponential_is_exact_to_float32_over_its_whole_range(square: float) -> None:
    row = np.zeros(1)
    gaussian_sums(np.zeros((1, 1), np.float32), np.float32([square]), np.zeros(1, np.float32), 1.0, row, np.zeros(1))
    np.testing.assert_allclose(row[0], np.exp(-np.float64(np.float32(square))), rtol=1e-5)


def test_far_pairs_and_pairs_that_do_not_count_add_exactly_nothing() -> None:
    ones = np.ones(2, dtype=np.float32)
    assert sums(gaussian_sums, np.float32([[-np.inf, -1]]), ones[:1], ones, 50.0).tolist() == [0, 0, 0]
    assert sums(angular_sums, np.float32([[-np.inf, -1]]), 3).tolist() == [0, 0, 0]


@given(hnp.arrays(np.float32, SHAPES, elements=COSINES), st.integers(1, 16))
def test_angular_sums_equal_their_twin(sim, power) -> None:
    np.testing.assert_allclose(
        sums(angular_sums, sim, power), sums(reference.angular_sums, sim, power), rtol=1e-5, atol=1e-6
    )


def empty(b, k):
    return np.full((b, k), -np.inf, dtype=np.float32), np.full((b, k), -1, dtype=np.int64)


# Few whole coordinates, so that products are exact and ties are common.
@given(st.data(), st.integers(0, 3), st.integers(0, 150), st.integers(1, 5), st.sampled_from([0.0, 0.5, 3.0]))
def test_rechecked_neighbours_equal_their_twin(data: st.DataObject, b: int, m: int, k: int, margin: float) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    queries = rng.integers(-3, 4, (b, 4)).astype(np.float32)
    ours, twin = empty(b, k), empty(b, k)
    for base in (0, m):
        rows = rng.integers(-3, 4, (m, 4)).astype(np.float32)
        rough = (queries @ rows.T + rng.uniform(-margin, margin, (b, m))).astype(np.float32)
        rough[rng.random((b, m)) < 0.1] = -np.inf
        recheck_topk(rough, margin + 1e-5, queries, rows, base, *ours)
        reference.recheck_topk(rough, margin + 1e-5, queries, rows, base, *twin)
    np.testing.assert_array_equal(ours[0], twin[0])
    np.testing.assert_array_equal(ours[1], twin[1])


def test_similarity_too_low_by_more_than_the_margin_is_not_looked_at() -> None:
    # The second row is the best, but its rounded similarity promises that it is not.
    best, row = empty(1, 1)
    recheck_topk(np.float32([[1, 0.5]]), 0.1, np.ones((1, 1), np.float32), np.float32([[1], [2]]), 0, best, row)
    assert row.tolist() == [[0]]
