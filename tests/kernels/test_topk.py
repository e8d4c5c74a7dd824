"""Running nearest neighbours."""

import numpy as np
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate_kernels.topk import push_topk

# Few different values, so that ties are common; -inf is what an empty slot holds.
VALUES = st.sampled_from(np.array([-np.inf, -1, -0.5, 0, 0.25, 0.5, 1], dtype=np.float32).tolist())


def empty(b: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((b, k), -np.inf, dtype=np.float32), np.full((b, k), -1, dtype=np.int64)


def test_best_two_of_four_by_hand() -> None:
    sim = np.array([[0.1, 0.9, 0.5, 0.9]], dtype=np.float32)
    best, row = empty(1, 2)
    push_topk(sim, np.ones(4, dtype=bool), 10, best, row)
    assert row.tolist() == [[11, 13]]
    np.testing.assert_array_equal(best, np.float32([[0.9, 0.9]]))


def test_dead_rows_are_never_returned_and_free_slots_stay_empty() -> None:
    sim = np.array([[0.1, 0.9, 0.5]], dtype=np.float32)
    best, row = empty(1, 3)
    push_topk(sim, np.array([True, False, True]), 0, best, row)
    assert row.tolist() == [[2, 0, -1]]
    assert best[0, 2] == -np.inf


def test_ties_stay_with_the_row_that_came_first() -> None:
    best, row = empty(1, 2)
    for base in (0, 3):
        push_topk(np.ones((1, 3), dtype=np.float32), np.ones(3, dtype=bool), base, best, row)
    assert row.tolist() == [[0, 1]]


@given(st.data(), st.integers(1, 4), st.integers(0, 6), st.integers(1, 5))
def test_pushing_blocks_equals_sorting_everything(data: st.DataObject, b: int, m: int, k: int) -> None:
    ours, twin = empty(b, k), empty(b, k)
    for base in (0, m):
        sim = data.draw(hnp.arrays(np.float32, (b, m), elements=VALUES))
        alive = data.draw(hnp.arrays(bool, m))
        push_topk(sim, alive, base, *ours)
        reference.push_topk(sim, alive, base, *twin)
    np.testing.assert_array_equal(ours[0], twin[0])
    np.testing.assert_array_equal(ours[1], twin[1])
