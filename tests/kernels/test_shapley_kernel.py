"""Shapley values of a nearest-neighbour classifier."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from curate_kernels.shapley import knn_shapley


def values(function, order, label, target, k) -> np.ndarray:
    out = np.zeros(len(label))
    function(np.asarray(order, dtype=np.int64), np.asarray(label), np.asarray(target), k, out)
    return out


def test_two_rows_by_hand() -> None:
    # k = 1. Nearest right, farthest wrong: the first brings 1 in either order, the second nothing.
    assert values(knn_shapley, [[0, 1]], [1, 0], [1], 1).tolist() == [1.0, 0.0]
    # Nearest wrong: the far row brings 1 if it comes first, and the near row then takes it away again.
    assert values(knn_shapley, [[0, 1]], [0, 1], [1], 1).tolist() == [-0.5, 0.5]


@st.composite
def problems(draw):
    n, points = draw(st.integers(1, 6)), draw(st.integers(0, 3))
    order = [draw(st.permutations(range(n))) for _ in range(points)]
    labels = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    targets = draw(st.lists(st.integers(0, 2), min_size=points, max_size=points))
    order = np.array(order, dtype=np.int64).reshape(points, n)
    return order, np.array(labels), np.array(targets, dtype=np.int64), draw(st.integers(1, 8))


@given(problems())
def test_kernel_equals_the_definition_over_all_subsets(problem) -> None:
    ours, twin = values(knn_shapley, *problem), values(reference.knn_shapley, *problem)
    np.testing.assert_allclose(ours, twin, atol=1e-12)


@given(problems())
def test_values_share_out_the_utility_of_all_rows(problem) -> None:
    order, label, target, k = problem
    hits = sum((label[line[:k]] == wanted).sum() / k for line, wanted in zip(order, target, strict=True))
    assert values(knn_shapley, *problem).sum() == pytest.approx(hits, abs=1e-12)


def test_rows_outside_the_order_keep_their_value_and_others_are_added_to() -> None:
    out = np.array([5.0, 1.0, 7.0])
    knn_shapley(np.array([[1]]), np.array([0, 1, 0]), np.array([1]), 1, out)
    assert out.tolist() == [5.0, 2.0, 7.0]
