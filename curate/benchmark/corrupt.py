"""Corruptions whose truth is known: a plan says what each training row shows, bears and is, before anything is encoded.

A row shows image `origin` of the collection, altered as `change` says, with the label `label` and the caption of
image `caption`. Masks of truth say what was planted where; a row that was planted is bad unless it is a duplicate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.benchmark.definition import Step
from curate.errors import UsageError
from curate_kernels.arrays import B1, F32, I64

BAD = ("flipped", "shuffled", "blank", "blurred", "outlier", "leak")
"""What must not be trained on; duplicates only waste the budget."""

_NEAR = {"reencode": "jpeg:60", "resize": "resize:0.5", "crop": "crop:0.9", "flip": "flip"}
_CHANGES = {"blank": "blank", "blur": "blur:6"}
Names = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Plan:
    """n training rows: origin, caption (n,) int64 images of the collection; change (n,) names; label (n,) codes.

    truth: {kind: (n,) bool}
    """

    origin: I64
    change: Names
    label: I64
    caption: I64
    truth: Mapping[str, B1]

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.origin.size)

    def at(self, rows: I64) -> Plan:
        """Return the plan of these rows, in this order, which may name one twice."""
        truth = {kind: mask[rows] for kind, mask in self.truth.items()}
        return Plan(self.origin[rows], self.change[rows], self.label[rows], self.caption[rows], truth)

    def marked(self, kind: str, mask: B1) -> Plan:
        """Return the plan with more rows of a kind."""
        return replace(self, truth={**self.truth, kind: self.truth.get(kind, np.zeros(self.n, np.bool_)) | mask})

    def bad(self) -> B1:
        """Return which rows must not be trained on."""
        out = np.zeros(self.n, dtype=np.bool_)
        for kind in BAD:
            out |= self.truth.get(kind, False)
        return out


@dataclass(frozen=True, slots=True)
class Facts:
    """What corruptions know of the collection: m images.

    x: (m, d) clean embeddings; label: (m,) codes, -1 none; columns: {name: m values}; test: held-out images
    pixels: images can be altered; else embeddings are, by noise
    """

    x: F32
    label: I64
    columns: Mapping[str, Sequence[Any]]
    test: I64
    pixels: bool
    captions: bool


def clean_plan(rows: I64, label: I64) -> Plan:
    """Return the plan of images as they are; label: (m,) of the whole collection."""
    none = np.full(rows.size, "", dtype=object)
    return Plan(rows.copy(), none, label[rows], rows.copy(), {})


def apply(plan: Plan, step: Step, facts: Facts, rng: np.random.Generator) -> Plan:
    """Return the corrupted plan. Raises UsageError where the collection lacks what the step needs."""
    return _STEPS[step.kind](plan, step, facts, rng)


def _some(plan: Plan, share: float, rng: np.random.Generator, among: B1 | None = None) -> I64:
    """Draw share · n rows, in order, from those that bear no fault yet."""
    free = ~plan.bad() if among is None else among & ~plan.bad()
    rows = np.flatnonzero(free)
    return np.sort(rng.choice(rows, min(int(share * plan.n + 0.5), rows.size), replace=False)).astype(np.int64)


def _mask(plan: Plan, rows: I64) -> B1:
    out = np.zeros(plan.n, dtype=np.bool_)
    out[rows] = True
    return out


def _appended(plan: Plan, rows: I64, kind: str, change: Names | None, rng: np.random.Generator) -> Plan:
    """Return the plan with copies of rows among the others, at random places."""
    copies = plan.at(rows)
    joined = plan.at(np.concatenate([np.arange(plan.n), rows]))
    if change is not None:
        joined.change[plan.n :] = [f"{old}|{new}".strip("|") for old, new in zip(copies.change, change, strict=True)]
    joined = joined.marked(kind, np.arange(joined.n) >= plan.n)
    return joined.at(rng.permutation(joined.n))


def _duplicate(plan: Plan, step: Step, facts: Facts, rng: np.random.Generator) -> Plan:
    return _appended(plan, _some(plan, step.share, rng), "duplicate", None, rng)


def _near_changes(count: int, how: str, facts: Facts, rng: np.random.Generator) -> Names:
    if not facts.pixels:
        return np.array([f"noise:{seed}" for seed in rng.integers(2**31, size=count)], dtype=object)
    kinds = list(_NEAR.values()) if how in ("", "all") else [_NEAR[how]]
    return np.array([kinds[i % len(kinds)] for i in range(count)], dtype=object)


def _near_duplicate(plan: Plan, step: Step, facts: Facts, rng: np.random.Generator) -> Plan:
    rows = _some(plan, step.share, rng)
    return _appended(plan, rows, "near-duplicate", _near_changes(rows.size, step.how, facts, rng), rng)


def _flip(plan: Plan, step: Step, facts: Facts, rng: np.random.Generator) -> Plan:
    classes = int(facts.label.max(initial=-1)) + 1
    if classes < 2:
        raise UsageError("label-flip needs a collection with labels of two classes at least")
    rows = _some(plan, step.share, rng, plan.label >= 0)
    label = plan.label.copy()
    if step.how == "class":
        label[rows] = nearest_class(facts)[label[rows]]
    else:
        label[rows] = (label[rows] + rng.integers(1, classes, rows.size)) % classes
    return replace(plan, label=label).marked("flipped", _mask(plan, rows))


def nearest_class(facts: Facts) -> I64:
    """Return for each class the other one whose mean is most like its own, (K,) int64: the one it is taken for."""
    classes = int(facts.label.max()) + 1
    means = np.zeros((classes, facts.x.shape[1]))
    np.add.at(means, facts.label[facts.label >= 0], facts.x[facts.label >= 0])
    means /= np.maximum(np.bincount(facts.label[facts.label >= 0], minlength=classes), 1)[:, None]
    means -= means.mean(axis=0)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    alike = means @ means.T
    np.fill_diagonal(alike, -np.inf)
    nearest: I64 = alike.argmax(axis=1).astype(np.int64)
    return nearest


def _shuffle(plan: Plan, step: Step, facts: Facts, rng: np.random.Generator) -> Plan:
    if not facts.captions:
        raise UsageError("caption-shuffle needs a collection with captions")
    rows = rng.permutation(_some(plan, step.share, rng))
    caption = plan.caption.copy()
    caption[rows] = plan.caption[np.roll(rows, 1)]
    wrong = _mask(plan, rows) & (caption != plan.caption)  # copies of one image may swap what is the same
    return replace(plan, caption=caption).marked("shuffled", wrong)


def _changed(plan: Plan, step: Step, facts: Facts, rng: np.random.Generator) -> Plan:
    if not facts.pixels:
        raise UsageError(f"{step.kind} alters pixels, and this collection has embeddings only")
    rows = _some(plan, step.share, rng)
    change = plan.change.copy()
    change[rows] = _CHANGES[step.kind]
    return replace(plan, change=change).marked({"blank": "blank", "blur": "blurred"}[step.kind], _mask(plan, rows))


def _long_tail(plan: Plan, step: Step, facts: Facts, rng: np.random.Generator) -> Plan:
    """Keep of the class of rank r of K a share ratio ** (r / (K - 1)) of the largest; the last third are the tail."""
    labels, sizes = np.unique(plan.label[plan.label >= 0], return_counts=True)
    if labels.size < 2:
        raise UsageError("long-tail needs a collection with labels of two classes at least")
    order = np.argsort(-sizes, kind="stable")
    keep = [np.flatnonzero(plan.label < 0)]
    for rank, at in enumerate(order.tolist()):
        rows = np.flatnonzero(plan.label == labels[at])
        most = max(1, round(float(sizes.max()) * step.ratio ** (rank / (labels.size - 1))))
        keep.append(rng.choice(rows, min(most, rows.size), replace=False))
    tail = labels[order[-(-2 * labels.size // 3) :]]
    made = plan.at(np.sort(np.concatenate(keep)).astype(np.int64))
    return made.marked("tail", np.isin(made.label, tail))


def _order(plan: Plan, step: Step, facts: Facts, rng: np.random.Generator) -> Plan:
    if step.by == "class":
        return plan.at(np.argsort(plan.label, kind="stable"))
    if step.by not in facts.columns:
        raise UsageError(f"order by {step.by!r}: the collection's columns are: {', '.join(facts.columns) or 'none'}")
    values = facts.columns[step.by]
    keys = [(values[i] is None, values[i] if values[i] is not None else 0) for i in plan.origin.tolist()]
    return plan.at(np.array(sorted(range(plan.n), key=keys.__getitem__), dtype=np.int64))


def _outliers(plan: Plan, step: Step, facts: Facts, rng: np.random.Generator) -> Plan:
    if facts.pixels:
        raise UsageError("outliers are drawn as embeddings; a collection of images has none to draw")
    rows = _some(plan, step.share, rng)
    change = plan.change.copy()
    change[rows] = [f"outlier:{seed}" for seed in rng.integers(2**31, size=rows.size)]
    return replace(plan, change=change).marked("outlier", _mask(plan, rows))


def _leaks(plan: Plan, step: Step, facts: Facts, rng: np.random.Generator) -> Plan:
    """Add near-duplicates of held-out images, with their labels and captions."""
    count = min(int(step.share * plan.n + 0.5), facts.test.size)
    found = clean_plan(np.sort(rng.choice(facts.test, count, replace=False)).astype(np.int64), facts.label)
    changed = replace(found, change=_near_changes(count, "reencode", facts, rng))
    none = {kind: np.zeros(count, np.bool_) for kind in plan.truth}
    joined = Plan(
        np.concatenate([plan.origin, changed.origin]),
        np.concatenate([plan.change, changed.change]),
        np.concatenate([plan.label, changed.label]),
        np.concatenate([plan.caption, changed.caption]),
        {kind: np.concatenate([mask, none[kind]]) for kind, mask in plan.truth.items()},
    ).marked("leak", np.arange(plan.n + count) >= plan.n)
    return joined.at(rng.permutation(joined.n))


_STEPS: dict[str, Callable[[Plan, Step, Facts, np.random.Generator], Plan]] = {
    "duplicate": _duplicate,
    "near-duplicate": _near_duplicate,
    "label-flip": _flip,
    "caption-shuffle": _shuffle,
    "blank": _changed,
    "blur": _changed,
    "long-tail": _long_tail,
    "order": _order,
    "outliers": _outliers,
    "leaks": _leaks,
}
