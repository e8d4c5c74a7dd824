"""Distances from sums, against refits without the row, and hard negatives by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import UsageError
from curate.scoring.anomaly import (
    ANOMALY_COLUMNS,
    AnomalyModel,
    class_prototypes,
    distance_to_set,
    negative_margin,
    residual_anomaly,
)
from curate.scoring.moments import ClassMoments, PairMoments


def sums(x: np.ndarray, label: np.ndarray, classes: int) -> ClassMoments:
    moments = ClassMoments.zeros(x.shape[1])
    moments.add(x, label, classes)
    return moments


def blobs(seed: int, n: int, p: int = 4, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % classes
    return (3 * np.eye(classes, p)[label] + rng.normal(1, 1, size=(n, p))).astype(np.float32), label


def scatter_of(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    centred = x.astype(float).copy()
    for group in np.unique(groups):
        centred[groups == group] -= centred[groups == group].mean(axis=0)
    return centred.T @ centred


def slow(x, label, point, shrink, diagonals):
    """Distances of a point to rows x; `diagonals` of the shrunk parts as fitted on all rows."""
    p, n, known = x.shape[1], len(x), np.unique(label)
    point = point.astype(float)

    def distance(groups, mean, diagonal, freedom):
        matrix = (1 - shrink) * scatter_of(x, groups) + shrink * diagonal * np.eye(p)
        return freedom * (point - mean) @ np.linalg.solve(matrix, point - mean)

    background = distance(np.zeros(n), x.astype(float).mean(axis=0), diagonals[0], n - 1)
    means = {c: x[label == c].astype(float).mean(axis=0) for c in known}
    return background, {c: distance(label, means[c], diagonals[1], n - diagonals[2]) for c in known}


@given(st.integers(0, 99), st.integers(8, 20), st.integers(1, 4), st.sampled_from([0.05, 0.5, 1.0]))
def test_leave_one_out_equals_a_refit_without_the_row(seed, n, classes, shrink) -> None:
    x, label = blobs(seed, n, 4, classes)
    diagonals = (np.trace(scatter_of(x, np.zeros(n))) / 4, np.trace(scatter_of(x, label)) / 4, classes)
    columns = AnomalyModel(sums(x, label, classes), shrink).score(x, label, np.ones(n, dtype=bool))
    rest = ~np.eye(n, dtype=bool)
    for i in range(n):
        background, own = slow(x[rest[i]], label[rest[i]], x[i], shrink, diagonals)
        expected = (background, own[label[i]], min(own.values()), min(own.values()) - background)
        ours = [columns[name][i] for name in ANOMALY_COLUMNS]
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_new_row_is_judged_by_all_rows_of_the_sums() -> None:
    x, label = blobs(0, 31)
    diagonals = (np.trace(scatter_of(x[:30], np.zeros(30))) / 4, np.trace(scatter_of(x[:30], label[:30])) / 4, 3)
    columns = AnomalyModel(sums(x[:30], label[:30], 3), 0.1).score(x[30:], label[30:], np.array([False]))
    background, own = slow(x[:30], label[:30], x[30], 0.1, diagonals)
    ours = [columns[name][0] for name in ANOMALY_COLUMNS[:3]]
    np.testing.assert_allclose(ours, (background, own[label[30]], min(own.values())), rtol=1e-5)


def test_stranger_is_far_from_all_and_a_wrong_label_from_its_own_class_only() -> None:
    x, label = blobs(1, 300)
    x[0] += 20
    label[1] = (label[1] + 1) % 3
    columns = AnomalyModel(sums(x, label, 3)).score(x, label, np.ones(300, dtype=bool))
    assert columns["background"].argmax() == 0
    assert columns["nearest"].argmax() == 0
    assert columns["own"][1] > np.quantile(columns["own"], 0.98)
    assert columns["nearest"][1] < np.quantile(columns["nearest"], 0.9)


def test_relative_distance_forgives_directions_in_which_all_rows_vary() -> None:
    # Both rows are equally far from their class; the first along an axis that separates nothing but varies a lot.
    rng = np.random.default_rng(0)
    label = np.arange(400) % 2
    x = (rng.normal(size=(400, 2)) * [10, 1] + np.stack([0 * label, 8 * label], axis=1)).astype(np.float32)
    model = AnomalyModel(sums(x, label, 2), 0.001)
    columns = model.score(np.float32([[40, 0], [0, 4]]), np.array([0, 0]), np.zeros(2, dtype=bool))
    assert columns["nearest"][0] == pytest.approx(columns["nearest"][1], rel=0.25)
    assert columns["relative"][0] < columns["relative"][1]


@pytest.mark.parametrize(
    ("x", "label", "classes"),
    [
        (np.ones((1, 3)), [0], 1),
        (np.ones((5, 3)), [0, 0, 1, 1, 2], 4),
        (np.zeros((3, 3)), [0, 0, 0], 1),
        (np.eye(3), [0, 1, 2], 3),
    ],
)
def test_degenerate_rows_give_finite_distances(x, label, classes) -> None:
    x, label = x.astype(np.float32), np.array(label)
    model = AnomalyModel(sums(x, label, classes))
    for seen in (True, False):
        columns = model.score(x, label, np.full(len(x), seen))
        assert all(np.isfinite(column).all() for column in columns.values())
        assert (columns["own"] >= 0).all()


def test_row_alone_in_its_class_has_the_distance_to_all_rows() -> None:
    x, label = blobs(0, 13)
    label[12] = 3
    columns = AnomalyModel(sums(x, label, 4)).score(x, label, np.ones(13, dtype=bool))
    assert columns["own"][12] == columns["background"][12]


@pytest.mark.parametrize("shrinkage", [0.0, 1.1])
def test_shrinkage_out_of_range_is_refused(shrinkage) -> None:
    with pytest.raises(UsageError, match="shrinkage"):
        AnomalyModel(sums(*blobs(0, 9), 3), shrinkage)


def test_empty_sums_are_refused() -> None:
    with pytest.raises(UsageError, match="no row"):
        AnomalyModel(ClassMoments.zeros(3))
    with pytest.raises(UsageError, match="no pair"):
        residual_anomaly(PairMoments.zeros(2, 2), np.ones((1, 2)), np.ones((1, 2)), np.array([True]))


def pairs(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, PairMoments]:
    rng = np.random.default_rng(seed)
    x = rng.normal(2, 1, size=(n, 3)).astype(np.float32)
    y = (x @ rng.normal(size=(3, 2)) + 0.2 * rng.normal(size=(n, 2))).astype(np.float32)
    moments = PairMoments.zeros(3, 2)
    moments.add(x, y)
    return x, y, moments


@given(st.integers(0, 99), st.integers(8, 20), st.sampled_from([1e-3, 0.3]))
def test_residual_distance_equals_a_refit_without_the_row(seed, n, ridge) -> None:
    x, y, moments = pairs(seed, n)
    ours = residual_anomaly(moments, x, y, np.ones(n, dtype=bool), ridge)
    left, right = x.astype(float), y.astype(float)
    penalty = ridge * ((left - left.mean(axis=0)) ** 2).sum() / 3 * np.diag([0.0, 1, 1, 1])
    noise = ridge * ((right - right.mean(axis=0)) ** 2).sum() / 2 * np.eye(2)
    for i in range(n):
        design = np.concatenate([np.ones((n, 1)), left], axis=1)
        rest = np.arange(n) != i
        xy = design[rest].T @ right[rest]
        weight = np.linalg.solve(design[rest].T @ design[rest] + penalty, xy)
        scatter = right[rest].T @ right[rest] - xy.T @ weight + noise
        residual = right[i] - design[i] @ weight
        np.testing.assert_allclose(ours[i], (n - 1) * residual @ np.linalg.solve(scatter, residual), rtol=1e-3)


def test_pair_that_breaks_the_rule_is_the_strangest() -> None:
    x, y, _ = pairs(0, 60)
    y[7] = y[8] + 3 * (y[8] - y[9])
    moments = PairMoments.zeros(3, 2)
    moments.add(x, y)
    assert residual_anomaly(moments, x, y, np.ones(60, dtype=bool)).argmax() == 7
    plain = residual_anomaly(moments, x, y, np.zeros(60, dtype=bool))
    assert (plain < residual_anomaly(moments, x, y, np.ones(60, dtype=bool))).all()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_equal_pairs_have_finite_distances(n) -> None:
    x = np.ones((n, 3), dtype=np.float32)
    moments = PairMoments.zeros(3, 3)
    moments.add(x, x)
    assert np.isfinite(residual_anomaly(moments, x, x, np.ones(n, dtype=bool))).all()


def test_prototypes_are_mean_directions() -> None:
    x = np.float32([[1, 0], [3, 4], [0, 2]])
    prototypes = class_prototypes(sums(x, np.array([0, 0, 1]), 3))
    np.testing.assert_allclose(prototypes, [[np.sqrt(0.5), np.sqrt(0.5)], [0, 1], [0, 0]], atol=1e-6)


def test_distance_to_positives_by_hand() -> None:
    x, positives = np.float32([[2, 0], [0, 0]]), np.float32([[1, 0], [0, 1], [-3, 0]])
    np.testing.assert_allclose(distance_to_set(x, positives), [0, 1])
    np.testing.assert_allclose(distance_to_set(x, positives, 2), [0.5, 1])
    np.testing.assert_allclose(distance_to_set(x, positives, 3), [1, 1])
    assert distance_to_set(x[:0], positives).shape == (0,)


@pytest.mark.parametrize("k", [0, 3])
def test_more_positives_than_there_are_is_refused(k) -> None:
    with pytest.raises(UsageError, match="k is"):
        distance_to_set(np.ones((1, 2)), np.ones((2, 2)), k)


def test_hard_negative_is_nearer_to_another_class() -> None:
    prototypes = np.float32([[1, 0], [0, 1], [-1, 0]])
    x = np.float32([[1, 0], [0.6, 0.8], [0, -1]])
    np.testing.assert_allclose(negative_margin(x, np.array([0, 0, 0]), prototypes), [-1, 0.2, 0], atol=1e-6)


def test_margin_needs_two_classes() -> None:
    with pytest.raises(UsageError, match="2 classes"):
        negative_margin(np.ones((1, 2)), np.array([0]), np.ones((1, 2)))
