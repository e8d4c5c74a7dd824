"""Powers of two of a tile, summed both ways."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from curate_kernels.infonce import exp2_sums


def sums(function, product, scales=None, biases=None, own=10**6):
    r, c = product.shape
    row_scale, column_scale = scales or (np.ones(r, np.float32), np.ones(c, np.float32))
    row_bias, column_bias = biases or (np.zeros(r, np.float32), np.zeros(c, np.float32))
    row, column, span = np.full(r, np.nan, np.float32), np.full(c, np.nan, np.float32), np.zeros(2, np.int64)
    function(product, row_scale, column_scale, row_bias, column_bias, own, row, column, span)
    return row, column, span


def test_sums_by_hand() -> None:
    product = np.float32([[0, 1, 2], [3, -1, 0.5]])
    row, column, span = sums(exp2_sums, product)
    np.testing.assert_allclose(row, [7, 8.5 + 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(column, [9, 2.5, 4 + 2**0.5], rtol=1e-6)
    assert span.tolist() == [-1, 3]


def test_own_column_is_left_out_where_the_tile_holds_it() -> None:
    product = np.zeros((3, 4), np.float32)
    row, column, _ = sums(exp2_sums, product, own=2)
    assert (row.tolist(), column.tolist()) == ([3, 3, 4], [3, 3, 2, 2])
    row, column, _ = sums(exp2_sums, product, own=-1)
    assert (row.tolist(), column.tolist()) == ([4, 3, 3], [2, 2, 3, 3])


@given(
    st.integers(1, 9), st.integers(1, 40), st.integers(-10, 42), st.sampled_from(["f4", "i4"]), st.integers(0, 10**6)
)
def test_kernel_equals_its_twin(r: int, c: int, own: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    product = rng.uniform(-2000, 2000, (r, c)).astype(kind)
    scales = rng.uniform(0, 0.2, r).astype(np.float32), rng.uniform(0, 0.2, c).astype(np.float32)
    biases = rng.uniform(-15, 15, r).astype(np.float32), rng.uniform(-15, 15, c).astype(np.float32)
    ours = sums(exp2_sums, product, scales, biases, own)
    twin = sums(reference.exp2_sums, product, scales, biases, own)
    for mine, theirs in zip(ours[:2], twin[:2], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=3e-5)  # exponents near 100 have an ulp of 8e-6 in float32
    assert np.abs(ours[2] - twin[2]).max() <= 1  # a tie may round either way


@pytest.mark.parametrize("low", [-125.0, -20.0, -1.0, 0.0, 60.0, 111.0])
def test_polynomial_is_good_to_float32(low: float) -> None:
    exponent = (low + np.linspace(0, 1, 4097, dtype=np.float32))[:, None]
    row, _, _ = sums(exp2_sums, np.ascontiguousarray(exponent))
    np.testing.assert_allclose(row, 2.0 ** exponent[:, 0].astype(np.float64), rtol=4e-7)


def test_tile_without_rows_or_columns() -> None:
    assert sums(exp2_sums, np.zeros((0, 3), np.float32))[1].tolist() == [0, 0, 0]
    assert sums(exp2_sums, np.zeros((2, 0), np.float32))[0].tolist() == [0, 0]


@pytest.mark.parametrize(("value", "expected"), [(-4000.0, -4000), (3000.0, 3000)])
def test_span_tells_of_exponents_that_do_not_fit(value: float, expected: int) -> None:
    _, _, span = sums(exp2_sums, np.float32([[value, 0.0]]))
    assert expected in span.tolist() or abs(expected - span).min() <= 1
