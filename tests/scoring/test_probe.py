"""The leave-one-out ridge probe, against refits without the row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from curate.errors import UsageError
from curate.scoring.moments import ClassMoments
from curate.scoring.probe import RIDGES, RidgeProbe, difficulty


def sums(x: np.ndarray, label: np.ndarray, classes: int) -> ClassMoments:
    moments = ClassMoments.zeros(x.shape[1])
    moments.add(x, label, classes)
    return moments


def blobs(seed: int, n: int, p: int = 6, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % classes
    return (3 * np.eye(classes, p)[label] + rng.normal(1, 1, size=(n, p))).astype(np.float32), label


def refit(x: np.ndarray, label: np.ndarray, classes: int, penalty: float, point: np.ndarray) -> np.ndarray:
    """Ridge regression with an intercept that is not penalised, by least squares on an enlarged design."""
    design = np.concatenate([np.ones((len(x), 1)), x.astype(float)], axis=1)
    extra = np.sqrt(penalty) * np.eye(design.shape[1])[1:]
    target = np.concatenate([np.eye(classes)[label], np.zeros((len(extra), classes))])
    weight = np.linalg.lstsq(np.concatenate([design, extra]), target, rcond=None)[0]
    return np.concatenate([[1.0], point.astype(float)]) @ weight


def mean_eigenvalue(x: np.ndarray) -> float:
    centred = x.astype(float) - x.astype(float).mean(axis=0)
    return float((centred**2).sum()) / x.shape[1]


@given(st.integers(0, 99), st.integers(3, 20), st.integers(1, 9), st.integers(1, 4), st.sampled_from(RIDGES))
def test_leave_one_out_equals_a_refit_without_the_row(seed, n, p, classes, ridge) -> None:
    x, label = blobs(seed, n, p, classes)
    probe = RidgeProbe(sums(x, label, classes), ridge)
    ours = probe.predict(probe.project(x), label, np.ones(n, dtype=bool))
    penalty, rest = ridge * mean_eigenvalue(x), ~np.eye(n, dtype=bool)
    theirs = [refit(x[rest[i]], label[rest[i]], classes, penalty, x[i]) for i in range(n)]
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


def test_row_outside_the_sums_gets_the_plain_prediction() -> None:
    x, label = blobs(0, 30)
    probe = RidgeProbe(sums(x[:29], label[:29], 3), 0.1)
    z = probe.project(x)
    seen = np.arange(30) < 29
    expected = refit(x[:29], label[:29], 3, 0.1 * mean_eigenvalue(x[:29]), x[29])
    np.testing.assert_allclose(probe.predict(z, label, seen)[29], expected, atol=1e-9)
    np.testing.assert_allclose(probe.predict(z, label, seen).sum(axis=1), 1.0, atol=1e-9)


def test_leverage_without_the_row_is_that_of_a_refit() -> None:
    x, label = blobs(3, 12)
    probe = RidgeProbe(sums(x, label, 3), 1.0)
    rest = np.concatenate([np.ones((11, 1)), x[1:].astype(float)], axis=1)
    penalty = mean_eigenvalue(x) * np.diag([0.0] + [1.0] * 6)
    row = np.concatenate([[1.0], x[0].astype(float)])
    expected = row @ np.linalg.solve(rest.T @ rest + penalty, row)
    np.testing.assert_allclose(probe.leverage(probe.project(x[:1]), np.array([True])), [expected], rtol=1e-9)


def test_the_ridge_has_the_least_leave_one_out_error_of_the_grid() -> None:
    x, label = blobs(1, 60)
    seen = np.ones(60, dtype=bool)
    probe = RidgeProbe(sums(x, label, 3))
    z = probe.project(x)
    probe.choose(z, label)
    losses = {}
    for ridge in RIDGES:
        prediction = RidgeProbe(sums(x, label, 3), ridge).predict(z, label, seen)
        losses[ridge] = ((prediction - np.eye(3)[label]) ** 2).sum()
    assert probe.ridge == min(losses, key=losses.get)


def test_the_sharpness_has_the_least_log_loss() -> None:
    x, label = blobs(1, 60)
    label = np.where(np.arange(60) < 9, (label + 1) % 3, label)
    probe = RidgeProbe(sums(x, label, 3))
    z = probe.project(x)
    probe.choose(z, label)
    score = probe.predict(z, label, np.ones(60, dtype=bool))

    def loss(sharpness: float) -> float:
        counts = 60 * np.eye(3)[label] + 1  # a pseudo-count of one for each class
        return -float((counts * log_softmax(sharpness * score, axis=1)).sum())

    assert 1 < probe.sharpness < 100
    assert loss(probe.sharpness) < min(loss(0.99 * probe.sharpness), loss(1.01 * probe.sharpness))


def test_scores_by_hand() -> None:
    p = np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    columns = difficulty(p, np.array([0, 1, 2]))
    np.testing.assert_allclose(columns["el2n"], [np.sqrt(0.375), np.sqrt(0.875), 0.0], rtol=1e-6)
    np.testing.assert_allclose(columns["margin"], [0.25, -0.25, 1.0], rtol=1e-6)
    np.testing.assert_allclose(columns["entropy"], [1.5, 1.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(columns["confidence"], [0.5, 0.25, 1.0], rtol=1e-6)


def test_wrong_labels_are_hard() -> None:
    x, label = blobs(2, 300)
    noisy = label.copy()
    noisy[:30] = (noisy[:30] + 1) % 3
    probe = RidgeProbe(sums(x, noisy, 3))
    z = probe.project(x)
    probe.choose(z, noisy)
    columns = difficulty(probe.probabilities(z, noisy, np.ones(300, dtype=bool)), noisy)
    for name, sign in (("el2n", 1), ("margin", -1), ("confidence", -1)):
        score = sign * columns[name]
        assert np.quantile(score[:30], 0.1) > np.quantile(score[30:], 0.9), name


@pytest.mark.parametrize(
    ("x", "label", "classes"),
    [
        (np.ones((1, 3)), [0], 1),
        (np.ones((1, 3)), [1], 2),
        (np.ones((4, 3)), [0, 1, 0, 1], 2),
        (np.zeros((4, 3)), [0, 0, 1, 2], 5),
        (np.eye(3), [0, 1, 2], 3),
    ],
)
def test_degenerate_rows_give_finite_scores(x, label, classes) -> None:
    x, label = x.astype(np.float32), np.array(label)
    probe = RidgeProbe(sums(x, label, classes))
    z = probe.project(x)
    probe.choose(z, label)
    p = probe.probabilities(z, label, np.ones(len(x), dtype=bool))
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-12)
    assert all(np.isfinite(column).all() for column in difficulty(p, label).values())


def test_single_row_knows_nothing_of_itself() -> None:
    x = np.ones((1, 3), dtype=np.float32)
    probe = RidgeProbe(sums(x, np.array([0]), 2))
    p = probe.probabilities(probe.project(x), np.array([0]), np.array([True]))
    np.testing.assert_allclose(p, [[0.5, 0.5]])


def test_empty_sums_are_refused() -> None:
    with pytest.raises(UsageError, match="no row"):
        RidgeProbe(ClassMoments.zeros(3))


def test_no_rows_to_score() -> None:
    x, label = blobs(0, 9)
    probe = RidgeProbe(sums(x, label, 3))
    z = probe.project(x[:0])
    probe.choose(z, label[:0])
    assert difficulty(probe.probabilities(z, label[:0], np.ones(0, dtype=bool)), label[:0])["el2n"].shape == (0,)


def test_classes_that_nothing_confuses_still_tell_rows_apart() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(300) % 3
    centre = 20 * np.eye(3, 6)
    x = (centre[label] + rng.normal(size=(300, 6))).astype(np.float32)
    x[299] = 0.55 * centre[label[299]] + 0.45 * centre[0]  # nearly between two classes
    moments = sums(x, label, 3)
    probe = RidgeProbe(moments)
    z, seen = probe.project(x), np.ones(300, dtype=bool)
    probe.choose(z, label)
    found = difficulty(probe.probabilities(z, label, seen), label)
    assert np.unique(found["el2n"]).size > 290
    assert found["el2n"].argmax() == 299
