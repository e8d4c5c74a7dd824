"""Cleanness and difficulty: the leave-one-out probe against refits, KNN-Shapley against numpy, and its large run."""

from __future__ import annotations

import tracemalloc

import numpy as np

from benchmarks.paired import Ratio, paired, seconds
from curate.scoring.moments import ClassMoments
from curate.scoring.probe import RidgeProbe
from curate.scoring.shapley import knn_values
from curate_kernels.shapley import knn_shapley


def _rows(n: int, d: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, n)
    x = (rng.normal(size=(classes, d))[label] + rng.normal(size=(n, d))).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True), label


def probe_against_refits() -> Ratio:
    """Leave-one-out predictions of 500 rows, 64 dimensions: one fit, or one solve for each row left out."""
    x, label = _rows(500, 64, 5)
    design = np.concatenate([np.ones((500, 1)), x.astype(float)], axis=1)
    target, penalty = np.eye(5)[label], np.diag([0.0] + [1.0] * 64)

    def ours() -> np.ndarray:
        moments = ClassMoments.zeros(64)
        moments.add(x, label, 5)
        probe = RidgeProbe(moments)
        return probe.predict(probe.project(x), label, np.ones(500, dtype=bool))

    def refits() -> np.ndarray:
        gram, cross, out = design.T @ design + penalty, design.T @ target, np.empty((500, 5))
        for i, (row, wanted) in enumerate(zip(design, target, strict=True)):
            out[i] = row @ np.linalg.solve(gram - np.outer(row, row), cross - np.outer(row, wanted))
        return out

    return paired("leave-one-out probe, 500 refits", ours, refits)


def shapley_kernel_against_numpy() -> Ratio:
    """The recursion over 200 validation points and 20,000 rows in order, against reversed cumulative sums."""
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(20_000), (200, 1)), axis=1)
    label, target = rng.integers(0, 10, 20_000), rng.integers(0, 10, 200)
    share = np.minimum(5, np.arange(1, 20_001)) / np.arange(1, 20_001) / 5

    def kernel() -> np.ndarray:
        out = np.zeros(20_000)
        knn_shapley(order, label, target, 5, out)
        return out

    def recursion() -> np.ndarray:
        out = np.zeros(20_000)
        for nearest, wanted in zip(order, target, strict=True):
            match = (label[nearest] == wanted).astype(float)
            steps = (match - np.append(match[1:], 0.0)) * share
            out[nearest] += steps[::-1].cumsum()[::-1]
        return out

    np.testing.assert_allclose(kernel(), recursion(), atol=1e-9)
    return paired("KNN-Shapley recursion, 20k x 200", kernel, recursion)


def values_against_numpy() -> Ratio:
    """Distances, order and recursion for 20,000 rows and 200 points, against numpy's stable argsort and sums."""
    x, label = _rows(20_000, 64, 10)
    valid, wanted = _rows(200, 64, 10, seed=1)
    share = np.minimum(5, np.arange(1, 20_001)) / np.arange(1, 20_001) / 5

    def plain() -> np.ndarray:
        out, norm = np.zeros(20_000), (x * x).sum(axis=1)
        for point, target in zip(valid, wanted, strict=True):
            nearest = np.argsort(norm - 2 * (x @ point), kind="stable")
            match = (label[nearest] == target).astype(float)
            out[nearest] += ((match - np.append(match[1:], 0.0)) * share)[::-1].cumsum()[::-1]
        return out / 200

    np.testing.assert_allclose(knn_values(x, label, valid, wanted), plain(), atol=1e-5)
    return paired("KNN-Shapley values, 20k x 200", lambda: knn_values(x, label, valid, wanted), plain)


def large_run() -> str:
    """Return seconds and peak memory of KNN-Shapley for 100,000 rows of 256 dimensions and 1,000 points."""
    x, label = _rows(100_000, 256, 10)
    valid, wanted = _rows(1_000, 256, 10, seed=1)
    knn_values(x[:100], label[:100], valid[:2], wanted[:2])
    took = seconds(lambda: knn_values(x, label, valid, wanted))
    tracemalloc.start()
    knn_values(x, label, valid[:100], wanted[:100])
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return f"KNN-Shapley, 100k x 1k: {took:.1f} s, {peak:.0f} MB beside the features"


BENCHMARKS = (probe_against_refits, shapley_kernel_against_numpy, values_against_numpy)
