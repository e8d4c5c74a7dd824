"""Bayesian data selection, its integrals against Monte Carlo and enumeration."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit, log_softmax, logsumexp

from curate.errors import UsageError
from curate.scoring.bayes import (
    bayes_scores,
    expected_log_softmax,
    prototype_log_probability,
    residual_variance,
    selection_score,
)
from curate.scoring.moments import ClassMoments
from curate.scoring.probe import RidgeProbe


@pytest.mark.parametrize("classes", [2, 5, 40])
@pytest.mark.parametrize("spread", [0.2, 1.0, 3.0])
def test_integrals_equal_monte_carlo(rng, classes, spread) -> None:
    mean, label = 2 * rng.normal(size=(4, classes)), rng.integers(0, classes, 4)
    draws = mean[:, None] + spread * rng.normal(size=(4, 20_000, classes))
    log_p = draws[np.arange(4), :, label] - logsumexp(draws, axis=2)
    p = np.exp(log_p)
    ours_log, log_ours = expected_log_softmax(mean, np.full(4, spread), label)
    assert (abs(ours_log - log_p.mean(axis=1)) < 5 * log_p.std(axis=1) / np.sqrt(20_000)).all()
    assert (abs(np.exp(log_ours) - p.mean(axis=1)) < 5 * p.std(axis=1) / np.sqrt(20_000)).all()


@pytest.mark.parametrize("classes", [1, 2, 7, 100])
def test_without_spread_both_are_the_log_softmax(rng, classes) -> None:
    mean, label = 5 * rng.normal(size=(6, classes)), rng.integers(0, classes, 6)
    exact = log_softmax(mean, axis=1)[np.arange(6), label]
    for ours in expected_log_softmax(mean, np.zeros(6), label):
        np.testing.assert_allclose(ours, exact, atol=1e-9)


@pytest.mark.parametrize("spread", [0.1, 2.0, 5.0])
def test_expected_probabilities_of_all_classes_sum_to_one(rng, spread) -> None:
    mean = np.repeat(3 * rng.normal(size=(1, 6)), 6, axis=0)
    p_log, log_p = expected_log_softmax(mean, np.full(6, spread), np.arange(6))
    assert np.exp(log_p).sum() == pytest.approx(1.0, abs=1e-6)
    assert (p_log <= log_p + 1e-9).all()  # Jensen


@pytest.mark.parametrize(("spread", "tolerance"), [(0.5, 1e-12), (1.0, 1e-12), (2.0, 5e-6), (3.0, 5e-4)])
def test_two_classes_equal_an_adaptive_integral_over_their_difference(spread, tolerance) -> None:
    # The difference of two scores is Gaussian, with variance 2 spread².
    def mean_of(function) -> float:
        return quad(lambda u: function(1.5 + np.sqrt(2) * spread * u) * np.exp(-u * u / 2), -12, 12, limit=500)[0]

    p_log, log_p = expected_log_softmax(np.array([[1.5, 0.0]]), np.full(1, spread), np.array([0]))
    total = np.sqrt(2 * np.pi)
    np.testing.assert_allclose(p_log, [mean_of(lambda f: -np.logaddexp(0.0, -f)) / total], atol=tolerance)
    np.testing.assert_allclose(log_p, [np.log(mean_of(expit) / total)], atol=tolerance)


def test_blocks_do_not_change_the_integrals(rng, monkeypatch) -> None:
    mean, label = rng.normal(size=(9, 3)), rng.integers(0, 3, 9)
    whole = expected_log_softmax(mean, np.full(9, 0.7), label)
    monkeypatch.setattr("curate.scoring.bayes._CHUNK", 256 * 3 * 2)
    for ours, expected in zip(expected_log_softmax(mean, np.full(9, 0.7), label), whole, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_score_by_hand() -> None:
    half = np.log([0.5])
    np.testing.assert_allclose(selection_score(half * 2, half, half * 3, alpha=0.25), [-(0.5 + 2.25) + 1])


def test_learnable_rows_come_before_learnt_and_wrong_ones() -> None:
    # Rows: learnt (model and reference believe the label), learnable (only the reference), wrong (neither).
    log_p = np.log([0.95, 0.2, 0.1])
    zero_shot = np.log([0.9, 0.9, 0.02])
    score = selection_score(log_p - 0.05, log_p, zero_shot)
    assert score[1] > score[0] > score[2]


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_alpha_out_of_range_is_refused(alpha) -> None:
    with pytest.raises(UsageError, match="alpha"):
        selection_score(np.zeros(1), np.zeros(1), np.zeros(1), alpha)


def test_prototypes_give_a_softmax_of_cosines() -> None:
    log_p = prototype_log_probability(np.float32([[3, 0], [0, 0]]), np.float32([[1, 0], [0, 2]]), sharpness=2.0)
    np.testing.assert_allclose(log_p, [[-np.log1p(np.exp(-2)), -2 - np.log1p(np.exp(-2))], [-np.log(2)] * 2], rtol=1e-6)


def test_wrong_labels_score_lowest_end_to_end() -> None:
    rng = np.random.default_rng(0)
    true = np.arange(300) % 3
    x = (2 * np.eye(3, 6)[true] + 0.5 * rng.normal(size=(300, 6))).astype(np.float32)
    label = np.where(np.arange(300) < 20, (true + 1) % 3, true)
    moments, seen = ClassMoments.zeros(6), np.ones(300, dtype=bool)
    moments.add(x, label, 3)
    probe = RidgeProbe(moments)
    z = probe.project(x)
    probe.choose(z, label)
    noise = residual_variance(probe.predict(z, label, seen), label)
    assert 0 < noise < 0.25
    zero_shot = prototype_log_probability(x, np.eye(3, 6, dtype=np.float32), sharpness=10.0)
    scores = bayes_scores(probe, z, label, seen, zero_shot, noise=noise)
    assert np.isfinite(scores).all()
    assert scores[:20].max() < np.quantile(scores[20:], 0.05)


def test_no_rows() -> None:
    nothing = expected_log_softmax(np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=int))
    assert [part.shape for part in nothing] == [(0,), (0,)]
    assert residual_variance(np.zeros((0, 3)), np.zeros(0, dtype=int)) == 0.0
