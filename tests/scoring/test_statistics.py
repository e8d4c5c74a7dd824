"""All sums in one object: they merge, subtract, and come back from a file."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import UsageError
from curate.scoring.race import Race
from curate.scoring.statistics import PARTS, Statistics

P, T, CLASSES = 6, 4, 3
SIZES = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 99))


def rows(seed: int, n: int) -> tuple[np.ndarray, ...]:
    """Images, captions of some of them, labels of some of them."""
    rng = np.random.default_rng(seed)
    image = rng.normal(2, 3, size=(n, P)).astype(np.float32)
    text = rng.normal(size=(n, T)).astype(np.float32)
    return image, text, rng.random(n) < 0.7, rng.integers(-1, CLASSES, n)


def empty() -> Statistics:
    return Statistics(race=Race(np.zeros(P), hashes=5, bits=3))


def seen(batch: tuple[np.ndarray, ...]) -> Statistics:
    statistics = empty()
    statistics.update(*batch, classes=CLASSES)
    return statistics


def assert_same(ours: Statistics, theirs: Statistics) -> None:
    left, right = ours.arrays(), theirs.arrays()
    for name in left.keys() | right.keys():
        # a part that one side has never made counts as zeros on the other
        a, b = (np.asarray(side.get(name, 0.0), dtype=float) for side in (left, right))
        np.testing.assert_allclose(a, b, atol=1e-9 * max(np.abs(b).max(initial=0), np.abs(a).max(initial=0), 1.0))


def part(batch: tuple[np.ndarray, ...], at: slice) -> tuple[np.ndarray, ...]:
    return tuple(column[at] for column in batch)


@given(SIZES)
def test_two_halves_merged_equal_one_pass(sizes: tuple[int, int, int]) -> None:
    n, m, seed = sizes
    whole = rows(seed, n + m)
    merged = seen(part(whole, slice(n)))
    merged.merge(seen(part(whole, slice(n, None))))
    assert_same(merged, seen(whole))


@given(SIZES)
def test_rows_that_are_taken_out_were_never_seen(sizes: tuple[int, int, int]) -> None:
    n, m, seed = sizes
    whole = rows(seed, n + m)
    by_rows, by_sums = seen(whole), seen(whole)
    by_rows.update(*part(whole, slice(n, None)), classes=CLASSES, sign=-1.0)
    by_sums.subtract(seen(part(whole, slice(n, None))))
    for left in (by_rows, by_sums):
        assert_same(left, seen(part(whole, slice(n))))


def test_counts_say_what_the_rows_held() -> None:
    image, text, _, _ = rows(0, 5)
    paired = np.array([True, False, True, True, False])
    statistics = empty()
    assert statistics.update(image, text, paired, np.array([0, -1, 2, 2, 0]), CLASSES) == (3, 4)
    assert statistics.rows is not None
    assert (statistics.rows.n, statistics.pairs.n) == (5, 3)
    assert statistics.labels.count.tolist() == [2, 0, 2]
    assert statistics.race.n == 5
    np.testing.assert_allclose(statistics.pairs.xy, image[paired].T @ text[paired], rtol=1e-5)


def test_only_kept_parts_are_made() -> None:
    statistics = Statistics(keep=("pairs",))
    statistics.update(*rows(1, 8))
    assert [name for name in PARTS if getattr(statistics, name) is not None] == ["pairs"]


def test_merging_into_nothing_copies() -> None:
    source, target = seen(rows(2, 8)), Statistics()
    target.merge(source)
    assert_same(target, source)
    target.update(*rows(3, 4))
    assert_same(source, seen(rows(2, 8)))


def test_taking_out_what_was_never_in_is_an_error() -> None:
    with pytest.raises(UsageError, match="rows"):
        Statistics().subtract(seen(rows(2, 8)))


def test_saved_statistics_come_back(tmp_path: Path) -> None:
    statistics = seen(rows(4, 9))
    statistics.save(tmp_path / "sums")
    back = Statistics.load(tmp_path / "sums")
    assert_same(back, statistics)
    back.update(*rows(5, 3), classes=CLASSES)  # it goes on where the other stopped
    statistics.update(*rows(5, 3), classes=CLASSES)
    assert_same(back, statistics)


@pytest.mark.parametrize("data", [None, b"", b"text that is no safetensors file"])
def test_a_missing_or_damaged_file_is_a_named_error(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "sums"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match="cannot be read"):
        Statistics.load(path)
