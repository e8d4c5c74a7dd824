"""Gains that do not age."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curate
from curate_kernels.arrays import unit_rows
from curate_selectors.drift import Drift, sample_rows
from curate_selectors.infogrowth import InfoGrowth, InfoGrowthReference, gains_now, stream_gains
from curate_selectors.types import Candidates


def stationary(n: int, seed: int, d: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, d))
    return unit_rows((centres[rng.integers(0, 40, n)] + rng.normal(size=(n, d))).astype(np.float32))


def quarters(index: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(index * 4 // n, minlength=4) / index.size


def test_gain_now_is_the_mean_distance_to_the_nearest_others() -> None:
    x = stationary(300, 1)
    at = np.array([0, 7, 299])
    sim = x @ x.T
    np.fill_diagonal(sim, -np.inf)
    expected = 1 - np.sort(sim[at], axis=1)[:, -4:].mean(axis=1)
    np.testing.assert_allclose(gains_now(x, at, 4), expected, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_gain_now_of_few_rows_is_finite(n: int) -> None:
    x = stationary(5, 2)[:n]
    assert np.isfinite(gains_now(x, np.arange(n), 4)).all()
    assert np.isfinite(InfoGrowth().gains(x)).all()


def test_a_frozen_gain_favours_early_rows_and_the_corrected_one_does_not() -> None:
    n, count = 12_000, 4_000
    frozen, corrected = [], []
    for seed in range(3):
        data = Candidates(n, stationary(n, seed))
        frozen.append(quarters(InfoGrowthReference().select(data, count, seed).index, n))
        corrected.append(quarters(InfoGrowth().select(data, count, seed).index, n))
    assert np.mean(frozen, axis=0)[0] > 0.27
    np.testing.assert_allclose(np.mean(corrected, axis=0), 0.25, atol=0.015)


def test_a_source_that_grows_redundant_is_not_taken_for_drift() -> None:
    n, rng = 4_000, np.random.default_rng(0)
    x = stationary(n, 3)
    x[n // 2 :] = unit_rows(x[rng.integers(0, 100, n // 2)] + 0.02 * rng.normal(size=(n // 2, 16)).astype(np.float32))
    gain = InfoGrowth().gains(x)
    assert gain[n // 2 :].mean() < 0.3 * gain[100 : n // 2].mean()


def test_the_reference_reads_what_was_stored_at_arrival() -> None:
    stored = np.float32([0, 0, 1, 1])
    data = Candidates(4, scores={"gain": 1 - stored, "gain_arrival": stored})
    assert set(InfoGrowthReference().select(data, 2, 0).index) == {2, 3}
    assert set(InfoGrowth().select(data, 2, 0).index) == {0, 1}
    x = stationary(50, 4)
    assert curate.select(x, method="infogrowth-reference", budget=9).index.size == 9


def test_the_reference_gain_is_the_published_loop() -> None:
    x, k = stationary(60, 5), 4
    for i, gain in enumerate(stream_gains(x, k)):
        near = np.sort(x[:i] @ x[i])[::-1][:k]
        assert gain == pytest.approx(float(np.mean(1 - near)) if i else 1.0, abs=1e-6)


@given(st.integers(0, 500), st.integers(0, 9))
def test_a_curve_of_equal_gains_changes_nothing(n: int, seed: int) -> None:
    gain = np.random.default_rng(seed).random(n).astype(np.float32) + 0.1
    size = np.arange(n, dtype=np.int64)
    np.testing.assert_allclose(Drift.fit(size, gain, gain).correct(size, gain), gain, rtol=1e-6)


def test_a_power_law_is_undone() -> None:
    size = np.arange(4, 50_000, dtype=np.int64)
    gain = ((size + 1.0) ** (-1 / 8)).astype(np.float32)
    now = np.full(size.size, 50_000.0 ** (-1 / 8), dtype=np.float32)
    curve = Drift.fit(size, gain, now)
    np.testing.assert_allclose(curve.correct(size, gain)[2000:], now[2000:], rtol=0.02)


def test_rows_that_are_measured_again_are_spread_evenly() -> None:
    assert sample_rows(0).size == 0
    assert sample_rows(5).tolist() == [0, 1, 2, 3, 4]
    rows = sample_rows(100_000)
    assert (rows[0], rows[-1], rows.size) == (0, 99_999, 4096)
