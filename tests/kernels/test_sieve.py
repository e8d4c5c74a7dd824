"""Sieves of facility location."""

import numpy as np
import reference
from hypothesis import given
from hypothesis import strategies as st

from curate_kernels.sieve import sieve_rows


def run(function, sim, guess, room, plus, passes=1):
    sim, guess = np.array(sim, dtype=np.float32), np.array(guess, dtype=np.float64)
    best = np.zeros((len(guess), sim.shape[1]), dtype=np.float32)
    value, size = np.zeros(len(guess)), np.zeros(len(guess), dtype=np.int64)
    gain = np.full((len(sim), len(guess)), 7, dtype=np.float32)
    for _ in range(passes):
        function(sim, guess, room, plus, best, value, size, gain)
    return best, value, size, gain


def test_a_row_is_taken_where_it_gains_its_share_of_the_guess() -> None:
    sim = [[1, 0], [0, 0.5], [1, 1]]
    _, value, size, gain = run(sieve_rows, sim, [1.0, 2.0], 2, False)
    # Guess 1: 0.5 ≥ 1/4, then 0.25 ≥ (0.5 - 0.5) / 1. Guess 2: 0.5 ≥ 2/4; then 0.25 < (1 - 0.5) / 1, and 0.5 is enough.
    np.testing.assert_array_equal(gain, [[0.5, 0.5], [0.25, -1], [-1, 0.5]])
    np.testing.assert_array_equal(value, [0.75, 1.0])
    assert size.tolist() == [2, 2]


def test_with_plus_the_bar_does_not_move() -> None:
    _, _, _, gain = run(sieve_rows, [[1, 0], [0, 0.25], [1, 1]], [1.0], 2, True)
    np.testing.assert_array_equal(gain[:, 0], [0.5, -1, 0.5])


@given(st.integers(0, 99), st.integers(0, 12), st.integers(1, 6), st.integers(1, 4), st.booleans(), st.integers(1, 2))
def test_kernel_equals_its_twin(seed: int, b: int, r: int, room: int, plus: bool, passes: int) -> None:
    """On quarters and a power of two of references every sum is exact."""
    rng = np.random.default_rng(seed)
    sim = rng.integers(0, 5, (b, 2 ** (r // 2))) / 4
    guess = rng.integers(0, 9, 3) / 2
    ours, twin = (run(f, sim, guess, room, plus, passes) for f in (sieve_rows, reference.sieve_rows))
    for a, c in zip(ours, twin, strict=True):
        np.testing.assert_allclose(a, c, atol=1e-6)
