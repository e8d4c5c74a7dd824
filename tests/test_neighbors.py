"""The kept set against brute force."""

import tracemalloc
from dataclasses import dataclass

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.neighbors import Found, KeptIndex, flat
from curate.neighbors.kept import Alike
from curate.neighbors.products import WholeTiles
from curate_kernels.arrays import unit_rows
from curate_kernels.search import Kept


@dataclass
class Rows:
    """What the index keeps of each row. Pixel hashes and rows come from small sets, so that many are equal."""

    uids: list[str]
    image: np.ndarray
    text: np.ndarray
    has_text: np.ndarray
    pixels: list[str]

    def part(self, rows: slice) -> tuple[object, ...]:
        return self.uids[rows], self.image[rows], self.text[rows], self.has_text[rows], self.pixels[rows]

    def asked(self) -> tuple[object, ...]:
        return self.image, self.text, self.has_text, self.pixels


def some_rows(seed: int, n: int, captions: bool = True) -> Rows:
    rng = np.random.default_rng(seed)
    corners = np.array([[(c >> bit & 1) - 0.5 for bit in range(4)] for c in range(16)], dtype=np.float32)
    has_text = rng.random(n) < (0.7 if captions else 0.0)
    text = corners[rng.integers(0, 4, n)] * has_text[:, None]
    pixels = [["", "p", "q", "r"][i] for i in rng.integers(0, 4, n)]
    image = corners[rng.integers(0, 16, n)]
    return Rows([f"{seed}-{i}" for i in range(n)], image, text.astype(np.float32), has_text, pixels)


def brute_force(kept: Rows, alive: np.ndarray, asked: Rows, k: int, epsilon: float, epsilon_text: float) -> Found:
    """Every pair, one after the other."""
    b = len(asked.uids)
    found = Found(*(np.full((b, k), -np.inf) for _ in range(2)), np.full(b, -1), np.zeros(b, dtype=bool))
    for i in range(b):
        image, text = kept.image @ asked.image[i], kept.text @ asked.text[i]
        near = np.sort(image[alive])[::-1][:k]
        found.top_image[i, : near.size] = near
        if asked.has_text.any():  # of a row without caption nobody reads it
            near = np.sort(text[alive & kept.has_text])[::-1][:k]
            found.top_text[i, : near.size] = near
        twins = []
        for j in np.flatnonzero(alive):
            same = asked.pixels[i] == kept.pixels[j] != ""
            caption = not asked.has_text[i] or (kept.has_text[j] and text[j] >= 1 - epsilon_text)
            if (same or image[j] >= 1 - epsilon) and (caption or epsilon_text >= 2):
                twins.append((same, 0.0 if same else image[j], -j))
        if twins:
            found.exact[i], _, position = max(twins)
            found.twin[i] = -position
    return found


def assert_found_equal(ours: Found, theirs: Found) -> None:
    for name in ("top_image", "top_text", "twin", "exact"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


@given(
    st.integers(0, 999),
    st.lists(st.integers(0, 12), max_size=4),
    st.sets(st.integers(0, 30)),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.5, 2.0]),
)
def test_search_equals_brute_force(
    seed: int, portions: list[int], removed: set[int], k: int, epsilon: float, epsilon_text: float
) -> None:
    kept, asked = some_rows(seed, sum(portions)), some_rows(seed + 1000, 6)
    index, start = KeptIndex(), 0
    for size in portions:
        index.add(*kept.part(slice(start, start + size)))
        start += size
    alive = np.ones(start, dtype=bool)
    gone = [i for i in sorted(removed) if i < start]
    alive[gone] = False
    index.remove([kept.uids[i] for i in gone])
    assert len(index) == alive.sum()
    expected = brute_force(kept, alive, asked, k, epsilon, epsilon_text)
    assert_found_equal(index.search(*asked.asked(), k, epsilon, epsilon_text), expected)


