"""Hash codes and their counters."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from curate_kernels.race import add_codes, mean_counts, sign_codes

CODES = np.array([[0, 3], [1, 3], [0, 2]], dtype=np.uint16)


def coded(function, x, centre, flips, bits, rows, limit=None):
    codes = np.full((len(x), rows), 9, dtype=np.uint16)
    limit = np.zeros(bits * rows, dtype=np.float32) if limit is None else limit
    function(x, centre, flips, limit, bits, codes)
    return codes


def whole_numbers(seed, n, d, size, blocks):
    """Rows and a centre whose projections are exact in float32, and signs."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 5, (n, d)).astype(np.float32)
    centre = rng.integers(-2, 3, d).astype(np.float32)
    return x, centre, rng.choice(np.float32([-1, 1]), (2 + blocks, size))


@pytest.mark.parametrize(
    ("n", "d", "size", "blocks", "bits", "rows"),
    [
        (0, 3, 4, 1, 1, 4),
        (1, 1, 1, 3, 3, 1),
        (17, 5, 8, 3, 4, 6),
        (3, 4, 4, 2, 1, 7),
        (33, 30, 32, 1, 16, 2),
        (2, 9, 16, 5, 7, 11),
    ],
)
def test_codes_equal_their_twin(n, d, size, blocks, bits, rows) -> None:
    x, centre, flips = whole_numbers(d, n, d, size, blocks)
    for limit in (None, np.random.default_rng(0).integers(-9, 9, bits * rows).astype(np.float32) * size):
        ours = coded(sign_codes, x, centre, flips, bits, rows, limit)
        np.testing.assert_array_equal(ours, coded(reference.sign_codes, x, centre, flips, bits, rows, limit))


def test_four_codes_by_hand() -> None:
    # Without flips, two Hadamard matrices of size 2 are twice the identity: the third gives (a + b, a - b).
    x = np.float32([[3, 1], [1, 3], [-3, -1], [0, 0]])
    codes = coded(sign_codes, x, np.zeros(2, np.float32), np.ones((3, 2), np.float32), 2, 1)
    assert codes[:, 0].tolist() == [3, 1, 0, 0]
    limit = np.float32([8, -1])  # the projections are twice (4, 2), (4, -2), (-4, -2), (0, 0)
    codes = coded(sign_codes, x, np.zeros(2, np.float32), np.ones((3, 2), np.float32), 2, 1, limit)
    assert codes[:, 0].tolist() == [2, 0, 0, 2]


def test_row_has_the_same_codes_in_any_company() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 50), dtype=np.float32)
    flips = rng.choice(np.float32([-1, 1]), (7, 64))
    together = coded(sign_codes, x, x[0], flips, 8, 40)
    alone = [coded(sign_codes, x[i : i + 1], x[0], flips, 8, 40)[0] for i in range(40)]
    np.testing.assert_array_equal(together, alone)
    assert not together[0].any()  # the centre itself


def test_counters_by_hand() -> None:
    counts = np.zeros((2, 4))
    add_codes(CODES, 1.0, counts)
    assert counts.tolist() == [[2, 1, 0, 0], [0, 0, 1, 2]]
    out = np.empty(3)
    mean_counts(CODES, counts, out)
    assert out.tolist() == [2.0, 1.5, 1.5]


@given(st.integers(0, 600), st.integers(1, 5), st.integers(1, 3), st.sampled_from([1.0, -1.0]), st.integers(0, 99))
def test_counters_equal_their_twins(n, rows, bits, sign, seed) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << bits, (n, rows)).astype(np.uint16)
    ours = rng.integers(0, 9, (rows, 1 << bits)).astype(float)
    twin = ours.copy()
    add_codes(codes, sign, ours)
    reference.add_codes(codes, sign, twin)
    np.testing.assert_array_equal(ours, twin)
    mean, mean_twin = np.empty(n), np.empty(n)
    mean_counts(codes, ours, mean)
    reference.mean_counts(codes, twin, mean_twin)
    np.testing.assert_allclose(mean, mean_twin, rtol=1e-12)
