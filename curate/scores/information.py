"""V-information scores: of captions, labels, metadata columns, and of the embedding's own parts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from curate.errors import UsageError
from curate.scores.rows import Rows
from curate.scores.summed import Extra, InParts, Over, counted_in, joined, merged, pair_sums
from curate.scoring.moments import PairMoments
from curate.scoring.setlevel import collapsed
from curate_kernels.arrays import B1, F32, unit_rows

log = logging.getLogger("curate")
_MIN_ROWS = 64
_TILE = 8192  # rows taken to float64 at a time


def warn_if_collapsed(name: str, pvi: F32) -> None:
    """Log that a family predicts no better than the marginal, so that its scores say nothing."""
    known = pvi[np.isfinite(pvi)]
    message = collapsed(known) if known.size else ""
    if message:
        log.warning("%s: %s", name, message)


def _those(x: F32, at: B1) -> F32:
    """Return the rows `at`; x itself, not a copy, if it is all of them."""
    return x if at.all() else x[at]


def _enough(rows: int, what: str) -> None:
    if rows < _MIN_ROWS:
        raise UsageError(f"{rows} {what} can be scored; at least {_MIN_ROWS} are needed to fit a family")


def _check(pairs: int, labelled: int) -> None:
    """Raise UsageError where vinfo has neither enough pairs nor labels; log which of both are left out."""
    if not pairs and not labelled:
        raise UsageError("vinfo needs captions or labels; vinfo-self needs neither")
    _enough(max(pairs, labelled), "pairs or labelled samples")
    for count, what in ((pairs, "pairs"), (labelled, "labelled samples")):
        if 0 < count < _MIN_ROWS:  # a few labels among many captions do not stop the captions
            log.warning("vinfo: %d %s are not scored; at least %d are needed", count, what, _MIN_ROWS)


@dataclass(frozen=True)
class Information:
    """trims: how often the pairs with negative PVI are taken out of the sums and everything is fitted again."""

    trims: int = 1

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the caption columns where there are captions, the label columns where there are labels."""
        fit = rows.valid & rows.counted
        pairs = 0 if rows.text is None else int((fit & rows.text.any(axis=1)).sum())
        labelled = 0 if rows.label is None else int((fit & (rows.label >= 0)).sum())
        _check(pairs, labelled)
        columns: dict[str, F32] = {}
        for count, part in ((pairs, self._pairs), (labelled, self._labels)):
            if count >= _MIN_ROWS:
                columns |= part(rows)
        return columns

    def in_parts(self, over: Over) -> InParts:
        """Return the score fitted over all parts, by the sums of one process."""
        from curate.scores.vinfo_parts import label_parts, pair_parts

        pairs, pair_count = pair_parts(over, self.trims, _MIN_ROWS)
        labels, label_count = label_parts(over, _MIN_ROWS)
        _check(pair_count, label_count)
        return joined([fitted for fitted in (pairs, labels) if fitted is not None])

    def _pairs(self, rows: Rows) -> dict[str, F32]:
        from curate.scoring.pairs import pair_information

        image, text, at = rows.pairs()
        found = pair_information(_those(image, at), _those(text, at), rows.table, rows.counted[at], self.trims)
        warn_if_collapsed("vinfo, captions", found["pvi"])
        return {name: rows.fill(values, at) for name, values in found.items()}

    def _labels(self, rows: Rows) -> dict[str, F32]:
        from curate.scoring.labels import label_information

        label, at = rows.labelled()
        found = label_information(_those(rows.features(), at), label[at], rows.table, rows.counted[at])
        return {name: rows.fill(values, at) for name, values in found.items()}


@dataclass(frozen=True)
class LearnedInformation:
    """folds: parts of the cross-fit; trims: as for vinfo, whose negative pairs are not learned from; seed."""

    folds: int = 5
    trims: int = 1
    seed: int = 0

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the learned family's columns, and its PVI joined with the linear family's."""
        from curate.scoring.learned import learned_information
        from curate.scoring.pairs import pair_information

        image, text, at = rows.pairs()
        counted = rows.counted[at]
        _enough(int(counted.sum()), "pairs")
        linear = pair_information(_those(image, at), _those(text, at), rows.table, counted, self.trims)["pvi"]
        trusted = counted & (linear > 0)
        if trusted.sum() < _MIN_ROWS:
            trusted = counted
        found = learned_information(_those(image, at), _those(text, at), trusted, self.folds, self.seed)
        warn_if_collapsed("vinfo-learned", found["pvi_learned"])
        found["pvi_joint"] = _standard(linear) + _standard(found["pvi_learned"])
        return {name: rows.fill(values, at) for name, values in found.items()}


def _standard(values: F32) -> F32:
    """Return values minus their median, in interquartile ranges: families of any scale weigh the same."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    scaled: F32 = ((values - middle) / max(float(high - low), 1e-12)).astype(np.float32)
    return scaled


@dataclass(frozen=True)
class SelfInformation:
    """blocks: parts of the embedding; clusters: with a covariance each, 0 for one to every 8 d samples; seed."""

    blocks: int = 8
    clusters: int = 0
    seed: int = 0

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return s0, s1 and PVI of the embedding's own parts."""
        from curate.scoring.blocks import block_information

        at = rows.valid
        _enough(int(at.sum()), "samples")
        found = block_information(rows.features()[at], self.blocks, self.clusters or None, seed=self.seed)
        warn_if_collapsed("vinfo-self", found["pvi_self"])
        return {name: rows.fill(values, at) for name, values in found.items()}