def test_search_in_tiles_equals_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "TILE", 7)
    kept, asked = some_rows(0, 40), some_rows(1, 10)
    index = KeptIndex()
    index.add(*kept.part(slice(None)))
    expected = brute_force(kept, np.ones(40, dtype=bool), asked, 3, 0.5, 0.5)
    assert_found_equal(index.search(*asked.asked(), 3, 0.5, 0.5), expected)


def one_by_one(images: list[list[float]], pixels: list[str], captions: list[list[float] | None]) -> Rows:
    has_text = np.array([c is not None for c in captions])
    text = np.array([c or [0, 0] for c in captions], dtype=np.float32)
    return Rows([str(i) for i in range(len(images))], np.array(images, dtype=np.float32), text, has_text, pixels)


KEPT = one_by_one([[1, 0], [0.8, 0.6], [0.8, 0.6], [0, 1]], ["a", "b", "c", "d"], [[1, 0], [1, 0], [0, 1], None])


@pytest.mark.parametrize(
    ("image", "pixel", "caption", "epsilon_text", "twin", "exact"),
    [
        ([1, 0], "", None, 0.1, 0, False),  # the most similar
        ([0.8, 0.6], "", None, 0.1, 1, False),  # of equals the lowest
        ([0.8, 0.6], "", [0, 1], 0.1, 2, False),  # the lowest with the same caption
        ([1, 0], "b", None, 0.1, 1, True),  # equal pixels before most similar
        ([1, 0], "d", [1, 0], 0.1, 0, False),  # equal pixels, and no caption to compare
        ([1, 0], "d", [1, 0], 2.0, 3, True),  # unless captions do not matter
        ([0, 1], "", [1, 0], 0.1, -1, False),
        ([0, 1], "", [1, 0], 2.0, 3, False),
        ([0, -1], "e", None, 0.1, -1, False),
    ],
)
def test_twin_by_hand(
    image: list[float], pixel: str, caption: list[float] | None, epsilon_text: float, twin: int, exact: bool
) -> None:
    index = KeptIndex()
    index.add(*KEPT.part(slice(None)))
    found = index.search(*one_by_one([image], [pixel], [caption]).asked(), 2, 0.1, epsilon_text)
    assert (found.twin.tolist(), found.exact.tolist()) == ([twin], [exact])


def test_removed_row_is_no_twin_and_no_neighbour_and_may_come_back() -> None:
    index = KeptIndex()
    index.add(*KEPT.part(slice(0, 1)))
    index.remove(["0"])
    asked = one_by_one([[1, 0]], ["a"], [None]).asked()
    found = index.search(*asked, 1, 0.1, 0.1)
    assert (len(index), found.twin[0], found.top_image[0, 0]) == (0, -1, -np.inf)
    index.add(*KEPT.part(slice(0, 1)))
    found = index.search(*asked, 1, 0.1, 0.1)
    assert (len(index), found.twin[0], found.top_image[0, 0]) == (1, 1, 1.0)


def test_captions_may_appear_after_rows_without_any() -> None:
    index = KeptIndex()
    plain = some_rows(0, 5, captions=False)
    index.add(plain.uids, plain.image, np.zeros((5, 0), dtype=np.float32), plain.has_text, plain.pixels)
    later, asked = some_rows(1, 5), some_rows(2, 5)
    index.add(*later.part(slice(None)))
    both = Rows(
        plain.uids + later.uids,
        np.concatenate([plain.image, later.image]),
        np.concatenate([plain.text, later.text]),
        np.concatenate([plain.has_text, later.has_text]),
        plain.pixels + later.pixels,
    )
    expected = brute_force(both, np.ones(10, dtype=bool), asked, 2, 0.5, 0.5)
    assert_found_equal(index.search(*asked.asked(), 2, 0.5, 0.5), expected)


