"""V-information of a set: how much a subset S teaches about the pairs of a reference set T, without training anything.

    I(S -> T) = mean over T of log2 q_S(y | x) - log2 q0(y)

q_S is the linear-Gaussian family fitted to S alone, q0 the null of T itself: the same for every S, so that a subset
with odd targets gains nothing by a bad null of its own (Xu et al., ICLR 2020, arXiv 2002.10689, definition 3, with
the infima taken over S). A row of T that is in S is scored without itself, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.errors import UsageError
from curate.scoring.gaussian import LinearGaussian, best_ridge, pair_sums
from curate.scoring.moments import PairMoments
from curate_kernels.arrays import B1, F32, I64, as_rows


@dataclass(frozen=True, slots=True)
class SetInformation:
    """Bits per pair of the reference set: `information` = `s0` - `s1`, higher is better; the ridge that S chose.

    error: standard error of `information` over the pairs of T
    """

    information: float
    s0: float
    s1: float
    error: float
    ridge: float


def set_information(
    subset: PairMoments, x: F32, y: F32, inside: B1 | None = None, ridge: float = 1.0
) -> SetInformation:
    """Return I(S -> T) in bits, from the sums over S.

    subset: sums over the n ≥ 1 pairs of S; x: (m, p), y: (m, d) float32, the pairs of T; inside: (m,) bool, which of
    them are in S, none by default. Raises:
        UsageError: S or T is empty, or their dimensions differ.
    """
    x, y = as_rows(x, "x"), as_rows(y, "y")
    if subset.n < 1 or not x.shape[0]:
        raise UsageError(f"the subset has {subset.n:g} pairs, the reference set {x.shape[0]}; both need one at least")
    if (x.shape[1], y.shape[1]) != subset.xy.shape or x.shape[0] != y.shape[0]:
        raise UsageError(f"x {x.shape} and y {y.shape} do not go with sums of {subset.xy.shape} dimensions")
    inside = np.zeros(x.shape[0], dtype=np.bool_) if inside is None else inside
    family, bits = LinearGaussian.fit(subset, ridge), np.empty(x.shape[0])
    bits[inside] = family.leave_one_out(x[inside], y[inside])
    bits[~inside] = family.predictive(x[~inside], y[~inside])
    null = LinearGaussian.null(pair_sums(x, y)).leave_one_out(x[:, :0], y)
    error = float((bits - null).std() / np.sqrt(bits.size))
    return SetInformation(float((bits - null).mean()), -float(null.mean()), -float(bits.mean()), error, ridge)


def subset_information(x: F32, y: F32, index: I64 | Sequence[int], ridge: float | None = None) -> SetInformation:
    """Return I(S -> T) in bits, where T are all pairs of rows of x (n, p) and y (n, d), and S those at `index`.

    index: distinct rows. ridge: by default the one of the largest leave-one-out likelihood on S.

    Raises:
        UsageError: no pairs, none in S, or a row that is named twice or does not exist.
    """
    rows = np.unique(np.asarray(index, dtype=np.int64))
    if rows.size != len(index) or (rows.size and (rows[0] < 0 or rows[-1] >= x.shape[0])):
        raise UsageError(f"index must hold distinct rows of the {x.shape[0]}")
    moments = pair_sums(x[rows], y[rows])
    if ridge is None:
        ridge = best_ridge(moments, x[rows], y[rows]) if rows.size else 1.0
    inside = np.zeros(x.shape[0], dtype=np.bool_)
    inside[rows] = True
    return set_information(moments, x, y, inside, ridge)


def collapsed(pvi: NDArray[np.floating], accuracy: float | None = None, prior: float = 0.0) -> str:
    """Return why a family sees nothing in its data, "" if it does see something; callers log it, nothing is raised.

    pvi: (n,) bits, NaN where a row has no score. accuracy: share of rows whose label is the most likely one, if there
    are labels; prior: share of the largest class. Such a family's scores rank by noise (Ethayarajh et al., ICML 2022).
    """
    scores = pvi[np.isfinite(pvi)]
    if not scores.size:
        return "family collapsed: no row has a score"
    mean = float(scores.mean(dtype=np.float64))
    if mean <= 0:
        return f"family collapsed: mean information {mean:.3g} bits, no more than without the features"
    if accuracy is not None and accuracy <= prior:
        return f"family collapsed: accuracy {accuracy:.3f}, no more than the largest class's share of {prior:.3f}"
    return ""
