"""Kernels of perceptual hashes and of quality, against their twins, PIL and scipy."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.fft import dct

from curate_kernels.phash import cosine_basis, hash_pairs, lanczos_taps, nearest_hash, phash_bits, shrink_luma
from curate_kernels.quality import luma_counts, opponent_moments

SIZES = st.one_of(st.integers(1, 12), st.integers(1, 150))


def pictures(sizes=SIZES):
    shapes = st.tuples(sizes, sizes, st.just(3))
    return st.builds(
        lambda shape, seed, levels: (
            np.random.default_rng(seed).integers(0, levels, shape, dtype=np.uint8) * (255 // max(1, levels - 1))
        ).astype(np.uint8),
        shapes,
        st.integers(0, 2**32),
        st.sampled_from([1, 2, 256]),
    )


def shrunk(function, pixels, rows=32, columns=32):
    out = np.empty((rows, columns), dtype=np.uint8)
    function(pixels, *lanczos_taps(pixels.shape[1], columns), *lanczos_taps(pixels.shape[0], rows), out)
    return out


@given(pictures())
def test_thumbnail_equals_pil(pixels) -> None:
    # Two calls fix the order of the axes, which PIL has changed with version 13.
    height, width, _ = pixels.shape
    luma, lanczos = Image.fromarray(pixels).convert("L"), Image.Resampling.LANCZOS
    if height > 32 and height - 32 > 2 * (width - 32):
        expected = luma.resize((width, 32), lanczos).resize((32, 32), lanczos)
    else:
        expected = luma.resize((32, height), lanczos).resize((32, 32), lanczos)
    np.testing.assert_array_equal(shrunk(shrink_luma, pixels), np.asarray(expected))


@given(pictures(st.integers(1, 30)), st.integers(1, 9), st.integers(1, 9))
def test_thumbnail_equals_its_twin(pixels, rows, columns) -> None:
    ours = shrunk(shrink_luma, pixels, rows, columns)
    np.testing.assert_array_equal(ours, shrunk(reference.shrink_luma, pixels, rows, columns))


@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 500, 4000])
def test_weights_of_a_line_add_up_to_one(size: int) -> None:
    first, count, weights = lanczos_taps(size, 32)
    assert np.all((first >= 0) & (count > 0) & (first + count <= size))
    np.testing.assert_allclose(weights.sum(axis=1) / 2**22, 1.0, atol=1e-4)


def test_basis_is_the_cosine_transform_of_scipy() -> None:
    np.testing.assert_allclose(cosine_basis(32, 8), dct(np.eye(32), axis=0)[:8], atol=1e-12)


def hashed(function, small):
    out = np.zeros(1, dtype=np.uint64)
    gap = function(small, cosine_basis(small.shape[0], 8), out)
    return int(out[0]), gap


@given(hnp.arrays(np.uint8, (32, 32)))
def test_bits_equal_their_twin_where_they_are_certain(small) -> None:
    (ours, gap), (twin, twin_gap) = hashed(phash_bits, small), hashed(reference.phash_bits, small)
    np.testing.assert_allclose(gap, twin_gap, atol=1e-7)
    if gap > 1e-6:
        assert ours == twin
        assert ours.bit_count() == 32


def test_a_plain_picture_reports_no_gap() -> None:
    assert hashed(phash_bits, np.full((32, 32), 77, dtype=np.uint8))[1] < 1e-6


# Few bits, so that ties and near pairs occur; and all bits, so that the highest are counted.
WORDS = st.one_of(st.integers(0, 15), st.integers(0, 2**64 - 1), st.integers(0, 7).map(lambda word: word << 61))
HASHES = st.lists(WORDS, max_size=20).map(lambda words: np.array(words, dtype=np.uint64))


@given(HASHES, HASHES)
def test_nearest_hash_equals_its_twin(queries, stored) -> None:
    found = []
    for function in (nearest_hash, reference.nearest_hash):
        position, distance = (np.empty(len(queries), dtype=np.int64) for _ in range(2))
        function(queries, stored, position, distance)
        found.append((position.tolist(), distance.tolist()))
    assert found[0] == found[1]


@given(HASHES, st.integers(0, 64), st.integers(0, 30))
def test_hash_pairs_equal_their_twin(hashes, radius, room) -> None:
    ours, twin = (np.full((room, 2), -1, dtype=np.int64) for _ in range(2))
    assert hash_pairs(hashes, radius, ours) == reference.hash_pairs(hashes, radius, twin)
    np.testing.assert_array_equal(ours, twin)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)))
def test_luma_counts_equal_their_twin(luma) -> None:
    ours, twin = np.empty(256, dtype=np.int64), np.empty(256, dtype=np.int64)
    assert luma_counts(luma, ours) == reference.luma_counts(luma, twin)
    np.testing.assert_array_equal(ours, twin)


@given(pictures(st.integers(1, 20)), st.integers(1, 9))
def test_opponent_moments_equal_their_twin(pixels, step) -> None:
    ours, twin = np.empty(4), np.empty(4)
    opponent_moments(pixels, step, ours)
    reference.opponent_moments(pixels, step, twin)
    np.testing.assert_allclose(ours, twin, rtol=1e-9, atol=1e-6)