def test_nearest_similarities_equal_those_of_faiss(rng: np.random.Generator) -> None:
    kept, asked = (unit_rows(rng.normal(size=(n, 16)).astype(np.float32)) for n in (500, 30))
    kept = kept.astype(np.float16).astype(np.float32)  # as everything kept is
    index, oracle = KeptIndex(), faiss.IndexFlatIP(16)
    index.add([str(i) for i in range(500)], kept, np.zeros((500, 0), np.float32), np.zeros(500, bool), [""] * 500)
    oracle.add(kept)
    found = index.search(asked, np.zeros((30, 0), np.float32), np.zeros(30, bool), [""] * 30, 5, 0.0, 0.0)
    np.testing.assert_allclose(found.top_image, oracle.search(asked, 5)[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["spread", "alike", "one long number", "zero rows", "scaled"])
@pytest.mark.parametrize("need", [1, 3])
def test_every_rough_product_gives_the_same_bits(rng: np.random.Generator, kind: str, need: int) -> None:
    n, b, d = 2500, 70, 70
    rows, asked = unit_rows(rng.normal(size=(n, d)).astype(np.float32)), rng.normal(size=(b, d)).astype(np.float32)
    if kind == "alike":
        rows = unit_rows(rows * 0.05 + rows[0])
    elif kind == "one long number":
        rows[:, 3] = 4.0
    elif kind == "zero rows":
        rows[::2], asked[::2] = 0, 0
    elif kind == "scaled":
        rows *= rng.uniform(0, 50, (n, 1)).astype(np.float32)
    asked[:9] = rows[:9]
    bits = rows.astype(np.float16).view(np.uint16)
    flags = rng.integers(0, 4, n).astype(np.uint8)
    longest = float(np.linalg.norm(rows.astype(np.float16).astype(np.float64), axis=1).max()) * 1.0001
    found = []
    for product in ("float32", "int8", "bfloat16"):
        ask = flat.asked(asked, 5, asked, rng.random(b) < 0.0, (0.95, -1.0))
        flat.search_tiles(Kept(bits, bits, flags, need), longest, ask, 3, n - 3, WholeTiles(), product)
        found.append(ask)
    true = rows.astype(np.float16).astype(np.float32)[3:-3][flags[3:-3] & need == need] @ asked.T
    np.testing.assert_allclose(found[0].best, -np.sort(-true.T, axis=1)[:, :5], rtol=1e-4, atol=1e-5)
    for other in found[1:]:
        for name in ("best", "twin_sim", "twin_row"):
            np.testing.assert_array_equal(getattr(found[0], name), getattr(other, name))


def test_first_tiles_are_remembered(rng: np.random.Generator) -> None:
    tiles, rows = WholeTiles(), rng.normal(size=(1030, 8)).astype(np.float16).view(np.uint16)
    assert tiles.tile(rows, 0, 1024)[0] is tiles.tile(rows, 0, 1024)[0]
    whole, unit, error = tiles.tile(rows, 1024, 6)
    assert (whole.shape, unit.shape) == ((512, 8), (6,))
    assert np.abs(whole[:6] * unit[:, None] - rows[1024:].view(np.float16)).max() <= error
    assert not whole[6:].any()


def test_many_kept_rows_of_one_hash_take_little_memory(rng: np.random.Generator) -> None:
    n, b = 20_000, 64
    kept, asked = (unit_rows(rng.standard_normal((size, 4)).astype(np.float32)) for size in (n, b))
    kept = kept.astype(np.float16).astype(np.float32)
    plain = np.full(n, 5, dtype=np.uint64)
    index = KeptIndex()
    index.add([str(i) for i in range(n)], kept, np.zeros((n, 0), np.float32), np.zeros(n, bool), [""] * n, plain)

    def search() -> Found:
        alike = Alike(plain[:b], 2, 0.5)
        return index.search(asked, np.zeros((b, 0), np.float32), np.zeros(b, bool), [""] * b, 4, -1.0, 2.0, alike)

    search()  # compiles
    tracemalloc.start()
    found = search()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * n * b  # half of what all pairs at once would take
    np.testing.assert_allclose((asked * kept[found.twin]).sum(axis=1), found.top_image[:, 0], rtol=1e-6)
