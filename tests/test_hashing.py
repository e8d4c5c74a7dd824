"""Perceptual hashes, and the search for near ones."""

import importlib.resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture
from PIL import Image

from curate.hashing import HashIndex, near_pairs, phash

PHOTOGRAPHS = [
    ("skimage.data", name)
    for name in ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "horse.png", "page.png",
                 "phantom.png", "chessboard_RGB.png", "logo.png", "retina.jpg", "rocket.jpg", "text.png")
] + [("sklearn.datasets.images", name) for name in ("china.jpg", "flower.jpg")]  # fmt: skip

SIDES = st.one_of(st.integers(1, 12), st.integers(1, 150))


def expected(pixels) -> str:
    """Return imagehash's answer, with the axes resized in the order of PIL 13."""
    imagehash = pytest.importorskip("imagehash")
    image, (height, width, _) = Image.fromarray(pixels).convert("L"), pixels.shape
    if height > 32 and height - 32 > 2 * (width - 32):
        image = image.resize((width, 32), Image.Resampling.LANCZOS)
    return str(imagehash.phash(image))


@pytest.mark.parametrize(("package", "name"), PHOTOGRAPHS)
@pytest.mark.parametrize("size", [None, (300, 201), (97, 203), (31, 500)])
def test_photograph_hashes_as_imagehash_does(package, name, size) -> None:
    pytest.importorskip(package.partition(".")[0])
    image = Image.open(importlib.resources.files(package) / name).convert("RGB")
    pixels = np.asarray(image.resize(size) if size else image)
    assert f"{phash(pixels):016x}" == expected(pixels)


@given(
    SIDES,
    SIDES,
    st.sampled_from([2, 256]),
    st.integers(0, 99),
    st.sampled_from(["as is", "mirrored", "rows alike", "columns alike", "plain"]),
)
def test_any_picture_hashes_as_imagehash_does(height, width, levels, seed, change) -> None:
    pixels = np.random.default_rng(seed).integers(0, levels, (height, width, 3), dtype=np.uint8)
    pixels = {
        "as is": lambda: pixels,
        "mirrored": lambda: np.concatenate([pixels, pixels[:, ::-1]], axis=1),
        "rows alike": lambda: np.repeat(pixels[:1], len(pixels), axis=0),
        "columns alike": lambda: np.repeat(pixels[:, :1], pixels.shape[1], axis=1),
        "plain": lambda: np.full_like(pixels, pixels[0, 0, 0]),
    }[change]()
    assert f"{phash(pixels):016x}" == expected(pixels)


def test_view_that_is_not_contiguous_hashes_as_its_copy() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    assert phash(pixels[::2, ::-1]) == phash(pixels[::2, ::-1].copy())


def test_copy_is_near_and_another_picture_is_far() -> None:
    image = picture(1)[0]
    copy = image.resize((70, 80)).convert("P").convert("RGB")
    hashes = [phash(np.asarray(p)) for p in (image, copy, picture(2)[0])]
    assert (hashes[0] ^ hashes[1]).bit_count() <= 6
    assert (hashes[0] ^ hashes[2]).bit_count() > 10


def words(*values: int):
    return np.array(values, dtype=np.uint64)


def test_nearest_within_the_radius_is_found_the_first_of_equals() -> None:
    index = HashIndex()
    index.add(words(0b1111, 0b0001))
    index.add(words(0b0010, 2**63))
    position, distance = index.search(words(0, 0b1111, 2**64 - 1), 2)
    assert position.tolist() == [1, 0, -1]
    assert distance[:2].tolist() == [1, 0]


def test_empty_index_finds_nothing() -> None:
    assert HashIndex().search(words(3), 64)[0].tolist() == [-1]
    assert HashIndex().search(words(), 64)[0].tolist() == []


def test_index_that_grew_finds_what_brute_force_finds(rng) -> None:
    stored = rng.integers(0, 2**12, 5000, dtype=np.uint64) << np.uint64(50)
    index = HashIndex()
    for part in np.array_split(stored, 7):
        index.add(part)
    assert len(index) == 5000
    queries = rng.integers(0, 2**12, 40, dtype=np.uint64) << np.uint64(50)
    position, distance = index.search(queries, 1)
    for i, query in enumerate(queries):
        bits = np.bitwise_count(stored ^ query)
        assert distance[i] == bits.min()
        assert position[i] == (bits.argmin() if bits.min() <= 1 else -1)


def test_near_pairs_are_all_pairs_also_where_there_are_many() -> None:
    assert near_pairs(words(0, 1, 3, 2**40), 1).tolist() == [[0, 1], [0, 3], [1, 2]]
    assert len(near_pairs(np.zeros(50, dtype=np.uint64), 0)) == 50 * 49 // 2
    assert near_pairs(words(), 3).shape == (0, 2)


def test_near_hashes_come_in_portions_of_whole_queries(rng, monkeypatch) -> None:
    monkeypatch.setattr("curate.hashing._PAIRS", 5)
    stored, queries = (rng.integers(0, 8, n, dtype=np.uint64) for n in (20, 9))
    index = HashIndex()
    index.add(stored)
    portions = [list(zip(i.tolist(), j.tolist(), strict=True)) for i, j in index.within(queries, 1)]
    expected = [
        (i, j) for i, a in enumerate(queries) for j, b in enumerate(stored) if (int(a) ^ int(b)).bit_count() <= 1
    ]
    assert [pair for part in portions for pair in part] == expected
    assert all(len(part) <= 5 or len({i for i, _ in part}) == 1 for part in portions)
    assert list(next(index.within(words(), 1))[0]) == []
