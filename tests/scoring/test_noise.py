"""Confident learning, by hand and against cleanlab."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import UsageError
from curate.scoring.noise import (
    NoiseModel,
    confident_class,
    confident_thresholds,
    fit_noise,
    label_issues,
    label_quality,
)

P = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.1, 0.9], [0.4, 0.6], [0.8, 0.2]])
LABEL = np.array([0, 0, 0, 1, 1, 1])


def noisy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know the true class better than the given labels do; every class occurs."""
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(30, 300)), int(rng.integers(2, 6))
    true = rng.integers(0, classes, n)
    p = rng.dirichlet(np.full(classes, 0.7), n)
    p[np.arange(n), true] += 1.5 * rng.random(n)
    p /= p.sum(axis=1, keepdims=True)
    given_label = np.where(rng.random(n) < 0.2, rng.integers(0, classes, n), true)
    given_label[:classes] = np.arange(classes)
    return p, given_label


def test_thresholds_and_confident_classes_by_hand() -> None:
    # Class 0: (.9 + .5 + .2) / 3 = .533; class 1: (.9 + .6 + .2) / 3 = .567.
    np.testing.assert_allclose(confident_thresholds(P, LABEL), [1.6 / 3, 1.7 / 3])
    assert confident_class(P, LABEL).tolist() == [0, -1, 1, 1, 1, 0]


def test_joint_and_its_shares_by_hand() -> None:
    model = fit_noise(P, LABEL)
    assert model.confident.tolist() == [[1, 1], [1, 2]]
    np.testing.assert_allclose(model.joint, [[1.5, 1.5], [1.0, 2.0]])
    np.testing.assert_allclose(model.noise, [[0.6, 3 / 7], [0.4, 4 / 7]])
    np.testing.assert_allclose(model.inverse_noise, [[0.5, 0.5], [1 / 3, 2 / 3]])
    assert model.wrong == pytest.approx(2.5)


def test_row_that_reaches_several_thresholds_is_its_most_likely_class() -> None:
    p = np.array([[0.45, 0.55], [0.55, 0.45], [0.1, 0.9], [0.9, 0.1]])
    assert confident_class(p, np.array([0, 1, 0, 1])).tolist() == [1, 0, 1, 0]


def test_wrong_rows_by_hand() -> None:
    model = NoiseModel(np.array([[2, 1], [1, 2]]), np.array([[2.0, 1.0], [1.0, 2.0]]))
    for by in ("noise_rate", "class", "both"):
        assert label_issues(P, LABEL, model, by).tolist() == [False, False, True, False, False, True]


def test_row_that_looks_like_its_label_is_never_wrong() -> None:
    everything = NoiseModel(np.array([[1, 2], [2, 1]]), np.array([[0.0, 3.0], [3.0, 0.0]]))
    assert label_issues(P, LABEL, everything, "class").tolist() == [False, False, True, False, False, True]


def test_of_equal_rows_the_first_is_wrong() -> None:
    p, label = np.tile([[0.2, 0.8]], (4, 1)), np.zeros(4, dtype=int)
    model = NoiseModel(np.array([[2, 2], [0, 1]]), np.array([[2.0, 2.0], [0.0, 0.0]]))
    assert label_issues(p, label, model).tolist() == [True, True, False, False]


@given(st.integers(0, 10_000))
def test_joint_equals_cleanlab(seed) -> None:
    count = pytest.importorskip("cleanlab.count")
    p, label = noisy(seed)
    model = fit_noise(p, label)
    np.testing.assert_array_equal(model.confident, count.compute_confident_joint(label, p, calibrate=False))
    # cleanlab rounds the calibrated joint to whole rows, we do not.
    whole = count.compute_confident_joint(label, p, calibrate=True)
    np.testing.assert_allclose(model.joint, whole, atol=1.0)
    np.testing.assert_array_equal(whole.sum(axis=1), np.rint(model.joint.sum(axis=1)))
    _, noise, inverse = count.estimate_latent(whole, label)
    np.testing.assert_allclose(NoiseModel(model.confident, whole.astype(float)).inverse_noise.T, inverse, atol=1e-9)
    np.testing.assert_allclose(NoiseModel(model.confident, whole.astype(float)).noise, noise, atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("by", "theirs"), [("noise_rate", "prune_by_noise_rate"), ("class", "prune_by_class"), ("both", "both")]
)
def test_issues_equal_cleanlab_for_the_same_whole_joint(seed, by, theirs) -> None:
    count, found = pytest.importorskip("cleanlab.count"), pytest.importorskip("cleanlab.filter")
    p, label = noisy(seed)
    whole = count.compute_confident_joint(label, p, calibrate=True)
    ours = label_issues(p, label, NoiseModel(whole, whole.astype(float)), by)
    expected = found.find_label_issues(label, p, filter_by=theirs, confident_joint=whole, n_jobs=1)
    np.testing.assert_array_equal(ours, expected)
    # Our own rounding of the joint may differ by a row per pair.
    assert (label_issues(p, label, fit_noise(p, label), by) != expected).sum() <= p.shape[1]


@given(st.integers(0, 10_000))
def test_rankings_equal_cleanlab(seed) -> None:
    rank = pytest.importorskip("cleanlab.rank")
    p, label = noisy(seed)
    ours = label_quality(p, label)
    # cleanlab takes smaller probabilities for 1e-6, so that the surely wrong lose their order; we do not.
    compared = p[np.arange(len(label)), label] > 1e-5
    for name, theirs in zip(ours, ("self_confidence", "normalized_margin", "confidence_weighted_entropy"), strict=True):
        expected = rank.get_label_quality_scores(label, p, method=theirs)
        np.testing.assert_allclose(ours[name][compared], expected[compared], atol=1e-6, err_msg=name)


def test_planted_errors_are_found() -> None:
    rng = np.random.default_rng(0)
    true = np.arange(600) % 3
    p = 0.1 * rng.dirichlet(np.ones(3), 600) + 0.9 * np.eye(3)[true]
    label = true.copy()
    label[:60] = (label[:60] + 1) % 3
    model = fit_noise(p, label)
    assert model.wrong == pytest.approx(60, abs=6)
    issues = label_issues(p, label, model)
    assert issues[:60].mean() > 0.9
    assert not issues[60:].any()


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("n", [0, 1])
def test_few_rows_and_classes(n, classes) -> None:
    p, label = np.full((n, classes), 1.0 / classes), np.zeros(n, dtype=int)
    model = fit_noise(p, label)
    assert np.isfinite(model.joint).all()
    assert model.joint.sum() == n
    assert not label_issues(p, label, model, "both").any()
    assert all(np.isfinite(column).all() for column in label_quality(p, label).values())


def test_class_that_no_label_names_gets_no_rows() -> None:
    p = np.array([[0.2, 0.1, 0.7], [0.1, 0.2, 0.7]])
    model = fit_noise(p, np.array([0, 1]))
    assert model.joint[:, 2].tolist() == [0.0, 0.0, 0.0]
    assert model.inverse_noise[2].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("p", "label", "message"),
    [
        (np.ones((2, 2)), [0], "shape"),
        (np.ones((1, 2)), [2], "columns"),
        (np.array([[np.nan, 1.0]]), [0], "NaN"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(p, label, message) -> None:
    with pytest.raises(UsageError, match=message):
        fit_noise(p, np.array(label))


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="noise_rate"):
        label_issues(P, LABEL, fit_noise(P, LABEL), "best")