@dataclass(frozen=True)
class ColumnInformation:
    """column: the metadata's name; kind: auto, numeric or categorical."""

    column: str
    kind: str = "auto"

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return s0, s1 and PVI of the column's values; NaN where one is missing, and for samples not counted."""
        from curate.scoring.regression import column_information

        if self.column not in rows.columns:
            raise UsageError(f"there is no column {self.column!r}; there are: {', '.join(rows.columns) or 'none'}")
        if self.kind not in ("auto", "numeric", "categorical"):
            raise UsageError(f"kind is {self.kind!r}; it must be auto, numeric or categorical")
        at = rows.counted & rows.valid
        _enough(int(at.sum()), "samples")
        values = [value for value, given in zip(rows.columns[self.column], at, strict=True) if given]
        kind: Any = self.kind
        found = column_information(rows.features()[at], values, self.column, rows.table, kind)
        return {name: rows.fill(scores, at) for name, scores in found.items()}


@dataclass(frozen=True)
class NegClip:
    """temperature: the one that the encoder was trained with; batch: candidates of each; repeats, seed: divisions."""

    temperature: float = 0.01
    batch: int = 32_768
    repeats: int = 5
    seed: int = 0

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return s0, s1 and PVI of the contrastive family, and the partition term."""
        from curate.scoring.infonce import contrastive_information

        _, text, at = rows.pairs()
        if not rows.shared:
            raise UsageError(
                "negclip needs image and caption embeddings in one space (an open_clip encoder); vinfo does without"
            )
        _enough(int(at.sum()), "pairs")
        found = contrastive_information(
            rows.images()[at], text[at], self.temperature, self.batch, self.repeats, self.seed
        )
        return {name: rows.fill(values, at) for name, values in found.items()}


@dataclass(frozen=True)
class Alignment:
    """Cosine in the encoders' own space, or with the caption that the image predicts."""

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the cosine of each pair."""
        image, text, at = rows.pairs()
        if rows.shared:
            return {"align": rows.fill(_cosine(rows.images()[at], text[at]), at)}
        _enough(int((at & rows.counted).sum()), "pairs")
        return {"align": rows.fill(_predicted_cosine(image[at], text[at], rows.counted[at]), at)}

    def in_parts(self, over: Over) -> InParts:
        """Return the score fitted over all parts."""
        if over.whole.shared:
            return InParts(_shared_cosine, None, ("align",))
        sums, masks = merged(over.each(pair_sums))
        _enough(counted_in(masks), "pairs")
        assert sums.pairs is not None
        return InParts(partial(_cosine_part, _Prediction(sums.pairs)), None, ("align",))


def _cosine(x: F32, y: F32) -> F32:
    cosine: F32 = np.einsum("ij,ij->i", unit_rows(x), unit_rows(y))
    return cosine


def _predicted_cosine(image: F32, text: F32, counted: B1) -> F32:
    """Return the cosine of centred captions and their ridge predictions, leave-one-out where counted."""
    sums = PairMoments.zeros(image.shape[1], text.shape[1])
    for low in range(0, image.shape[0], _TILE):
        part = slice(low, low + _TILE)
        sums.add(image[part][counted[part]], text[part][counted[part]])
    return _Prediction(sums).cosine(image, text, counted)


class _Prediction:
    """Ridge regression of captions on images, from their sums."""

    def __init__(self, sums: PairMoments) -> None:
        from scipy.linalg import cho_factor, cho_solve

        self._n, p = sums.n, sums.x.shape[0]
        self._centre, self._mean = sums.x / sums.n, sums.y / sums.n
        gram = sums.xx - sums.n * np.outer(self._centre, self._centre)
        floor = 1e-12 * max(float(np.trace(sums.xx)) / p, 1.0)  # images that do not vary predict the mean
        self._factor = cho_factor(gram + max(0.1 * float(np.trace(gram)) / p, floor) * np.eye(p))
        self._weight = cho_solve(self._factor, sums.xy - sums.n * np.outer(self._centre, self._mean))

    def cosine(self, image: F32, text: F32, counted: B1) -> F32:
        """Return the cosine of each centred caption (m, t) and its prediction, leave-one-out where counted."""
        from scipy.linalg import cho_solve

        out = np.empty(image.shape[0], dtype=np.float32)
        for low in range(0, image.shape[0], _TILE):
            part = slice(low, low + _TILE)
            x, y = image[part] - self._centre, text[part] - self._mean
            leverage = 1 / self._n + np.einsum("ij,ji->i", x, cho_solve(self._factor, x.T))
            held = np.where(counted[part], np.minimum(leverage, 1 - 1e-9), 0.0)[:, None]
            guess = (x @ self._weight - held * y) / (1 - held)  # y - (y - guess) / (1 - h)
            guess += np.where(held > 0, y / (self._n - 1), 0.0)  # from the others' mean; y only grows by n / (n - 1)
            out[part] = _cosine(guess.astype(np.float32), y.astype(np.float32))
        return out


def _shared_cosine(rows: Rows, _: Extra) -> dict[str, F32]:
    text, at = rows.pairs()[1:]
    return {"align": rows.fill(_cosine(rows.images()[at], text[at]), at)}


def _cosine_part(prediction: _Prediction, rows: Rows, _: Extra) -> dict[str, F32]:
    image, text, at = rows.pairs()
    return {"align": rows.fill(prediction.cosine(image[at], text[at], rows.counted[at]), at)}
