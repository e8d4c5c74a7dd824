"""Shapley value of training rows for a nearest-neighbour classifier, exactly."""

from __future__ import annotations

from curate_kernels._jit import kernel
from curate_kernels.arrays import F64, I64


@kernel
def knn_shapley(order: I64, label: I64, target: I64, k: int, out: F64) -> None:
    """Add each row's Shapley value for predicting the labels of b validation points by k nearest rows.

    The utility of a set of rows is the share 1/k of its k nearest rows that carry the point's label. With the rows
    a_1 … a_n of one point, nearest first (Jia et al., VLDB 2019, arXiv 1908.08619, theorem 1):
    s(a_n) = [y_n = y] min(k, n) / (k n);  s(a_j) = s(a_j+1) + ([y_j = y] - [y_j+1 = y]) / k · min(k, j) / j

    order: (b, n) int64, rows by distance, nearest first; label: (·,) int64; target: (b,) int64, labels of the points
    out: (·,) float64, sums over the b points are added to it
    """
    n = order.shape[1]
    for v in range(order.shape[0]):
        value = 0.0
        after = 0.0
        for j in range(n, 0, -1):
            row = order[v, j - 1]
            match = 1.0 if label[row] == target[v] else 0.0
            value += (match - after) / k * min(k, j) / j
            after = match
            out[row] += value
