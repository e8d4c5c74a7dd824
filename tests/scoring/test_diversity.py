"""Diversity of rows and sets, and closeness to targets, by definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import UsageError
from curate.scoring.diversity import coverage_radius, logdet_gain, novelty, ridge_leverage, vendi
from curate.scoring.race import Race
from curate.scoring.target import importance, normsim_2, normsim_inf, vas

AXES = np.eye(3, dtype=np.float32)
SEEDS = st.integers(0, 999)


def unit_rows(seed: int, n: int, d: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def gram(x: np.ndarray) -> np.ndarray:
    return x.T.astype(np.float64) @ x.astype(np.float64)


# --- novelty and coverage


def test_novelty_by_hand() -> None:
    x = np.float32([[1, 0], [0.6, 0.8], [-1, 0]])
    np.testing.assert_allclose(novelty(x), [0.4, 0.4, 1.6], atol=1e-6)
    np.testing.assert_allclose(novelty(x, x[:1]), [0, 0.4, 2], atol=1e-6)


def test_novelty_with_nothing_to_compare_is_one() -> None:
    assert novelty(AXES[:1]).tolist() == [1]
    assert novelty(AXES, AXES[:0]).tolist() == [1, 1, 1]
    assert novelty(AXES[:0]).shape == (0,)
    assert novelty(np.repeat(AXES[:1], 4, axis=0)).tolist() == [0, 0, 0, 0]


def test_coverage_by_hand() -> None:
    x = np.float32([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]])
    np.testing.assert_allclose(coverage_radius(x, x[:1], (0.25, 0.5, 1.0)), [0, 0.4, 2], atol=1e-6)
    np.testing.assert_allclose(coverage_radius(x, x), [0] * 4, atol=1e-6)


def test_coverage_of_nothing_and_by_nothing() -> None:
    assert coverage_radius(AXES[:0], AXES).tolist() == [0] * 4
    assert coverage_radius(AXES, AXES[:0]).tolist() == [np.inf] * 4


# --- leverage and log determinant


@given(SEEDS, st.integers(0, 12), st.integers(1, 5), st.sampled_from([1e-3, 0.5, 10.0]))
def test_gain_is_the_difference_of_log_determinants(seed: int, n: int, d: int, ridge: float) -> None:
    x = unit_rows(seed, n + 1, d)

    def logdet(rows: np.ndarray) -> float:
        return float(np.linalg.slogdet(np.eye(d) + gram(rows) / ridge)[1])

    truth = logdet(x) - logdet(x[:-1])
    np.testing.assert_allclose(logdet_gain(x[-1:], gram(x[:-1]), ridge), [truth], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(logdet_gain(x, gram(x), ridge, inside=True)[-1:], [truth], rtol=1e-6, atol=1e-8)


@given(SEEDS, st.integers(1, 12), st.integers(1, 5))
def test_leave_one_out_leverage_equals_inverting_without_the_row(seed: int, n: int, d: int) -> None:
    x = unit_rows(seed, n, d)
    rest = [np.delete(x, i, axis=0) for i in range(n)]
    truth = [f @ np.linalg.inv(0.1 * np.eye(d) + gram(r)) @ f for f, r in zip(x.astype(float), rest, strict=True)]
    np.testing.assert_allclose(ridge_leverage(x, gram(x), 0.1, inside=True), truth, rtol=1e-6)


def test_row_that_spans_a_direction_alone_has_the_leverage_of_an_empty_set() -> None:
    for ridge in (1.0, 1e-14):
        np.testing.assert_allclose(ridge_leverage(AXES, np.zeros((3, 3)), ridge), [1 / ridge] * 3)
        ours = ridge_leverage(AXES, gram(AXES), ridge, inside=True)
        np.testing.assert_allclose(ours, [1 / ridge] * 3, rtol=0.2)
        assert (ours <= 1 / ridge).all()
    assert ridge_leverage(np.zeros((1, 3), np.float32), gram(AXES), 1.0).tolist() == [0]
    assert ridge_leverage(AXES[:0], gram(AXES), 1.0).shape == (0,)


def test_senseless_leverages_are_refused() -> None:
    for sums, ridge in ((np.eye(2), 1.0), (np.eye(3), 0.0), (np.eye(3), np.nan)):
        with pytest.raises(UsageError, match="ridge"):
            ridge_leverage(AXES, sums, ridge)


# --- Vendi score


@given(SEEDS, st.integers(1, 9), st.integers(1, 6), st.sampled_from([0.5, 1.0, 2.0, 3.5, np.inf]))
def test_vendi_score_equals_the_one_of_the_similarity_matrix(seed: int, n: int, d: int, q: float) -> None:
    x = unit_rows(seed, n, d)
    share = np.linalg.eigvalsh(x.astype(float) @ x.T.astype(float) / n)
    share = share[share > 1e-12] / share.sum()
    if q == 1:
        truth = np.exp(-(share * np.log(share)).sum())
    else:
        truth = 1 / share.max() if np.isinf(q) else (share**q).sum() ** (1 / (1 - q))
    assert vendi(gram(x), n, q) == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("q", [0.1, 1.0, 2.0, np.inf])
def test_vendi_score_counts_different_rows(q: float) -> None:
    assert vendi(gram(np.repeat(AXES[:2], 50, axis=0)), 100, q) == pytest.approx(2.0)
    assert vendi(gram(np.repeat(unit_rows(0, 1, 64), 9, axis=0)), 9, q) == pytest.approx(1.0, rel=1e-6)
    assert vendi(np.zeros((3, 3)), 0, q) == 0.0


def test_vendi_score_refuses_rows_that_have_not_norm_one_and_orders_that_are_none() -> None:
    with pytest.raises(UsageError, match="norm 1"):
        vendi(4 * np.eye(3), 3)
    with pytest.raises(UsageError, match="order"):
        vendi(np.eye(3), 3, 0.0)


# --- targets


@given(SEEDS, st.integers(0, 9), st.integers(0, 9), st.integers(1, 4))
def test_norms_of_similarities_by_definition(seed: int, n: int, t: int, d: int) -> None:
    x, target = unit_rows(seed, n, d), unit_rows(seed + 1000, t, d)
    sim = np.abs(x.astype(float) @ target.T.astype(float))
    np.testing.assert_allclose(normsim_inf(x, target), sim.max(axis=1, initial=0), atol=1e-6)
    np.testing.assert_allclose(normsim_2(x, target), np.sqrt((sim**2).sum(axis=1)), atol=1e-5)
    if t:
        np.testing.assert_allclose(vas(x, gram(target), t), (sim**2).mean(axis=1), atol=1e-6)


def test_rows_like_the_targets_score_higher() -> None:
    target = np.float32([[1, 0, 0], [0.8, 0.6, 0]])
    for score in (normsim_2(AXES, target), normsim_inf(AXES, target), vas(AXES, gram(target), 2)):
        assert score[0] > score[1] > score[2]


def test_targets_that_do_not_fit_are_refused() -> None:
    for score in (normsim_2, normsim_inf):
        with pytest.raises(UsageError, match="dimensions"):
            score(AXES, np.ones((2, 2), np.float32))
    for sums, n in ((np.eye(2), 1), (np.eye(3), 0)):
        with pytest.raises(UsageError, match="sums"):
            vas(AXES, sums, n)


def race_of(x: np.ndarray, **options: int) -> Race:
    race = Race(np.zeros(x.shape[1]), **{"hashes": 100, "bits": 4, **options})
    race.add(x)
    return race


def test_importance_by_hand() -> None:
    # Nine equal targets; sixteen cells, so 1/16 of a row is added to each: log((9 + 1/16)/10) against log(1/16).
    same = np.repeat(AXES[:1], 9, axis=0)
    ratio = importance(AXES[:1], race_of(same), race_of(AXES[:0]))
    np.testing.assert_allclose(ratio, [np.log((9 + 1 / 16) / 10) - np.log(1 / 16)], rtol=1e-12)


def test_importance_is_high_where_targets_are_denser_than_the_collection() -> None:
    middle = unit_rows(0, 2, 16)
    near = [m + 0.1 * unit_rows(i, 300, 16) for i, m in enumerate(middle)]
    ratio = importance(np.concatenate(near), race_of(near[0]), race_of(np.concatenate(near)))
    # Half of the collection are targets: a density ratio of 2, but for the other half's share of the kernel.
    assert 0.4 < ratio[:300].min() <= ratio[:300].max() < np.log(2) + 0.01
    assert ratio[300:].max() < -0.4


def test_importance_of_nothing_known_is_zero_and_other_hashes_are_refused() -> None:
    nothing = race_of(AXES[:0])
    assert importance(AXES, nothing, nothing).tolist() == [0, 0, 0]
    with pytest.raises(UsageError, match="do not go together"):
        importance(AXES, nothing, race_of(AXES, seed=1))
