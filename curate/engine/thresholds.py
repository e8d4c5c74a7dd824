"""What the gates' thresholds are calibrated on: the pool's own rows, put together wrongly on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.engine.gate import Gate
from curate.scoring.calibrate import Observed, Threshold, calibrate, calibrate_classes
from curate.scoring.labels import SHARE_WEIGHT, LabelModel
from curate.scoring.pairs import PairModel, spread
from curate_kernels.arrays import B1, F32, F64, I64

if TYPE_CHECKING:
    from curate.engine.core import Engine

MIN_ROWS = 64  # to fit anything
_WRONG_ROWS = 8192
_SHUFFLES = 3


@dataclass(frozen=True, slots=True)
class Before:
    """What rows were before they were mended: caption (n,) bool, had another one; label (n,) int64, class or -1."""

    caption: B1
    label: I64


def sample(engine: Engine, ordinals: I64, most: int) -> Any:
    """Return the Arrow table of at most `most` of these rows, evenly spread over their order of arrival."""
    return engine.pool.take(spread(ordinals, most).tolist(), engine.columns()).combine_chunks()


def calibrate_gates(
    engine: Engine, gate: Gate, scores: Mapping[str, F32], counted: B1, number: I64, place: I64, before: Before
) -> None:
    """Set the thresholds of a gate whose models are fitted, from the scores of every row of the pool.

    counted: (n,) bool, rows in the sums; number: (n,) int64, their classes or -1; place: (n,) int64, as voters or -1
    A mended row counts as the bad one that it was: else no bad ones would be seen, and the next ones would pass.
    """
    clean, pvi = engine.recipe.clean, scores["pvi"]
    usable = np.flatnonzero(counted & np.isfinite(pvi))
    # A family that predicts no better than the marginal has collapsed (mean PVI <= 0): it must not judge.
    if gate.pairs is not None and usable.size >= MIN_ROWS and pvi[usable].astype(np.float64).mean() > 0:
        wrong = _shuffled_pvi(engine, gate.pairs, usable)
        was_bad = _caught(wrong, int(before.caption[usable].sum()), engine.gate.caption)
        observed = np.concatenate([pvi[usable[~before.caption[usable]]], was_bad]).astype(np.float64)
        gate.caption = calibrate(observed, wrong, clean.caption_loss, clean.min_precision)
    usable = np.flatnonzero(counted & np.isfinite(scores["s1_label"]))
    # For labels the median tells: the classes are overconfident, and a few flipped labels cost dozens of bits each.
    if gate.labels is not None and usable.size and np.median(scores["pvi_label"][usable]) > 0:
        gate.classes = _class_thresholds(engine, gate.labels, scores, usable, number, place, before.label)


def _caught(wrong: F64, count: int, threshold: Threshold | None) -> F64:
    """Return scores such as `count` mended rows had: those of wrong rows that a threshold caught, evenly spread."""
    caught = threshold.caught if threshold else 1.0
    scores: F64 = np.quantile(wrong, (np.arange(count) + 0.5) / max(count, 1) * caught)
    return scores


def _shuffled_pvi(engine: Engine, model: PairModel, ordinals: I64) -> F64:
    """Return the PVI of images with the captions of other images."""
    image, text, _, _ = engine.table_rows(sample(engine, ordinals, _WRONG_ROWS))
    x, y = model.project(engine.features(image), text)
    rng = np.random.default_rng(0)  # the calibration depends on the rows alone
    parts = []
    for _ in range(_SHUFFLES):
        # Neighbours in a random cyclic order: no row keeps its own caption.
        order = rng.permutation(x.shape[0])
        other = np.empty_like(order)
        other[order] = np.roll(order, 1)
        parts.append(model.mismatched(x, y, np.ones(x.shape[0], dtype=np.bool_), other))
    return np.concatenate(parts).astype(np.float64)


def _class_thresholds(
    engine: Engine, model: LabelModel, scores: Mapping[str, F32], usable: I64, number: I64, place: I64, before: I64
) -> dict[int, Threshold]:
    clean, s1 = engine.recipe.clean, scores["s1_label"].astype(np.float64)
    some = spread(usable, _WRONG_ROWS)
    image, _, _, _ = engine.table_rows(sample(engine, usable, _WRONG_ROWS))
    z = model.project(engine.features(image))
    foreign = model.foreign(z, number[some], np.ones(some.size, dtype=np.bool_), place[some])
    classes = {}
    for label in np.unique(number[usable]).tolist():
        own = usable[number[usable] == label]
        if own.size < clean.min_class:
            continue
        wrong = foreign.s1(label)
        # A row that fits this class better than its own may truly be of it, so it is no example of a wrong label.
        wrong = wrong[wrong > s1[some[number[some] != label]]]
        if wrong.size >= clean.min_class:
            offset = SHARE_WEIGHT * float(np.median(scores["s0_label"][own]))
            was_bad = _caught(-wrong, int((before[usable] == label).sum()), engine.gate.classes.get(label))
            classes[label] = Observed(np.concatenate([-s1[own], was_bad]), -wrong, offset)
    found = calibrate_classes(classes, clean.label_loss, clean.min_precision)
    # A label that is likelier than not is never noise, however well its class is separated.
    return {label: replace(threshold, value=min(threshold.value, -1.0)) for label, threshold in found.items()}
