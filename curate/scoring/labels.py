"""How surprising a label is given the image: linear discriminant classes, and the votes of the nearest labelled rows.

Two experts. LDA, classes with a shared covariance, knows where each class lies; the vote of the 100 nearest rows by
cosine in the space that LDA whitens knows local structure, above all other images of the same thing. Their product
q_lda^(1/2) q_vote is not normalised: that the two agree on another class counts, that neither is sure counts as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp

from curate.errors import UsageError
from curate.recipe import ScoreTable
from curate.scoring.knn_labels import vote_probability, vote_weights
from curate.scoring.moments import ClassMoments, principal_axes
from curate.scoring.nearest import nearest
from curate.scoring.pairs import spread
from curate_kernels.arrays import B1, F32, F64, I64, as_rows
from curate_kernels.vinfo import lda_bits

LABEL_COLUMNS = ("s0_label", "s1_label", "pvi_label")
REFERENCE_ROWS = 32_768  # a row costs 1 to 2 ms against so many
SHARE_WEIGHT = 1.5  # how often s1_label counts the class's share: half of LDA's prior, and the vote's
_NEIGHBOURS = 100
_SHARPNESS = 15.0  # of the votes' weights, exp(15 (cosine - best cosine))
_KAPPA = 0.5  # votes that the class shares count as
_TILE = 4096
_LEAST_BAD = 1e-3


@dataclass(frozen=True, slots=True)
class _Reference:
    """The rows that vote: (r, dims) float32 unit rows in the whitened space, and their labels (r,)."""

    x: F32
    label: I64


class LabelModel:
    """Scores of (image, label) rows: the LDA family from class sums alone, and the votes once `refer` was called."""

    def __init__(self, moments: ClassMoments, table: ScoreTable) -> None:
        n = float(moments.count.sum())
        self.count = moments.count.copy()
        self._shrink = table.shrinkage
        means = np.divide(
            moments.x, moments.count[:, None], out=np.zeros_like(moments.x), where=moments.count[:, None] > 0
        )
        centre = moments.x.sum(axis=0) / n
        within = moments.xx - moments.x.T @ means
        dims = max(1, min(table.label_dims, moments.xx.shape[0], int(n) // 4))
        axes = principal_axes(moments.xx / n - np.outer(centre, centre), dims)
        scatter = axes.T @ within @ axes
        # Rows that do not vary inside their classes leave rounding noise, which may even be negative.
        noise = 1e-10 * max(float(np.trace(moments.xx)) / n, 1.0)
        floor = max(float(np.trace(scatter)) / dims, noise)
        scatter = (1 - self._shrink) * scatter + self._shrink * floor * np.eye(dims)
        factor = cholesky((scatter + scatter.T) / 2, lower=True)
        self._centre = centre
        self._whiten: F64 = solve_triangular(factor, axes.T, lower=True).T
        self._means: F64 = (means - centre) @ self._whiten
        self._gram: F64 = self._means @ self._means.T
        self._reference: _Reference | None = None

    def project(self, x: F32) -> F64:
        """Return rows of x (m, p) in the whitened space, (m, dims)."""
        projected: F64 = (x.astype(np.float64) - self._centre) @ self._whiten
        return projected

    def refer(self, parts: Iterable[tuple[F32, I64]]) -> None:
        """Let these rows vote from now on: parts of x (r, p) features and label (r,) of classes known to the sums."""
        units, labels = zip(*((_unit(self.project(x)), label) for x, label in parts), strict=True)
        self._reference = _Reference(np.concatenate(units), np.concatenate(labels))

    def score(self, z: F64, label: I64, seen: B1, place: I64 | None = None) -> dict[str, F32]:
        """Return LABEL_COLUMNS in bits for projected rows z with label (m,) of a class known to the sums.

        s0_label: -log2 of the class's share; s1_label: surprise given the image, -log2 q_lda / 2 - log2 q_vote, or
        -log2 q_lda alone where nothing votes: higher means likelier wrong; pvi_label: s0 + log2 q_lda, information
        in the LDA family.

        seen: (m,) bool, rows that are in the sums (exact leave-one-out) or not (plain predictive)
        place: (m,) int64, which row of the reference each is, -1 for none; a row has no vote in its own case
        """
        s0, s1 = np.empty(z.shape[0]), np.empty(z.shape[0])
        lda_bits(
            z @ self._means.T,
            (z * z).sum(axis=1),
            self._gram,
            self.count,
            label,
            seen,
            self._shrink,
            s0,
            s1,
        )
        pvi, votes = s0 - s1, self._votes(z, place)
        if votes is not None:
            s1 = s1 / 2 + votes.bits(label, np.exp2(-s0))
        columns = {"s0_label": s0, "s1_label": s1, "pvi_label": pvi}
        return {name: value.astype(np.float32) for name, value in columns.items()}

    def foreign(self, z: F64, label: I64, seen: B1, place: I64 | None = None) -> Foreign:
        """Return rows as they would look under labels that are not their own; arguments as for `score`."""
        return Foreign(self, z, label, seen, place)

    def every(self, z: F64, label: I64, seen: B1, place: I64 | None = None) -> F64:
        """Return s1_label of projected rows under each class, (m, K) float64 bits; arguments as for `score`.

        2^-s1, scaled to sum 1, is the posterior of the two experts' product (Hinton 2002, eq. 1).
        """
        every = np.arange(self.count.size)
        logits = self._logits(z, label, seen, every)
        bits: F64 = (logsumexp(logits, axis=1, keepdims=True) - logits) / np.log(2.0)
        votes = self._votes(z, place)
        if votes is None:
            return bits
        for c in every:
            gone = seen * (label == c)
            share = (self.count[c] - gone + 0.5) / (self.count.sum() - seen + 0.5 * self.count.size)
            bits[:, c] = bits[:, c] / 2 + votes.bits(int(c), share)
        return bits

    def _votes(self, z: F64, place: I64 | None) -> _Votes | None:
        """Return the votes of the nearest rows of the reference on projected rows, each row's own left out."""
        if self._reference is None:
            return None
        sim, row = nearest(self._reference.x, _unit(z), k=_NEIGHBOURS + 1)
        if place is not None:
            sim[(row == place[:, None]) & (row >= 0)] = -np.inf
        order = np.argsort(-sim, axis=1, kind="stable")[:, :_NEIGHBOURS]
        sim, row = np.take_along_axis(sim, order, axis=1), np.take_along_axis(row, order, axis=1)
        weight = np.where(sim[:, :1] > -np.inf, vote_weights(sim, _SHARPNESS), 0.0)
        return _Votes(np.where(weight > 0, self._reference.label[row], -1), weight)

    def _logits(self, z: F64, label: I64, seen: B1, classes: I64) -> F64:
        """Return log q(class) of projected rows up to a constant a row, (m, classes); as `lda_bits` has it.

        A row that the sums have seen is left out of its own class `label`.
        """
        n, k = float(self.count.sum()), self.count.size
        cross = z @ self._means[classes].T
        norm = (z * z).sum(axis=1)
        with_own = np.einsum("ij,ij->i", z, self._means[label])
        own = norm - 2.0 * with_own + self._gram[label, label]
        others = self.count[label] - seen
        scale = np.where(seen & (others >= 1), self.count[label] / np.maximum(others, 1.0), 1.0)
        removed = np.where(seen & (others >= 1), (1.0 - self._shrink) * scale, 0.0)
        dist = norm[:, None] - 2.0 * cross + self._gram[classes, classes]
        along = norm[:, None] - cross - with_own[:, None] + self._gram[np.ix_(label, classes)]
        mine = label[:, None] == classes
        dist = np.where(mine, dist * scale[:, None] ** 2, dist)
        along = np.where(mine, along * scale[:, None], along)
        dist += removed[:, None] * along**2 / np.maximum(1.0 - removed * own, 1e-9)[:, None]
        left = self.count[classes] - np.where(mine, seen[:, None], False)
        spread = np.maximum(n - seen - k, 1.0)[:, None]
        return np.where(left >= 1.0, np.log(np.maximum(left, 0.0) + 0.5) - 0.5 * spread * dist, -np.inf)


