"""One step of farthest-point selection."""

import numpy as np
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate_kernels.kcenter import pick_farthest

GRID = np.array([-1, 0, 0.25, 0.5, 1, 2], dtype=np.float32).tolist()


def run(function, dist, gram, index, outside, outside_index, room):
    picked, radius = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.float32)
    dist = np.array(dist, dtype=np.float32)
    index = np.array(index, dtype=np.int64)
    count = function(dist, np.array(gram, dtype=np.float32), index, outside, outside_index, picked, radius)
    return picked[:count].tolist(), radius[:count].tolist(), dist.tolist()


def test_picks_the_farthest_and_brings_the_others_nearer() -> None:
    gram = [[1, 0.5, 0], [0.5, 1, 0.75], [0, 0.75, 1]]
    picked, radius, dist = run(pick_farthest, [0.5, 1.0, 0.75], gram, [4, 6, 9], -1.0, -1, 2)
    assert picked == [1, 0]
    assert radius == [1.0, 0.5]
    assert dist == [-1, -1, 0.25]


def test_stops_when_a_row_outside_may_be_farther() -> None:
    assert run(pick_farthest, [1.0, 0.9], np.eye(2), [0, 1], 0.95, 7, 2)[0] == [0]


def test_ties_go_to_the_lowest_row_inside_or_outside() -> None:
    assert run(pick_farthest, [1.0, 1.0], np.eye(2), [5, 3], -1.0, -1, 1)[0] == [1]
    assert run(pick_farthest, [1.0, 1.0], np.eye(2), [5, 3], 1.0, 4, 2)[0] == [1]
    assert run(pick_farthest, [1.0], np.eye(1), [5], 1.0, 4, 1)[0] == []


@given(st.data(), st.integers(0, 6), st.integers(0, 6))
def test_kernel_equals_its_twin(data: st.DataObject, b: int, room: int) -> None:
    arguments = (
        data.draw(hnp.arrays(np.float32, b, elements=st.sampled_from(GRID))),
        data.draw(hnp.arrays(np.float32, (b, b), elements=st.sampled_from(GRID))),
        data.draw(st.permutations(range(b))),
        data.draw(st.sampled_from(GRID)),
        data.draw(st.integers(-1, 6)),
        room,
    )
    assert run(pick_farthest, *arguments) == run(reference.pick_farthest, *arguments)
