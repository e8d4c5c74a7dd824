"""Label noise, difficulty, anomaly and worth: scores from class sums, and from a labelled target set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.errors import UsageError
from curate.scores.rows import Rows
from curate.scoring.moments import ClassMoments
from curate.scoring.probe import RidgeProbe
from curate_kernels.arrays import B1, F32, F64, I64, unit_rows

_SAMPLE = 8192  # rows that a probe's ridge and temperature are chosen on


def _sums(x: F32, label: I64, classes: int) -> ClassMoments:
    sums = ClassMoments.zeros(x.shape[1])
    for low in range(0, x.shape[0], 8192):
        sums.add(x[low : low + 8192], label[low : low + 8192], classes)
    return sums


@dataclass(frozen=True)
class _Fitted:
    """A probe on the counted rows, and what it says about every labelled one."""

    probe: RidgeProbe
    z: F64
    label: I64
    seen: B1
    at: B1
    sums: ClassMoments

    @classmethod
    def on(cls, rows: Rows) -> _Fitted:
        label, at = rows.labelled()
        x, own, seen = rows.features()[at], label[at], rows.counted[at]
        if not seen.any():
            raise UsageError("no labelled sample is counted, so there is nothing to fit a probe on")
        sums = _sums(x[seen], own[seen], int(own.max()) + 1)
        probe = RidgeProbe(sums)
        z = probe.project(x)
        sample = np.flatnonzero(seen)[:: -(-int(seen.sum()) // _SAMPLE)]
        probe.choose(z[sample], own[sample])
        return cls(probe, z, own, seen, at, sums)

    def probabilities(self) -> F64:
        return self.probe.probabilities(self.z, self.label, self.seen)


@dataclass(frozen=True)
class Probe:
    """Leave-one-out ridge probe, ridge and temperature by leave-one-out error."""

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return EL2N, margin, entropy and confidence."""
        from curate.scoring.probe import difficulty

        fitted = _Fitted.on(rows)
        found = difficulty(fitted.probabilities(), fitted.label)
        return {name: rows.fill(values, fitted.at) for name, values in found.items()}


@dataclass(frozen=True)
class Mislabel:
    """by: which rows of a class are issues: noise_rate, class or both."""

    by: str = "noise_rate"

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return three ranking scores and the issues of the confident joint."""
        from curate.scoring.noise import fit_noise, label_issues, label_quality

        if self.by not in ("noise_rate", "class", "both"):
            raise UsageError(f"by is {self.by!r}; it must be noise_rate, class or both")
        fitted = _Fitted.on(rows)
        p, label, seen = fitted.probabilities(), fitted.label, fitted.seen
        quality = label_quality(p, label)
        issues = label_issues(p, label, fit_noise(p[seen], label[seen]), self.by)
        columns = {
            "label_confidence": quality["self_confidence"],
            "label_margin": quality["normalized_margin"],
            "label_entropy": quality["weighted_entropy"],
            "label_issue": issues.astype(np.float32),
        }
        return {name: rows.fill(values, fitted.at) for name, values in columns.items()}


@dataclass(frozen=True)
class Vote:
    """k: neighbours; kappa: weight of the prior, in votes."""

    k: int = 20
    kappa: float = 2.0

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return s0, s1 and PVI of the label under its nearest counted neighbours' labels."""
        from curate.scoring.knn_labels import vote_bits
        from curate.scoring.nearest import nearest

        label, at = rows.labelled()
        at = at & rows.counted
        x, own = unit_rows(rows.features()[at]), label[at]
        if x.shape[0] < 2:
            raise UsageError(f"{x.shape[0]} labelled samples; a vote needs at least 2")
        _, neighbor = nearest(x, k=min(self.k, x.shape[0] - 1), exclude_self=True)
        found = vote_bits(neighbor, own, int(own.max()) + 1, kappa=self.kappa)
        return {name: rows.fill(values, at) for name, values in found.items()}


