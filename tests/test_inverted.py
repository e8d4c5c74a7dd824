"""The kept set beyond the size up to which everything is read: lists, trained anew whenever the rows have doubled."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.distributed.index import RemoteSide
from curate.errors import UsageError
from curate.neighbors import Found, KeptIndex, coarse
from curate.neighbors.centres import two_sides
from curate_kernels.arrays import unit_rows

EXACT = 2048
D = 64


def clustered(n: int, seed: int = 0, sort: bool = False, clusters: int = 100) -> np.ndarray:
    """Return float16-rounded unit rows (n, D) in clusters of Zipf sizes, in random order or one after the other."""
    centres = unit_rows(np.random.default_rng(99).normal(size=(clusters, D)).astype(np.float32))
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, clusters + 1)
    which = rng.choice(clusters, n, p=share / share.sum())
    which = np.random.default_rng(98).permutation(clusters)[np.sort(which) if sort else which]
    noise = rng.normal(size=(n, D)) * np.arange(1, D + 1) ** -0.5
    noise *= 0.65 / np.linalg.norm(np.arange(1, D + 1) ** -0.5)
    x = unit_rows((0.76 * centres[which] + noise).astype(np.float32))
    return x.astype(np.float16).astype(np.float32)


def near_copies(x: np.ndarray, seed: int = 7) -> np.ndarray:
    """Return rows at cosines .96 to .999 from x."""
    rng = np.random.default_rng(seed)
    away = rng.normal(size=x.shape)
    away -= (away * x).sum(axis=1, keepdims=True) * x
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    cos = rng.uniform(0.96, 0.999, (len(x), 1))
    return (cos * x + np.sqrt(1 - cos**2) * away).astype(np.float32)


def index_of(x: np.ndarray, exact: int = EXACT, text: np.ndarray | None = None, portion: int = 10**9) -> KeptIndex:
    index = KeptIndex(exact=exact)
    captions = np.zeros((len(x), 0), np.float32) if text is None else text
    has_text = captions.any(axis=1)
    for start in range(0, len(x), portion):
        part = slice(start, min(start + portion, len(x)))
        uids = [str(i) for i in range(part.start, part.stop)]
        index.add(uids, x[part], captions[part], has_text[part], [f"p{uid}" for uid in uids])
    return index


def ask(index: KeptIndex, x: np.ndarray, k: int = 4, text: np.ndarray | None = None, epsilon: float = 0.05) -> Found:
    captions = np.zeros((len(x), 0), np.float32) if text is None else text
    return index.search(x, captions, captions.any(axis=1), [""] * len(x), k, epsilon, 2.0 if text is None else 0.1)


def recall(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found, true, strict=True)]))


def assert_found_equal(ours: Found, theirs: Found) -> None:
    for name in ("top_image", "top_text", "twin", "exact"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


@pytest.fixture
def little_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a query read as small a share of these few rows as it does of 300,000."""
    monkeypatch.setattr(coarse, "_LEAST_READ", 256)
    monkeypatch.setattr(coarse, "_FIRST", 64)
    monkeypatch.setattr(coarse, "_READ", 12.0)


