"""The kept set over two machines against the one in one process: the same bits, whatever happens to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.distributed.index import LostError, Owners
from curate.neighbors import Alike, Found, KeptIndex, coarse
from curate_kernels.arrays import unit_rows

D, T = 32, 16


@pytest.fixture(scope="module")
def owners(cluster: Any) -> Iterator[Owners]:
    import ray

    made = Owners(ray)
    yield made
    made.close()


def rows(seed: int, n: int, d: int) -> np.ndarray:
    """Return float16-rounded unit rows (n, d) in clusters, some of them equal."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(d).normal(size=(40, d))
    x = centres[rng.integers(0, 40, n) * rng.integers(0, 2, n)] + rng.normal(0, 0.6, (n, d))
    x[rng.random(n) < 0.05] = x[0]
    return unit_rows(x.astype(np.float32)).astype(np.float16).astype(np.float32)


class Both:
    """Does the same to the index of one process and to that of the cluster."""

    def __init__(self, owners: Owners, exact: int) -> None:
        self.pair = KeptIndex(exact=exact), owners.index(exact=exact)
        self.count = 0

    def add(self, seed: int, n: int, captions: bool) -> None:
        rng = np.random.default_rng((seed, 1))
        has = (rng.random(n) < 0.8) & captions
        text = rows(seed + 1, n, T) * has[:, None] if captions else np.zeros((n, 0), np.float32)
        hashes = rng.integers(0, 50, n).astype(np.uint64)
        pixels = [f"p{i}" if i % 3 else "" for i in rng.integers(0, 5000, n)]
        uids = [str(self.count + i) for i in range(n)]
        for index in self.pair:
            index.add(uids, rows(seed, n, D), text, has, pixels, hashes)
        self.count += n

    def remove(self, seed: int, share: float) -> None:
        uids = sorted(self.pair[0]._at, key=int)
        gone = [
            uid for uid, out in zip(uids, np.random.default_rng(seed).random(len(uids)) < share, strict=True) if out
        ]
        for index in self.pair:
            index.remove(gone)

    def search(self, seed: int, captions: bool, b: int = 40, epsilon_text: float = 0.1) -> Found:
        rng = np.random.default_rng((seed, 2))
        has = (rng.random(b) < 0.8) & captions
        text = rows(seed + 1, b, T) * has[:, None] if captions else np.zeros((b, 0), np.float32)
        pixels = [f"p{i}" if i % 3 else "" for i in rng.integers(0, 5000, b)]
        alike = Alike(rng.integers(0, 50, b).astype(np.uint64), 1, 0.6)
        ours, theirs = (
            index.search(rows(seed, b, D), text, has, pixels, 4, 0.25, epsilon_text, alike) for index in self.pair
        )
        for name in ("top_image", "top_text", "twin", "exact"):
            np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name), err_msg=name)
        return ours


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3000)),
        st.tuples(st.just("remove"), st.sampled_from([0.01, 0.3])),
        st.tuples(st.just("search"), st.sampled_from([0.1, 2.0])),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=12)
@given(STEPS, st.integers(0, 99), st.sampled_from([10**6, 1500]), st.integers(0, 4))
def test_answers_equal_those_of_one_process(
    owners: Owners, steps: list[tuple[str, Any]], seed: int, exact: int, first_caption: int
) -> None:
    """Up to 24,000 rows; `exact` = 1,500 makes lists at 1,500, 3,000, 6,000 and so on."""
    both = Both(owners, exact)
    for number, (what, value) in enumerate(steps):
        captions = number >= first_caption
        if what == "add":
            both.add(seed + 10 * number, value, captions)
        elif what == "remove":
            both.remove(number, value)
        elif captions or first_caption > len(steps):
            both.search(seed + number, captions, epsilon_text=value)
    both.add(seed, 5, True)
    both.search(seed + 5, True)


def test_lists_of_a_long_run_equal(owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are read of many lists; lists are founded, halved and trained anew, rows leave and are made room for."""
    for name, value in (("_LEAST_READ", 256), ("_FIRST", 64), ("_READ", 12.0)):
        monkeypatch.setattr(coarse, name, value)
    both = Both(owners, 2048)
    found = 0
    for number in range(24):
        both.add(10 * number, 700, number > 3)
        if number % 5 == 4:
            both.remove(number, 0.1)
        found += int((both.search(number, True).twin >= 0).sum())
    side = both.pair[1]._image
    assert found > 100
    assert side._coarse.count > 300
    assert np.unique(side._owner).size == 2
    assert side._places.here().numbers.size < 2 * coarse.BLOCK  # no more rows stay here


def test_lost_owner_is_told_and_the_next_index_has_new_ones(cluster: Any) -> None:
    import ray

    owners = Owners(ray)
    both = Both(owners, 10**6)
    both.add(0, 3000, True)
    both.search(1, True)
    ray.kill(owners._teams["image"]._actors[0])
    with pytest.raises(LostError, match="lost with the process"):
        both.search(1, True)
    again = Both(owners, 10**6)
    again.add(0, 3000, True)
    again.search(1, True)
    owners.close()