@dataclass(frozen=True)
class Bayes:
    """alpha: weight of the probe's own expectation against the class prototypes'."""

    alpha: float = 0.2

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the selection score in bits."""
        from curate.scoring.anomaly import class_prototypes
        from curate.scoring.bayes import bayes_scores, prototype_log_probability, residual_variance

        fitted = _Fitted.on(rows)
        seen = fitted.seen
        noise = residual_variance(
            fitted.probe.predict(fitted.z[seen], fitted.label[seen], seen[seen]), fitted.label[seen]
        )
        reference = prototype_log_probability(rows.features()[fitted.at], class_prototypes(fitted.sums))
        found = bayes_scores(fitted.probe, fitted.z, fitted.label, seen, reference, noise=noise, alpha=self.alpha)
        return {"bayes": rows.fill(found, fitted.at)}


@dataclass(frozen=True)
class Anomaly:
    """shrinkage: share of each scatter replaced by its mean diagonal."""

    shrinkage: float = 0.1

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the distance to all samples; to the classes too, where there are labels."""
        from curate.scoring.anomaly import AnomalyModel

        at, x = rows.valid, rows.features()
        fit = at & rows.counted
        one = np.zeros(rows.n, dtype=np.int64)
        model = AnomalyModel(_sums(x[fit], one[fit], 1), self.shrinkage)
        columns = {"anomaly": rows.fill(model.score(x[at], one[at], rows.counted[at])["background"], at)}
        if rows.label is None or not (rows.label >= 0).any():
            return columns
        label, at = rows.labelled()
        fit = at & rows.counted
        model = AnomalyModel(_sums(x[fit], label[fit], int(label.max()) + 1), self.shrinkage)
        found = model.score(x[at], label[at], rows.counted[at])
        return columns | {
            "anomaly_class": rows.fill(found["own"], at),
            "anomaly_relative": rows.fill(found["relative"], at),
        }


@dataclass(frozen=True)
class HardNegative:
    """k: nearest target samples that the distance is measured to."""

    k: int = 1

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the margin between classes, and the distance to the target set where there is one."""
        from curate.scoring.anomaly import class_prototypes, distance_to_set, negative_margin

        label, at = rows.labelled()
        fit = at & rows.counted
        image = rows.images()
        prototypes = class_prototypes(_sums(image[fit], label[fit], int(label.max()) + 1))
        columns = {"negative_margin": rows.fill(negative_margin(image[at], label[at], prototypes), at)}
        if rows.target is not None:
            wanted = rows.wanted().images()
            columns["positive_distance"] = rows.fill(distance_to_set(image[rows.valid], wanted, self.k), rows.valid)
        return columns


def _validation(rows: Rows) -> tuple[F32, I64]:
    """Return the target's labelled rows."""
    wanted = rows.wanted()
    label, at = wanted.labelled()
    return wanted.images()[at], label[at]


@dataclass(frozen=True)
class NeighborShapley:
    """k: neighbours of the classifier."""

    k: int = 5

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return each sample's mean Shapley value over the target's samples."""
        from curate.scoring.shapley import knn_values

        label, at = rows.labelled()
        valid, wanted = _validation(rows)
        return {"shapley_knn": rows.fill(knn_values(rows.images()[at], label[at], valid, wanted, k=self.k), at)}


@dataclass(frozen=True)
class InRunShapley:
    """steps: of the probe's training; second_order: keep the interaction term."""

    steps: int = 50
    second_order: bool = False

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return what each sample took off the target's loss."""
        from curate.scoring.shapley import in_run_values

        label, at = rows.labelled()
        valid, wanted = _validation(rows)
        classes = int(max(label.max(), wanted.max())) + 1
        found = in_run_values(
            rows.images()[at], label[at], valid, wanted, classes, steps=self.steps, second_order=self.second_order
        )
        return {"shapley_in_run": rows.fill(found, at)}
