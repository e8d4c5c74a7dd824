"""V-information of parts of images: how well a crop's embedding is predicted by that of its whole image."""

from __future__ import annotations

import numpy as np

from curate.scoring.gaussian import RIDGES, LinearGaussian, pair_sums, principal_components
from curate.scoring.moments import PairMoments
from curate_kernels.arrays import F32, F64, I64

CROP_COLUMNS = ("s0_crop", "s1_crop", "pvi_crop")
_FOLDS = 5
_SAMPLE = 4096  # rows that a ridge is chosen on


def crop_information(whole: F32, crops: F32, image: I64, dims: int = 256, target_dims: int = 64) -> dict[str, F32]:
    """Return CROP_COLUMNS (n,) float32 in bits: s0 without the image, s1 given it, pvi their difference.

    whole: (m, p) float32, embeddings of images; crops: (n, d) float32; image: (n,) int64, the row of `whole` of each.
    Linear-Gaussian family on principal components: of the images at least four rows each, of the crops eight. Crops of
    one image overlap, so leaving out one would leave its likeness in: every fifth image is left out with all its
    crops, and theirs are predicted by the others. Zeros where the crops come from fewer than two images.

    V-information: Xu et al., ICLR 2020 (arXiv 2002.10689); pointwise form: Ethayarajh et al., ICML 2022 (2110.08420).
    """
    seen, which = np.unique(image, return_inverse=True)
    if seen.size < 2:
        return {name: np.zeros(image.size, np.float32) for name in CROP_COLUMNS}
    x = principal_components(whole[seen], max(1, min(dims, whole.shape[1], seen.size // 4)))[which]
    y = principal_components(crops, max(1, min(target_dims, crops.shape[1], image.size // 8)))
    folds = [np.flatnonzero(which % min(_FOLDS, seen.size) == k) for k in range(min(_FOLDS, seen.size))]
    sums = [pair_sums(x[rows], y[rows]) for rows in folds]
    others = [_without(sums, k) for k in range(len(folds))]
    ridge = max(RIDGES, key=lambda ridge: _likelihood(others, folds, x, y, ridge))
    s0, s1 = np.empty(image.size), np.empty(image.size)
    for rows, moments in zip(folds, others, strict=True):
        s1[rows] = -LinearGaussian.fit(moments, ridge).predictive(x[rows], y[rows])
        s0[rows] = -LinearGaussian.null(moments).predictive(x[rows, :0], y[rows])
    return dict(zip(CROP_COLUMNS, (s.astype(np.float32) for s in (s0, s1, s0 - s1)), strict=True))


def _without(sums: list[PairMoments], k: int) -> PairMoments:
    total = PairMoments.zeros(sums[k].x.size, sums[k].y.size)
    for i, part in enumerate(sums):
        if i != k:
            total.merge(part)
    return total


def _likelihood(others: list[PairMoments], folds: list[I64], x: F32, y: F32, ridge: float) -> float:
    """Return the mean log2 density of the crops of images that were left out, evenly spaced ones of many."""
    step = -(-x.shape[0] // _SAMPLE)
    found: list[F64] = [
        LinearGaussian.fit(moments, ridge).predictive(x[rows[::step]], y[rows[::step]])
        for rows, moments in zip(folds, others, strict=True)
    ]
    return float(np.concatenate(found).mean())
