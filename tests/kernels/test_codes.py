"""Rows in other number formats, sign codes, and the bookkeeping of lists."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate_kernels import codes

HALVES = hnp.arrays(
    np.float16,
    st.tuples(st.integers(0, 3), st.integers(1, 70)),
    elements=st.one_of(st.floats(-2, 2, width=16), st.sampled_from([0.0, -0.0, 6e-8, -6e-5, 6.104e-5, 1e-4, 65504.0])),
)


def test_every_finite_half_becomes_the_same_float() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    bits = bits[np.isfinite(bits.view(np.float16))][None]
    out, twin = np.empty(bits.shape, np.float32), np.empty(bits.shape, np.float32)
    codes.half_to_float(bits, out)
    reference.half_to_float(bits, twin)
    np.testing.assert_array_equal(out, twin)
    short, rounded = np.empty(bits.shape, np.uint16), np.empty(bits.shape, np.uint16)
    codes.half_to_bfloat16(bits, short)
    reference.half_to_bfloat16(bits, rounded)
    np.testing.assert_array_equal(short, rounded)


@given(HALVES)
def test_whole_numbers_equal_their_twin(rows) -> None:
    bits = rows.view(np.uint16)
    ours, theirs = (
        (np.zeros(bits.shape, np.int8), np.zeros(len(bits), np.float32), np.zeros(len(bits), np.float32))
        for _ in range(2)
    )
    codes.half_to_int8(bits, *ours)
    reference.half_to_int8(bits, *theirs)
    assert np.abs(ours[0].astype(int) - theirs[0]).max(initial=0) <= 1  # a last bit before rounding
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)
    back = ours[0] * ours[1][:, None].astype(np.float64)
    np.testing.assert_allclose(ours[2], np.linalg.norm(rows.astype(np.float64) - back, axis=1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("width", [1, 2])
def test_residual_codes_equal_their_twin_and_estimate_without_bias(rng: np.random.Generator, width: int) -> None:
    d = 64 * width
    x, centre = rng.normal(size=(300, d)).astype(np.float32), rng.normal(size=(3, d)).astype(np.float32)
    at = rng.integers(0, 3, 300)
    x[0] = centre[at[0]]
    code, factor = np.empty((300, width), np.uint64), np.empty((300, 2), np.float32)
    codes.residual_codes(x, centre, at, code, factor)
    twin_code, twin_factor = np.empty_like(code), np.empty_like(factor)
    reference.residual_codes(x, centre, at, twin_code, twin_factor)
    np.testing.assert_array_equal(code, twin_code)
    np.testing.assert_allclose(factor, twin_factor, rtol=1e-3, atol=1e-3)
    assert factor[0].tolist() == [0, 0]
    signs = np.where(np.unpackbits(code.view(np.uint8), axis=1, bitorder="little"), 1.0, -1.0)
    query = rng.normal(size=d)
    estimate = centre[at] @ query + factor[:, 0] + factor[:, 1] * (signs @ query)
    error = (estimate - x @ query)[1:] / (factor[1:, 1] * np.linalg.norm(query - centre[at[1:]], axis=1))
    assert abs(error.mean()) < 0.1
    assert 0.4 < error.std() < 0.8  # sqrt(1 - 2/pi) = .60


@given(st.integers(0, 99), st.sampled_from([0.0, 1.0, 1e-3]))
def test_digit_planes_equal_their_twin(seed: int, scale: float) -> None:
    x = (np.random.default_rng(seed).normal(size=(2, 128)) * scale).astype(np.float32)
    ours, theirs = ((np.zeros((2, 2, 4), np.uint64), *np.zeros((2, 2), np.float32)) for _ in range(2))
    codes.digit_planes(x, *ours)
    reference.digit_planes(x, *theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.astype(float), other.astype(float), rtol=1e-5, atol=1e-9)
    step = scale * 0.0 + ours[1]
    assert (ours[2] <= np.sqrt(128) * step * 1.001 + 1e-6).all()


@given(
    hnp.arrays(np.int32, st.tuples(st.integers(0, 3), st.integers(1, 150)), elements=st.integers(-9, 9)),
    st.integers(0, 99),
)
def test_nearest_list_equals_its_twin(product, seed) -> None:
    unit = np.random.default_rng(seed).choice(np.float32([0.5, 1, 2]), product.shape[1])
    for values in (product, product.astype(np.float32)):
        ours, theirs = ((np.zeros(len(product), np.int64), np.zeros(len(product), np.float32)) for _ in range(2))
        codes.nearest_list(values, unit, *ours)
        reference.nearest_list(values, unit, *theirs)
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@given(
    hnp.arrays(np.int32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.integers(-99, 99)),
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(0, 30),
)
def test_chosen_lists_equal_their_twin(product, seed, few, more) -> None:
    length = np.random.default_rng(seed).integers(0, 5, product.shape[1]).astype(np.int32)
    unit, most = np.ones(product.shape[1], np.float32), np.full(len(product), 100, np.float32)
    ours, theirs = (np.zeros(product.shape[::-1], np.uint8) for _ in range(2))
    codes.choose_lists(product, unit, most, length, few, few + 1 + more, ours)
    reference.choose_lists(product, unit, most, length, few, few + 1 + more, theirs)
    np.testing.assert_array_equal(ours, theirs)


def test_nearest_lists_are_chosen_until_they_have_enough_rows() -> None:
    product, length = np.int32([[50, 90, 70, -10, 50]]), np.int32([2, 3, 2, 9, 9])
    chosen = np.empty((5, 1), np.uint8)
    codes.choose_lists(product, np.ones(5, np.float32), np.float32([100]), length, 2, 6, chosen)
    assert chosen[:, 0].tolist() == [1, 2, 1, 0, 0]  # 3 rows are 2 or more; 3 + 2 + 2 are 6 or more


def test_row_sums_equal_their_twin(rng: np.random.Generator) -> None:
    rows, at = rng.normal(size=(9, 5)).astype(np.float32), rng.integers(0, 3, 9)
    ours, theirs = np.ones((4, 5)), np.ones((4, 5))
    codes.add_rows(rows, at, ours)
    reference.add_rows(rows, at, theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@given(st.integers(0, 99), st.lists(st.integers(0, 9), max_size=4))
def test_appended_codes_equal_their_twin(seed: int, portions: list[int]) -> None:
    rng = np.random.default_rng(seed)

    def empty() -> list[np.ndarray]:
        lists = [np.full(3, -1, np.int32), np.full(3, -1, np.int32), np.zeros(3, np.int32), np.full(20, -1, np.int32)]
        return [
            *lists,
            np.zeros((20, 2, 2), np.uint64),
            np.zeros((20, 2, 2), np.float32),
            np.full((20, 2), -1, np.int32),
        ]

    ours, theirs = empty(), empty()
    free = [3, *rng.permutation(np.arange(4, 20)).tolist(), 0, 1, 2]
    for n in portions:
        at, rows = rng.integers(0, 3, n), rng.integers(0, 999, n)
        code, factor = rng.integers(0, 99, (n, 2)).astype(np.uint64), rng.normal(size=(n, 2)).astype(np.float32)
        new = np.array(free, dtype=np.int64)
        taken = codes.append_codes(at, rows, code, factor, *ours[:4], new, *ours[4:])
        if n and not free:
            break
        assert taken == reference.append_codes(at, rows, code, factor, *theirs[:4], new, *theirs[4:])
        free = free[taken:]
        if len(free) < 10:
            break
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert ours[2].sum() == (ours[6] >= 0).sum()
