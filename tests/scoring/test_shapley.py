"""What training rows are worth, against enumeration, materialised gradients and the loss they sum to."""

import tracemalloc

import numpy as np
import pytest
import reference
from scipy.special import log_softmax, softmax

from curate.errors import UsageError
from curate.scoring import shapley
from curate.scoring.shapley import in_run_values, knn_values


def blobs(rng: np.random.Generator, n: int, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    label = np.arange(n) % 3
    x = np.eye(3, 5)[label] * 2 + spread * rng.normal(size=(n, 5))
    return x.astype(np.float32), label


def slow_order(x: np.ndarray, point: np.ndarray, own: int = -1) -> list[int]:
    distance = ((x.astype(float) - point) ** 2).sum(axis=1)
    return [i for i in np.argsort(distance, kind="stable") if i != own]


def test_values_equal_shapley_by_enumeration(rng) -> None:
    x, label = blobs(rng, 7, 2.0)
    valid, wanted = blobs(rng, 4, 2.0)
    expected = np.zeros(7)
    order = np.array([slow_order(x, point) for point in valid])
    reference.knn_shapley(order, label, wanted, 2, expected)
    np.testing.assert_allclose(knn_values(x, label, valid, wanted, k=2), expected / 4, atol=1e-12)


def test_point_that_is_a_row_itself_is_judged_without_it(rng) -> None:
    x, label = blobs(rng, 8, 2.0)
    valid = np.concatenate([x[[5, 2]], x[:1] + 1])
    wanted, own = np.array([0, 1, 2]), np.array([5, 2, -1])
    expected = np.zeros(8)
    for point, target, row in zip(valid, wanted, own, strict=True):
        reference.knn_shapley(np.array([slow_order(x, point, row)]), label, np.array([target]), 3, expected)
    np.testing.assert_allclose(knn_values(x, label, valid, wanted, k=3, own=own), expected / 3, atol=1e-12)


def test_chunks_do_not_change_the_values(rng, monkeypatch) -> None:
    x, label = blobs(rng, 50)
    valid, wanted = blobs(rng, 23)
    whole = knn_values(x, label, valid, wanted)
    monkeypatch.setattr(shapley, "_CHUNK_BYTES", 3000)
    np.testing.assert_allclose(knn_values(x, label, valid, wanted), whole, atol=1e-15)


def test_of_equal_rows_the_lowest_counts_as_nearer() -> None:
    x = np.zeros((3, 2), dtype=np.float32)
    values = knn_values(x, np.array([1, 0, 1]), x[:1], np.array([1]), k=1)
    expected = np.zeros(3)
    reference.knn_shapley(np.array([[0, 1, 2]]), np.array([1, 0, 1]), np.array([1]), 1, expected)
    np.testing.assert_allclose(values, expected, atol=1e-15)


def test_negative_distances_are_ordered_like_numbers(rng) -> None:
    # |x|² - 2 x·v, which is what is sorted, has both signs.
    x = np.array([[-3], [-1], [0], [1], [3]], dtype=np.float32)
    for point in (-2.0, 0.2, 2.0):
        wanted = np.zeros(1, dtype=int)
        label = np.array([0, 1, 0, 1, 0])
        expected = np.zeros(5)
        reference.knn_shapley(np.array([slow_order(x, np.array([point]))]), label, wanted, 1, expected)
        np.testing.assert_allclose(knn_values(x, label, np.float32([[point]]), wanted, k=1), expected, atol=1e-15)


def test_wrong_labels_are_worth_less(rng) -> None:
    x, label = blobs(rng, 300)
    valid, wanted = blobs(rng, 60)
    noisy = label.copy()
    noisy[:30] = (noisy[:30] + 1) % 3
    for values in (knn_values(x, noisy, valid, wanted), in_run_values(x, noisy, valid, wanted, 3)):
        assert values[:30].max() < np.median(values[30:])


def test_memory_is_bounded_by_the_chunk(rng) -> None:
    n, m = 20_000, 400
    x, label = rng.normal(size=(n, 8)).astype(np.float32), rng.integers(0, 4, n)
    knn_values(x[:50], label[:50], x[:5], label[:5])
    tracemalloc.start()
    knn_values(x, label, x[:m] + 1, label[:m])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6 < n * m * 16  # the full matrix of keys alone would be 64 MB, its orders as much again


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_rows(n) -> None:
    x, label = np.ones((n, 3), dtype=np.float32), np.zeros(n, dtype=int)
    valid, wanted = np.ones((2, 3), dtype=np.float32), np.zeros(2, dtype=int)
    assert knn_values(x, label, valid, wanted, k=2).tolist() == [0.5] * n
    own = knn_values(x, label, valid[:n], wanted[:n], k=2, own=np.arange(n)) if n else np.zeros(0)
    assert own.tolist() == ([0.0] if n == 1 else [0.25] * n)
    assert np.isfinite(in_run_values(x, label, valid, wanted, 2)).all()


def test_in_run_values_equal_dot_products_of_materialised_gradients(rng) -> None:
    x, label = blobs(rng, 12)
    valid, wanted = blobs(rng, 5)
    rate = 2.0 * 12 / np.linalg.eigvalsh(x.T.astype(float) @ x)[-1]
    weight, expected = np.zeros((5, 3)), np.zeros(12)

    def gradients(rows: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        p = softmax(rows @ weight, axis=1)
        return [np.outer(row, given - np.eye(3)[y]) for row, given, y in zip(rows, p, labels, strict=True)]

    for _ in range(4):
        grads, held = gradients(x.astype(float), label), gradients(valid.astype(float), wanted)
        expected += [np.mean([rate / 12 * (g * h).sum() for h in held]) for g in grads]
        weight -= rate * np.mean(grads, axis=0)
    np.testing.assert_allclose(in_run_values(x, label, valid, wanted, 3, steps=4), expected, rtol=1e-9)


def test_in_run_values_sum_to_the_drop_of_the_validation_loss(rng) -> None:
    x, label = blobs(rng, 60)
    valid, wanted = blobs(rng, 20)
    rate = 2.0 * 60 / np.linalg.eigvalsh(x.T.astype(float) @ x)[-1]
    weight = np.zeros((5, 3))
    for _ in range(10):
        error = softmax(x @ weight, axis=1) - np.eye(3)[label]
        weight -= rate * (x.T @ error) / 60
    drop = np.log(3) + log_softmax(valid @ weight, axis=1)[np.arange(20), wanted].mean()
    first = in_run_values(x, label, valid, wanted, 3, steps=10).sum() - drop
    second = in_run_values(x, label, valid, wanted, 3, steps=10, second_order=True).sum() - drop
    assert abs(second) < 0.03 * drop
    assert abs(second) < 0.3 * abs(first)


@pytest.mark.parametrize(
    ("valid", "wanted", "k"),
    [(np.ones((0, 2)), [], 1), (np.ones((1, 3)), [0], 1), (np.ones((1, 2)), [0, 1], 1), (np.ones((1, 2)), [0], 0)],
)
def test_what_makes_no_sense_is_refused_by_name(valid, wanted, k) -> None:
    with pytest.raises(UsageError):
        knn_values(np.ones((2, 2), dtype=np.float32), np.array([0, 1]), valid, np.array(wanted, dtype=int), k=k)


def test_label_outside_the_classes_is_refused() -> None:
    x = np.ones((2, 2), dtype=np.float32)
    with pytest.raises(UsageError, match="classes is 2"):
        in_run_values(x, np.array([0, 2]), x, np.array([0, 1]), 2)