@dataclass(frozen=True, slots=True)
class _Votes:
    """Votes on m rows: label (m, k), -1 where there is none, and weight (m, k) of each."""

    label: I64
    weight: F64

    def bits(self, label: I64 | int, share: F64 | float) -> F64:
        """Return -log2 q_vote(label), (m,); share: the class's share, which counts as _KAPPA votes."""
        votes = np.where(self.label == np.reshape(label, (-1, 1)), self.weight, 0.0).sum(axis=1)
        bits: F64 = -np.log2(vote_probability(votes, self.weight.sum(axis=1), share, _KAPPA))
        return bits


class Foreign:
    """What s1_label of real rows would be if they bore other classes' labels: the scores of wrong labels.

    Each row is left out of its own class's sums and votes, as one that bears a wrong label is in no sums of its class.
    """

    def __init__(self, model: LabelModel, z: F64, label: I64, seen: B1, place: I64 | None) -> None:
        self._model, self._z, self._seen, self.label = model, z, seen, label
        every = np.arange(model.count.size)
        step = max(1, _TILE * 64 // every.size)
        self._partition = np.zeros(label.size)
        for low in range(0, label.size, step):
            part = slice(low, low + step)
            logits = model._logits(z[part], label[part], seen[part], every)
            self._partition[part] = logsumexp(logits, axis=1)
        self._votes = model._votes(z, place)

    def s1(self, claimed: int) -> F64:
        """Return s1_label of all rows of other classes, as if their label were `claimed`; float64, in order."""
        at = np.flatnonzero(self.label != claimed)
        model, seen = self._model, self._seen[at]
        logit = model._logits(self._z[at], self.label[at], seen, np.array([claimed]))[:, 0]
        bits: F64 = (self._partition[at] - logit) / np.log(2.0)
        if self._votes is None:
            return bits
        share = (model.count[claimed] + 0.5) / (model.count.sum() - seen + 0.5 * model.count.size)
        return bits / 2 + _Votes(self._votes.label[at], self._votes.weight[at]).bits(claimed, share)


def corrections(bits: F64, label: I64, bad: F64) -> tuple[I64, F64]:
    """Return each row's likeliest other class (m,) int64, and the probability (m,) float64 that it is of that one.

    bits: (m, K), what `LabelModel.every` gave; label: (m,) int64; bad: (m,) share of wrong labels in its class
    The label that a row bears is evidence too: with flips at random to any other class (Angluin and Laird 1988),
    P(c | x, label) is proportional to q(c | x) times 1 - bad where c is the label, and bad / (K - 1) elsewhere.
    """
    rows, share = np.arange(label.size), np.clip(bad, _LEAST_BAD, 1.0 - _LEAST_BAD)[:, None]
    channel = np.repeat(share / max(bits.shape[1] - 1, 1), bits.shape[1], axis=1)
    channel[rows, label] = 1.0 - share[:, 0]
    joint = np.exp2(bits.min(axis=1, keepdims=True) - bits) * channel
    posterior = joint / joint.sum(axis=1, keepdims=True)
    posterior[rows, label] = -1.0
    best = posterior.argmax(axis=1)
    return best, np.maximum(posterior[rows, best], 0.0)


def label_information(image: F32, label: I64, table: ScoreTable, counted: B1 | None = None) -> dict[str, F32]:
    """Return LABEL_COLUMNS of n rows, each (n,) float32 bits, NaN where there is no label; high `s1_label`: suspicious.

    image: (n, p) float32; label: (n,) int64, -1 where there is none; counted: (n,) bool, rows to learn from, all if not
    given. Counted rows get exact leave-one-out scores; a label of a class without counted rows gets NaN.

    Raises:
        UsageError: image, label and counted differ in length.
    """
    image = as_rows(image, "image")
    n = image.shape[0]
    counted = np.ones(n, dtype=np.bool_) if counted is None else counted
    if label.shape != (n,) or counted.shape != (n,):
        raise UsageError(f"image has {n} rows, label {label.shape}, counted {counted.shape}; they must be the same")
    columns = {name: np.full(n, np.nan, dtype=np.float32) for name in LABEL_COLUMNS}
    learn = np.flatnonzero(counted & (label >= 0))
    if not learn.size:
        return columns
    moments = ClassMoments.zeros(image.shape[1])
    for low in range(0, learn.size, _TILE):
        rows = learn[low : low + _TILE]
        moments.add(image[rows], label[rows], int(label.max()) + 1)
    model = LabelModel(moments, table)
    voters = spread(learn, REFERENCE_ROWS)
    model.refer((image[rows], label[rows]) for rows in (voters[i : i + _TILE] for i in range(0, voters.size, _TILE)))
    place = np.full(n, -1, dtype=np.int64)
    place[voters] = np.arange(voters.size)
    known = np.flatnonzero((label >= 0) & (model.count[label] > 0))
    for low in range(0, known.size, _TILE):
        rows = known[low : low + _TILE]
        scores = model.score(model.project(image[rows]), label[rows], counted[rows], place[rows])
        for name, values in scores.items():
            columns[name][rows] = values
    return columns


def _unit(z: F64) -> F32:
    """Return the rows of z scaled to norm 1, as float32; rows of norm 0 stay 0."""
    norm = np.sqrt((z * z).sum(axis=1, keepdims=True))
    unit: F32 = np.divide(z, norm, out=np.zeros_like(z), where=norm > 0).astype(np.float32)
    return unit
