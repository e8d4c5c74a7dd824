"""Water filling and taking turns."""

from itertools import permutations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curate_selectors.fill import fill, in_turns

SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def poured(size: list[int], count: int, tie: tuple[int, ...]) -> list[int]:
    """One row at a time to the emptiest group that has one left, of equals to the one with the lower tie."""
    share = [0] * len(size)
    for _ in range(count):
        open_groups = [g for g in range(len(size)) if share[g] < size[g]]
        share[min(open_groups, key=lambda g: (share[g], tie[g]))] += 1
    return share


@given(SIZES, st.data())
def test_fill_is_the_mean_of_pouring_one_by_one_in_every_order(size: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, sum(size)))
    every = [poured(size, count, tie) for tie in permutations(range(len(size)))]
    np.testing.assert_allclose(fill(np.array(size), count), np.mean(every, axis=0))


def test_fill_by_hand() -> None:
    assert fill(np.array([2, 100, 5]), 20).tolist() == [2, 13, 5]
    assert fill(np.array([10, 10, 10, 1]), 8.5).tolist() == [2.5, 2.5, 2.5, 1]
    assert fill(np.zeros(0, dtype=np.int64), 0).tolist() == []


@given(st.lists(st.integers(0, 4), max_size=30), st.permutations(range(5)), st.integers(0, 9))
def test_taking_turns_pours_for_every_count_and_keeps_the_order_of_each_group(
    group: list[int], tie: list[int], seed: int
) -> None:
    groups, order = np.array(group, dtype=np.int64), np.random.default_rng(seed).permutation(len(group))
    turns = in_turns(groups, order, np.array(tie))
    for g in range(5):
        assert turns[groups[turns] == g].tolist() == order[groups[order] == g].tolist()
    size = np.bincount(groups, minlength=5)
    for count in range(len(group) + 1):
        taken = np.bincount(groups[turns[:count]], minlength=5)
        assert taken.tolist() == poured(size.tolist(), count, tuple(tie))
