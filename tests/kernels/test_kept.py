"""Search of kept rows: what a rough product or a code leaves open is computed, and nothing else is missed."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from curate_kernels.codes import append_codes, digit_planes, residual_codes
from curate_kernels.kept import PAGE, near_lists, near_tile, pair_inner, rough_best, weigh_known
from curate_kernels.search import Asked, Coded, Kept, Rotated

CORNERS = np.array([[(c >> bit & 1) - 0.5 for bit in range(4)] for c in range(16)], dtype=np.float32)


def corner_rows(rng: np.random.Generator, n: int, d: int = 4) -> np.ndarray:
    """Rows whose inner products are exact in any order of addition; many are equal."""
    return np.pad(CORNERS[rng.integers(0, 16, n)], ((0, 0), (0, d - 4)))


def some_kept(rng: np.random.Generator, n: int, need: int, d: int = 4) -> Kept:
    rows, captions = (corner_rows(rng, n, d).astype(np.float16).view(np.uint16) for _ in range(2))
    return Kept(rows, captions, rng.integers(0, 4, n).astype(np.uint8), need)


def some_asked(rng: np.random.Generator, b: int, k: int, least: list[float], d: int = 4) -> Asked:
    queries, captions = corner_rows(rng, b, d), corner_rows(rng, b, d)
    found = np.full((b, k), -np.inf, np.float32), np.full(b, -np.inf, np.float32), np.full(b, -1)
    return Asked(queries, captions, rng.random(b) < 0.5, np.array(least), *found)


def assert_found_equal(ours: Asked, theirs: Asked) -> None:
    for name in ("best", "twin_sim", "twin_row"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


def fresh(ask: Asked) -> Asked:
    return ask._replace(best=ask.best.copy(), twin_sim=ask.twin_sim.copy(), twin_row=ask.twin_row.copy())


def test_pair_inner_equals_its_twin(rng: np.random.Generator) -> None:
    queries, rows = rng.normal(size=(5, 70)).astype(np.float32), rng.normal(size=(9, 70)).astype(np.float16)
    left, right = rng.integers(0, 5, 20), rng.integers(0, 9, 20)
    ours, theirs = np.empty(20, np.float32), np.empty(20, np.float32)
    pair_inner(left, right, queries, rows.view(np.uint16), ours)
    reference.pair_inner(left, right, queries, rows.view(np.uint16), theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@given(
    st.integers(0, 9999),
    st.lists(st.integers(0, 90), max_size=3),
    st.integers(1, 5),
    st.sampled_from([1, 3]),
    st.sampled_from([[0.5, 0.5], [0.0, -1.0], [1.0, 0.0], [np.inf, np.inf]]),
    st.sampled_from([0.0, 0.2, 2.0]),
)
def test_tiles_equal_their_twin_whatever_the_product_is_off(
    seed: int, tiles: list[int], k: int, need: int, least: list[float], off: float
) -> None:
    rng = np.random.default_rng(seed)
    kept, ours = some_kept(rng, sum(tiles), need), some_asked(rng, 3, k, least)
    theirs, base = fresh(ours), 0
    room = rng.uniform(0, off, 3).astype(np.float32)
    for m in tiles:
        x = kept.rows[base : base + m].view(np.float16).astype(np.float32)
        product = (ours.queries @ x.T + rng.uniform(-0.99, 0.99, (3, m)) * room[:, None]).astype(np.float32)
        left, right = np.full(3, 0.5, np.float32), np.full(m, 4.0, np.float32)
        arguments = (product / 2, left, right, room, base)
        near_tile(*arguments, ours, kept)
        reference.near_tile(*arguments, theirs, kept)
        base += m
    assert_found_equal(ours, theirs)


def test_whole_number_products_are_read_too(rng: np.random.Generator) -> None:
    kept, ours = some_kept(rng, 70, 1), some_asked(rng, 2, 3, [0.5, 0.5])
    theirs = fresh(ours)
    product = (4 * ours.queries @ kept.rows.view(np.float16).T).astype(np.int32)
    arguments = (product, np.full(2, 0.25, np.float32), np.ones(70, np.float32), np.zeros(2, np.float32), 0)
    near_tile(*arguments, ours, kept)
    reference.near_tile(*arguments, theirs, kept)
    assert_found_equal(ours, theirs)


def some_lists(rng: np.random.Generator, rows: np.ndarray, count: int, rotation: np.ndarray) -> Coded:
    n, pages = len(rows), len(rows) // PAGE + count
    centre = rng.normal(size=(count, rows.shape[1])).astype(np.float32)
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    at = rng.integers(0, count, n)
    code, factor = np.empty((n, 1), np.uint64), np.empty((n, 2), np.float32)
    residual_codes(rows @ rotation, centre @ rotation, at, code, factor)
    first, last, length = np.full(count, -1, np.int32), np.full(count, -1, np.int32), np.zeros(count, np.int32)
    follow, slot = np.full(pages, -1, np.int32), np.full((pages, PAGE), -1, np.int32)
    codes, factors = np.zeros((pages, 1, PAGE), np.uint64), np.zeros((pages, 2, PAGE), np.float32)
    free = rng.permutation(pages)
    append_codes(at, rng.permutation(n), code, factor, first, last, length, follow, free, codes, factors, slot)
    return Coded(centre, first, follow, codes, factors, slot)


def turned_queries(queries: np.ndarray, rotation: np.ndarray) -> Rotated:
    b = len(queries)
    turned = Rotated(np.empty((b, 1, 4), np.uint64), np.empty(b, np.float32), np.empty(b, np.float32))
    digit_planes(queries @ rotation, *turned)
    return turned


@pytest.mark.parametrize("n", [0, 1, 64, 150])
@pytest.mark.parametrize("need", [1, 3])
@pytest.mark.parametrize("sigmas", [3.0, 0.0, 1e9])
def test_lists_equal_their_twins(rng: np.random.Generator, n: int, need: int, sigmas: float) -> None:
    kept, ours = some_kept(rng, n, need, d=64), some_asked(rng, 3, 2, [0.5, 0.5], d=64)
    rotation = np.linalg.qr(rng.normal(size=(64, 64)))[0].astype(np.float32)
    lists = some_lists(rng, kept.rows.view(np.float16).astype(np.float32), 2, rotation)
    turned, theirs = turned_queries(ours.queries, rotation), fresh(ours)
    visits = np.repeat([0, 1], 3), np.tile([0, 1, 2], 2)
    rough, known = np.full((3, 4), -np.inf, np.float32), np.full((3, 4), -1)
    twin_rough, twin_known = rough.copy(), known.copy()
    rough_best(*visits, ours, kept, lists, turned, rough, known)
    reference.rough_best(*visits, theirs, kept, lists, turned, twin_rough, twin_known)
    np.testing.assert_allclose(rough, twin_rough, rtol=1e-3, atol=1e-3)
    bar, twin_bar = (np.empty(3, np.float32) for _ in range(2))
    weigh_known(known, ours, kept, bar)
    reference.weigh_known(known, theirs, kept, twin_bar)
    np.testing.assert_allclose(bar, twin_bar, rtol=1e-5)
    near_lists(*visits, known, twin_bar, sigmas, ours, kept, lists, turned)
    reference.near_lists(*visits, known, twin_bar, sigmas, theirs, kept, lists, turned)
    assert_found_equal(ours, theirs)
    if sigmas == 1e9:  # everything is computed
        everything = fresh(some_asked(np.random.default_rng(0), 3, 2, [0.5, 0.5], d=64))._replace(
            queries=ours.queries, captions=ours.captions, captioned=ours.captioned
        )
        reference.near_tile(None, range(3), range(n), None, 0, everything, kept)
        assert_found_equal(ours, everything)
