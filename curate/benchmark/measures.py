"""Task: what a selection holds, and how well it stands for the rest, without any training; and detection of faults."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata

from curate.benchmark.features import of_world
from curate.benchmark.world import World
from curate.errors import UsageError
from curate_kernels.arrays import B1, F32, F64, I64

_DIMS = (256, 64)  # principal components of images and captions that the linear family reads
_LEAST_PAIRS = 32


def composition(world: World, rows: I64) -> dict[str, float]:
    """Return the share of the selection that each planted kind makes up, and of all planted, and its classes.

    share_<kind>: of the selected rows; kept_<kind>: selected of all that was planted; share_bad: of any kind that must
    not be trained on; copies: rows that show an image which the selection shows already; classes: how many occur,
    effective_classes: exp of their entropy
    """
    found: dict[str, float] = {}
    for kind, mask in sorted(world.plan.truth.items()):
        found[f"share_{kind}"] = float(mask[rows].mean())
        if mask.any():
            found[f"kept_{kind}"] = float(mask[rows].sum() / mask.sum())
    found["share_bad"] = float(world.plan.bad()[rows].mean())
    origin = world.plan.origin[rows]
    found["copies"] = 1.0 - np.unique(origin).size / origin.size
    label = world.plan.label[rows]
    if (label >= 0).any():
        size = np.bincount(label[label >= 0])
        share = size[size > 0] / size.sum()
        found["classes"] = float(share.size)
        found["effective_classes"] = float(np.exp(-(share * np.log(share)).sum()))
    return found


def class_counts(world: World, rows: I64) -> dict[str, int]:
    """Return how many selected rows bear each class, those without one left out."""
    label = world.plan.label[rows]
    size = np.bincount(label[label >= 0], minlength=len(world.base.classes))
    return {name: int(size[code]) for code, name in enumerate(world.base.classes)}


def coverage(world: World, rows: I64) -> dict[str, float]:
    """Return how the selection covers the held-out rows: distances to the nearest selected row, and its diversity.

    radius_50, radius_90, radius: quantiles of 1 - cosine; vendi: effective number of different rows (Friedman and
    Dieng, arXiv:2210.02410); information_pairs: I_V(S → T), bits a held-out pair, of captions given images under the
    linear-Gaussian family fitted to the selection.
    """
    from curate.scoring.diversity import coverage_radius, vendi

    chosen = world.x[rows]
    radii = coverage_radius(world.test_x, chosen, (0.5, 0.9, 1.0))
    wide = chosen[chosen.any(axis=1)].astype(np.float64)
    found = dict(zip(("radius_50", "radius_90", "radius"), radii.tolist(), strict=True))
    found["vendi"] = vendi(wide.T @ wide, wide.shape[0])
    if world.text is not None and rows.size >= _LEAST_PAIRS:
        found["information_pairs"] = pair_information(world, rows)
    return found


def pair_information(world: World, rows: I64) -> float:
    """Return I_V(S → T) in bits: T the held-out pairs, S the selected ones with the captions that they bear."""
    from curate.scoring.gaussian import best_ridge, pair_sums
    from curate.scoring.setlevel import set_information

    x, tx = _float32(*of_world(world, "image", _DIMS[0]))
    y, ty = _float32(*of_world(world, "text", _DIMS[1]))
    sums = pair_sums(x[rows], y[rows])
    return set_information(sums, tx, ty, ridge=best_ridge(sums, x[rows], y[rows])).information


def _float32(x: F64, t: F64) -> tuple[F32, F32]:
    return x.astype(np.float32), t.astype(np.float32)


def detection(world: World, columns: Mapping[str, F32], wanted: tuple[str, ...]) -> dict[str, float]:
    """Return AUC and average precision of scores against the planted truth: `<column>.<kind>.auc`.

    wanted: columns in which a high value is suspicious; with a minus before the name a low one. Rows without the score
    are left out. `bad` is everything that must not be trained on.
    """
    found = {}
    kinds = {**world.plan.truth, "bad": world.plan.bad()}
    for name in wanted:
        values = columns[name.removeprefix("-")].astype(np.float64)
        worse, there = (-values if name.startswith("-") else values), np.isfinite(values)
        for kind, mask in kinds.items():
            if mask[there].any() and not mask[there].all():
                found[f"{name}.{kind}.auc"] = auc(mask[there], worse[there])
                found[f"{name}.{kind}.ap"] = average_precision(mask[there], worse[there])
    if not found:
        raise UsageError("nothing was planted that a score could find")
    return found


def auc(bad: B1, worse: F64) -> float:
    """Return the chance that a bad row scores worse than a good one, ties counting half."""
    ranks, count = rankdata(worse), int(bad.sum())
    return float((ranks[bad].sum() - count * (count + 1) / 2) / count / (bad.size - count))


def average_precision(bad: B1, worse: F64) -> float:
    """Return the mean over the bad rows of the precision at their score; rows of equal scores come together."""
    order = np.argsort(-worse, kind="stable")
    values, hit = worse[order], bad[order]
    last = np.append(np.flatnonzero(np.diff(values)), hit.size - 1)  # of each run of equal scores
    caught = np.cumsum(hit)[last]
    gained = np.diff(np.concatenate([[0], caught]))
    return float((gained * caught / (last + 1)).sum() / caught[-1])
