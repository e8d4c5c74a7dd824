"""Label noise, difficulty, anomaly and worth: scores from class sums, and from a labelled target set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curate.errors import UsageError
from curate.scores.rows import Rows, by_tile, tiles
from curate.scoring.moments import ClassMoments
from curate.scoring.probe import RidgeProbe
from curate_kernels.arrays import B1, F32, F64, I64, unit_rows

_SAMPLE = 8192  # rows that a probe's ridge and temperature are chosen on


def _sums(x: F32, label: I64, at: B1) -> ClassMoments:
    """Return the class sums of the rows `at`."""
    sums, classes = ClassMoments.zeros(x.shape[1]), int(label.max(initial=0)) + 1
    for part in tiles(at):
        sums.add(x[part], label[part], classes)
    return sums


@dataclass(frozen=True)
class _Fitted:
    """A probe on the counted labelled rows. All (n,) or (n, d); `at` says which rows have a label and an image."""

    probe: RidgeProbe
    x: F32
    label: I64
    seen: B1
    at: B1
    sums: ClassMoments

    @classmethod
    def on(cls, rows: Rows) -> _Fitted:
        label, at = rows.labelled()
        x, seen = rows.features(), at & rows.counted
        if not seen.any():
            raise UsageError("no labelled sample is counted, so there is nothing to fit a probe on")
        sums = _sums(x, np.where(at, label, 0), seen)
        probe = RidgeProbe(sums)
        places = np.flatnonzero(seen)
        sample = places[:: -(-places.size // _SAMPLE)]
        probe.choose(probe.project(x[sample]), label[sample])
        return cls(probe, x, label, seen, at, sums)

    def probabilities(self, part: I64) -> F64:
        return self.probe.probabilities(self.probe.project(self.x[part]), self.label[part], self.seen[part])


@dataclass(frozen=True)
class Probe:
    """Leave-one-out ridge probe, ridge and temperature by leave-one-out error."""

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return EL2N, margin, entropy and confidence."""
        from curate.scoring.probe import difficulty

        fitted = _Fitted.on(rows)
        return by_tile(fitted.at, lambda part: difficulty(fitted.probabilities(part), fitted.label[part]))


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
        label, seen = fitted.label[fitted.at], fitted.seen[fitted.at]
        p = np.concatenate([fitted.probabilities(part) for part in tiles(fitted.at)])
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
        """Return s0, s1 and PVI of the label under the labels of the nearest counted samples other than itself."""
        from curate.scoring.knn_labels import VOTE_COLUMNS, vote_probability
        from curate.scoring.nearest import nearest

        label, at = rows.labelled()
        voter = at & rows.counted
        x, count = unit_rows(rows.features()), np.bincount(label[voter], minlength=int(label.max()) + 1)
        if voter.sum() < 2 or not self.kappa > 0:
            raise UsageError(f"{voter.sum()} labelled samples, kappa {self.kappa}; a vote needs 2 and a kappa above 0")
        columns = {name: np.full(rows.n, np.nan, dtype=np.float32) for name in VOTE_COLUMNS}
        for inside in (1, 0):
            rest = np.flatnonzero(at & (rows.counted == inside))
            others = int(voter.sum()) - inside
            queries = None if inside else x[rest]
            _, neighbor = nearest(x[voter], queries, k=min(self.k, others), exclude_self=bool(inside))
            share = (count[label[rest]] - inside + 0.5) / (others + 0.5 * count.size)
            votes = (label[voter][neighbor] == label[rest][:, None]).sum(axis=1)
            q = vote_probability(votes, neighbor.shape[1], share, self.kappa)
            for name, bits in zip(columns, (-np.log2(share), -np.log2(q), np.log2(q / share)), strict=True):
                columns[name][rest] = bits
        return columns


@dataclass(frozen=True)
class Bayes:
    """alpha: weight of the probe's own expectation against the class prototypes'."""

    alpha: float = 0.2

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the selection score in bits."""
        from curate.scoring.anomaly import class_prototypes
        from curate.scoring.bayes import bayes_scores, prototype_log_probability, residual_variance

        fitted = _Fitted.on(rows)
        probe, count = fitted.probe, int(fitted.seen.sum())
        error = 0.0
        for part in tiles(fitted.seen):
            guess = probe.predict(probe.project(fitted.x[part]), fitted.label[part], fitted.seen[part])
            error += residual_variance(guess, fitted.label[part]) * part.size / count
        prototypes = class_prototypes(fitted.sums)

        def score(part: I64) -> dict[str, F32]:
            z, label = probe.project(fitted.x[part]), fitted.label[part]
            reference = prototype_log_probability(fitted.x[part], prototypes)
            bits = bayes_scores(probe, z, label, fitted.seen[part], reference, noise=error, alpha=self.alpha)
            return {"bayes": bits}

        return by_tile(fitted.at, score)


@dataclass(frozen=True)
class Anomaly:
    """shrinkage: share of each scatter replaced by its mean diagonal."""

    shrinkage: float = 0.1

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the distance to all samples; to the classes too, where there are labels."""
        from curate.scoring.anomaly import AnomalyModel

        x = rows.features()

        def distances(at: B1, label: I64) -> dict[str, F32]:
            seen = at & rows.counted
            model = AnomalyModel(_sums(x, label, seen), self.shrinkage)
            return by_tile(at, lambda part: model.score(x[part], label[part], seen[part]))

        columns = {"anomaly": distances(rows.valid, np.zeros(rows.n, dtype=np.int64))["background"]}
        if rows.label is None or not (rows.valid & rows.counted & (rows.label >= 0)).any():
            return columns
        label, at = rows.labelled()
        found = distances(at, label)
        return columns | {"anomaly_class": found["own"], "anomaly_relative": found["relative"]}


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
        sums = _sums(image, label, fit)
        if (sums.count > 0).sum() < 2:
            raise UsageError(f"{(sums.count > 0).sum()} classes have samples; a margin between them needs at least 2")
        prototypes = class_prototypes(sums)

        def score(part: I64) -> dict[str, F32]:
            margin = negative_margin(image[part], label[part], prototypes)
            margin += np.einsum("ij,ij->i", image[part], prototypes[label[part]])
            margin -= _own_likeness(image[part], label[part], fit[part], sums)
            return {"negative_margin": margin}

        columns = by_tile(at, score)
        if rows.target is not None:
            wanted = rows.wanted().images()
            columns["positive_distance"] = rows.fill(distance_to_set(image[rows.valid], wanted, self.k), rows.valid)
        return columns


def _own_likeness(x: F32, label: I64, seen: B1, sums: ClassMoments) -> F32:
    """Return each unit row's cosine with the mean of its class, itself apart where it is in the sums; 0 of none."""
    others = sums.x[label] - np.where(seen[:, None], x.astype(np.float64), 0.0)
    norm = np.linalg.norm(others, axis=1)
    lone = sums.count[label] - seen < 1  # what is left of the sum is rounding
    cosine: F64 = np.einsum("ij,ij->i", x, others) / np.maximum(norm, 1e-12)
    return np.where(lone, 0.0, cosine).astype(np.float32)


def _validation(rows: Rows) -> tuple[F32, I64]:
    """Return the target's labelled rows."""
    wanted = rows.wanted()
    if wanted.label is None or not (wanted.label >= 0).any():
        raise UsageError("the target set has no labels of this collection's classes; give a pool with such labels")
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
