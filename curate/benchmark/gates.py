"""The gates of `curate grow` on a finished set: thresholds calibrated on its own rows, put together wrongly."""

from __future__ import annotations

import numpy as np

from curate.benchmark.world import World
from curate.errors import UsageError
from curate.recipe import CleanTable, ScoreTable
from curate.scoring.calibrate import Observed, calibrate, calibrate_classes
from curate_kernels.arrays import B1, F32, F64, I64

_TILE = 1024
_SHUFFLES = 3


def calibrated(world: World) -> B1:
    """Return which rows (n,) the caption gate and the label gate let pass, by a recipe's default losses.

    Raises UsageError where there are neither captions nor labels.
    """
    passed = np.ones(world.n, dtype=np.bool_)
    features = np.sqrt(world.x) if world.x.min(initial=0.0) >= 0 else world.x
    if world.text is None and world.labels is None:
        raise UsageError("the calibrated gate judges captions and labels, and this collection has neither")
    if world.text is not None:
        passed &= _good_pairs(features, world.text)
    if world.labels is not None:
        passed &= _good_labels(features, world.plan.label)
    return passed


def _good_pairs(image: F32, text: F32) -> B1:
    """Return which pairs reach the calibrated PVI; a family that sees nothing refuses nobody."""
    from curate.scoring.moments import PairMoments
    from curate.scoring.pairs import RIDGE_ROWS, PairModel, spread

    n, clean = image.shape[0], CleanTable()
    sums = PairMoments.zeros(image.shape[1], text.shape[1])
    for low in range(0, n, _TILE):
        sums.add(image[low : low + _TILE], text[low : low + _TILE])
    model = PairModel(sums, ScoreTable())
    some = spread(np.arange(n), RIDGE_ROWS)
    model.choose_ridges(*model.project(image[some], text[some]))
    x, y = model.project(image, text)
    every = np.ones(n, dtype=np.bool_)
    pvi = model.score(x, y, every)["pvi"].astype(np.float64)
    if not pvi.mean() > 0:
        return every
    rng, wrong = np.random.default_rng(0), []
    for _ in range(_SHUFFLES):
        order = rng.permutation(n)
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)  # neighbours in a random circle: no row keeps its own caption
        wrong.append(model.mismatched(x, y, every, other).astype(np.float64))
    value = calibrate(pvi, np.concatenate(wrong), clean.caption_loss, clean.min_precision).value
    passed: B1 = pvi >= value
    return passed


def _good_labels(image: F32, label: I64) -> B1:
    """Return which rows are not refused by label; those without one are not."""
    from curate.scoring.labels import SHARE_WEIGHT, LabelModel
    from curate.scoring.moments import ClassMoments

    passed = np.ones(label.size, dtype=np.bool_)
    rows = np.flatnonzero(label >= 0)
    x, own_label = image[rows], label[rows]
    sums = ClassMoments.zeros(x.shape[1])
    for low in range(0, rows.size, _TILE):
        sums.add(x[low : low + _TILE], own_label[low : low + _TILE], int(own_label.max()) + 1)
    model = LabelModel(sums, ScoreTable())
    model.refer([(x, own_label)])
    z, seen, place = model.project(x), np.ones(rows.size, dtype=np.bool_), np.arange(rows.size)
    scores = model.score(z, own_label, seen, place)
    if np.median(scores["pvi_label"]) <= 0:
        return passed
    s1: F64 = scores["s1_label"].astype(np.float64)
    foreign, classes = model.foreign(z, own_label, seen, place), {}
    least = CleanTable().min_class
    for one in np.unique(own_label).tolist():
        wrong = foreign.s1(one)
        wrong = wrong[wrong > s1[own_label != one]]  # what fits better here than where it is may truly be of it
        own = own_label == one
        if min(own.sum(), wrong.size) >= least:
            offset = SHARE_WEIGHT * float(np.median(scores["s0_label"][own]))
            classes[one] = Observed(-s1[own], -wrong, offset)
    found = calibrate_classes(classes, CleanTable().label_loss, CleanTable().min_precision)
    for one, threshold in found.items():  # a label that is likelier than not is never noise
        passed[rows[own_label == one]] = -s1[own_label == one] >= min(threshold.value, -1.0)
    return passed