@pytest.mark.usefixtures("little_read")
@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("n", [EXACT, 2 * EXACT - 1, 9000])
def test_neighbours_and_twins_are_found_in_lists(sort: bool, n: int) -> None:
    """Sorted rows: the lists were trained on other clusters than the later ones'."""
    x, asked = clustered(n, sort=sort), clustered(500, seed=1)
    index, everything = index_of(x), index_of(x, exact=10**9)
    assert recall(ask(index, asked).top_image, ask(everything, asked).top_image) > 0.985
    copies = near_copies(x[:: n // 1000])
    assert (ask(index, copies).twin == ask(everything, copies).twin).mean() > 0.998


@pytest.mark.usefixtures("little_read")
def test_captions_are_found_in_lists_and_twins_have_their_caption() -> None:
    x, text, asked = clustered(5000), clustered(5000, seed=2), clustered(300, seed=3)
    text[::5] = 0  # no caption
    index, everything = index_of(x, text=text), index_of(x, 10**9, text)
    found, true = (ask(i, asked, text=clustered(300, seed=4)) for i in (index, everything))
    assert recall(found.top_text, true.top_text) > 0.985
    copies, own, other = near_copies(x[1::10]), text[1::10], text[2::10]
    for captions, share in ((own, 1.0), (other, 0.0)):
        found, true = (ask(i, copies, text=captions) for i in (index, everything))
        np.testing.assert_array_equal(found.twin, true.twin)
        assert abs((true.twin >= 0).mean() - share) < 0.02


@settings(max_examples=8)
@given(
    st.integers(0, 99),
    st.lists(st.integers(1, 3000), min_size=1, max_size=6),
    st.sets(st.integers(0, 5)),
    st.booleans(),
)
def test_found_does_not_depend_on_how_rows_were_portioned(
    seed: int, portions: list[int], searched: set[int], sort: bool
) -> None:
    """One index grows in portions and is searched in between; the other is rebuilt in one go, as in a resumed run."""
    n = sum(portions)
    x, text = clustered(n, seed, sort), clustered(n, seed + 100)
    text[: n // 3] = 0
    grown, start = KeptIndex(exact=1500), 0
    asked, captions = clustered(64, seed + 1), clustered(64, seed + 2)
    for number, size in enumerate(portions):
        part = slice(start, start + size)
        wide = text[part] if text[: start + size].any() else np.zeros((size, 0), np.float32)
        grown.add([str(i) for i in range(start, start + size)], x[part], wide, wide.any(axis=1), [""] * size)
        start += size
        if number in searched:
            ask(grown, asked, text=captions)
    whole = KeptIndex(exact=1500)
    whole.add([str(i) for i in range(n)], x, text, text.any(axis=1), [""] * n)
    assert_found_equal(ask(grown, asked, text=captions), ask(whole, asked, text=captions))


def test_removed_rows_are_never_found_again_before_or_after_training() -> None:
    x = clustered(7000)
    index = index_of(x[:3000])
    ask(index, x[:10])
    index.remove([str(i) for i in range(0, 3000, 2)])
    for n in (3000, 3600, 7000):
        if n > len(index.uids):
            new = range(len(index.uids), n)
            index.add(
                [str(i) for i in new],
                x[new.start : n],
                np.zeros((len(new), 0), np.float32),
                np.zeros(len(new), bool),
                [f"p{i}" for i in new],
            )
        alive = np.array([i for i in range(n) if i >= 3000 or i % 2])
        found = index.search(
            x[:3000], np.zeros((3000, 0), np.float32), np.zeros(3000, bool), [f"p{i}" for i in range(3000)], 1, 0.0, 2.0
        )
        assert len(index) == alive.size
        np.testing.assert_array_equal(found.exact, np.arange(3000) % 2 == 1)
        np.testing.assert_array_equal(found.twin[1::2], np.arange(1, 3000, 2))
        assert set(found.twin[::2].tolist()) == {-1}
        best = (x[:200:2] @ x[alive].T).max(axis=1)
        assert np.isclose(found.top_image[:200:2, 0], best, atol=1e-6).mean() > 0.97


def test_room_of_removed_rows_is_used_again() -> None:
    x = clustered(6000)
    index = index_of(x[:4000], exact=2000)
    index.remove([str(i) for i in range(1000, 4000)])
    ask(index, x[:1])
    assert index._size == 1000  # few are left: everything is read again
    index.add([str(i) for i in range(4000, 5000)], x[4000:5000], *no_captions(1000), [""] * 1000)
    found = ask(index, x[4000:4100], epsilon=0.01)
    np.testing.assert_array_equal(found.twin, np.arange(4000, 4100))
    assert ask(index, x[2000:2001], epsilon=0.01).twin[0] == -1
    index.remove(["4000"])  # now the rows' places are not their positions
    assert ask(index, x[4000:4002], epsilon=0.01).twin.tolist() == [-1, 4001]
    assert len(index) == 1999


def no_captions(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((n, 0), np.float32), np.zeros(n, bool)


ADVERSARIAL = {
    "equal rows": lambda n: np.repeat(clustered(1), n, axis=0),
    "few distinct rows": lambda n: clustered(20)[np.arange(n) % 20],
    "zero rows": lambda n: np.zeros((n, D), np.float32),
    "zero rows among others": lambda n: clustered(n) * (np.arange(n) % 2)[:, None].astype(np.float32),
    "opposite rows": lambda n: clustered(n) * np.where(np.arange(n) % 2, 1, -1)[:, None].astype(np.float32),
    "one tight cluster": lambda n: unit_rows(clustered(n) * 0.02 + clustered(1)).astype(np.float16).astype(np.float32),
}


@pytest.mark.usefixtures("little_read")
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_degenerate_rows_are_found(name: str) -> None:
    x = ADVERSARIAL[name](6000)
    index, everything = index_of(x), index_of(x, exact=10**9)
    found, true = ask(index, x[:100]), ask(everything, x[:100])
    assert np.isfinite(found.top_image).all()
    assert np.abs(found.top_image - true.top_image).mean() < 0.001
    np.testing.assert_array_equal(found.twin >= 0, true.twin >= 0)


def test_more_neighbours_asked_than_kept_are_padded() -> None:
    x = clustered(1100)
    found = ask(index_of(x, exact=1024), x[:3], k=1200)
    assert np.isfinite(found.top_image[:, :1100]).all()
    assert (found.top_image[:, 1100:] == -np.inf).all()


def test_lists_stay_short_when_one_cluster_takes_everything() -> None:
    index = index_of(np.concatenate([clustered(2048), clustered(1900, clusters=1)]))
    ask(index, clustered(1))
    lists = index._image._lists
    assert lists is not None
    made = lists._pages
    assert made._length.max() <= lists._coarse._longest
    assert (made._length == lists._coarse._length).all()
    assert made._length.sum() == 2048 + 1024
    rows = np.sort(made._slot[made._slot >= 0])
    free = set(made._free)
    listed = [made._slot[page] for page in range(len(made._slot)) if page not in free]
    rows = np.concatenate(listed)
    assert sorted(rows[rows >= 0].tolist()) == list(range(2048 + 1024))  # each row once


@pytest.mark.parametrize("n", [8, 9, 300])
def test_both_sides_of_a_halved_list_have_rows(n: int) -> None:
    for x in (clustered(n), np.repeat(clustered(1), n, axis=0), np.zeros((n, D), np.float32)):
        side, centres = two_sides(x.astype(np.float16).view(np.uint16), np.arange(n))
        assert n // 8 <= side.sum() <= n - n // 8
        np.testing.assert_allclose(centres, [x[~side].sum(axis=0), x[side].sum(axis=0)], rtol=1e-5, atol=1e-5)


def test_more_memory_than_allowed_is_a_named_error() -> None:
    index = KeptIndex(memory_gb=2 * D * 3000 / 1e9, exact=10**9)
    index.add([str(i) for i in range(2000)], clustered(2000), *no_captions(2000), [""] * 2000)
    with pytest.raises(UsageError, match=r"5000 kept samples need 0\.0 GB, more than limits\.memory_gb"):
        index.add([str(i) for i in range(3000)], clustered(3000), *no_captions(3000), [""] * 3000)
    assert len(index) == 2000
    assert ask(index, clustered(1)).twin[0] >= -1


def test_captions_count_twice_where_they_lie_beside_images_too() -> None:
    sides = RemoteSide(pytest.fail, 1), RemoteSide(pytest.fail, 3)
    index = KeptIndex(memory_gb=4 * D * 1000 / 1e9, exact=10**9, sides=sides)
    x = clustered(1000)
    with pytest.raises(UsageError, match=r"more than limits\.memory_gb"):
        index.add([str(i) for i in range(1000)], x, x, np.ones(1000, dtype=np.bool_), [""] * 1000)


def test_memory_grows_without_a_second_copy_of_the_rows() -> None:
    n, d = 20_000, 512
    index = KeptIndex(exact=10**9)
    part = np.random.default_rng(0).normal(size=(500, d)).astype(np.float32)
    tracemalloc.start()
    try:
        for start in range(0, n, 500):
            index.add([str(start + i) for i in range(500)], part, *no_captions(500), [""] * 500)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * n * (2 * d + 300) + 4e6  # 300 bytes: uid and place of a row in Python
