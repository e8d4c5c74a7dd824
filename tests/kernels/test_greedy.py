"""Greedy picks with stale bounds are those of the plain loop."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate_kernels import greedy
from curate_kernels.probes import probe_cells

GRID = np.array([0, 0.25, 0.5, 0.75, 1], dtype=np.float32).tolist()


def both(name, n, count, *arguments):
    """Near rows, picks and gains by the kernel and by its twin."""
    results = []
    for module in (greedy, reference):
        near, picked, gain = np.zeros(n, dtype=np.float32), np.empty(count, dtype=np.int64), np.empty(count)
        getattr(module, name)(*(np.array(a) for a in arguments), near, picked, gain)
        results.append((picked.tolist(), near.tolist(), gain))
    return results


def same(pair) -> None:
    (picked, near, gain), (picked2, near2, gain2) = pair
    assert picked == picked2
    assert near == near2
    np.testing.assert_allclose(gain, gain2, rtol=1e-6, atol=1e-9)


@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_cover_of_a_matrix_with_many_ties(data: st.DataObject, m: int, n: int) -> None:
    sim = data.draw(hnp.arrays(np.float32, (m, n), elements=st.sampled_from(GRID)))
    count = data.draw(st.integers(0, m))
    same(both("cover_rows", n, count, sim))
    draw = data.draw(hnp.arrays(np.float64, (count, 3), elements=st.sampled_from([0.0, 0.3, 0.6, 0.99])))
    same(both("cover_some", n, count, sim, draw))


@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_cover_of_lists(data: st.DataObject, m: int, n: int) -> None:
    length = data.draw(st.lists(st.integers(0, 4), min_size=m, max_size=m))
    start = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    row = data.draw(hnp.arrays(np.int32, int(start[-1]), elements=st.integers(0, n - 1), unique=False))
    sim = data.draw(hnp.arrays(np.float32, int(start[-1]), elements=st.sampled_from(GRID)))
    for i in range(m):  # a row stands once in a list
        part = slice(start[i], start[i + 1])
        row[part] = np.arange(length[i]) % n
    if max(length, default=0) <= n:
        same(both("cover_lists", n, data.draw(st.integers(0, m)), start, row, sim))


def test_cover_of_a_larger_matrix(rng: np.random.Generator) -> None:
    sim = rng.random((300, 700), dtype=np.float32) ** 4
    same(both("cover_rows", 700, 300, sim))


@given(st.data(), st.integers(1, 12), st.integers(1, 4))
def test_messages(data: st.DataObject, n: int, k: int) -> None:
    neighbor = data.draw(hnp.arrays(np.int64, (n, k), elements=st.integers(-1, n - 1)))
    weight = data.draw(hnp.arrays(np.float32, (n, k), elements=st.sampled_from(GRID)))
    score = data.draw(hnp.arrays(np.float64, n, elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])))
    count = data.draw(st.integers(0, n))
    results = []
    for module in (greedy, reference):
        values, picked, gain = score.copy(), np.empty(count, dtype=np.int64), np.empty(count)
        module.pick_by_messages(neighbor, weight, values, picked, gain)
        results.append((picked.tolist(), values.tolist(), gain.tolist()))
    assert results[0] == results[1]


@given(st.data(), st.integers(1, 12), st.integers(1, 12))
def test_probes_with_copies_and_ties(data: st.DataObject, n: int, near: int) -> None:
    column = data.draw(hnp.arrays(np.float32, (3, n), elements=st.sampled_from(GRID)))
    pair = np.array([[0, 1], [2, 0], [1, 2]])
    at = data.draw(hnp.arrays(np.float32, (3, 2), elements=st.sampled_from(GRID)))
    ours, plain = np.zeros(n), np.zeros(n)
    probe_cells(column, pair, at, near, 4.0, ours)
    reference.probe_cells(column, pair, at, near, 4.0, plain)
    np.testing.assert_allclose(ours, plain, atol=1e-9)


@pytest.mark.parametrize("near", [3, 200, 6000])
def test_probes_of_many_rows(near: int, rng: np.random.Generator) -> None:
    """So many that the bound of the nearest is read from a sample."""
    column = rng.normal(size=(4, 9000)).astype(np.float32)
    pair = np.array([[0, 1], [3, 2], [1, 3], [2, 1]])
    at = rng.normal(size=(4, 2)).astype(np.float32)
    ours, plain = np.zeros(9000), np.zeros(9000)
    probe_cells(column, pair, at, near, 4.0, ours)
    reference.probe_cells(column, pair, at, near, 4.0, plain)
    np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-9)
