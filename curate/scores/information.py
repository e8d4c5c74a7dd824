"""V-information scores: of captions, labels, metadata columns, and of the embedding's own parts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.errors import UsageError
from curate.scores.rows import Rows
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


@dataclass(frozen=True)
class Information:
    """trims: how often the pairs with negative PVI are taken out of the sums and everything is fitted again."""

    trims: int = 1

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the caption columns where there are captions, the label columns where there are labels."""
        fit = rows.valid & rows.counted
        pairs = 0 if rows.text is None else int((fit & rows.text.any(axis=1)).sum())
        labelled = 0 if rows.label is None else int((fit & (rows.label >= 0)).sum())
        if not pairs and not labelled:
            raise UsageError("vinfo needs captions or labels; vinfo-self needs neither")
        _enough(max(pairs, labelled), "pairs or labelled samples")
        columns: dict[str, F32] = {}
        for count, what, part in ((pairs, "pairs", self._pairs), (labelled, "labelled samples", self._labels)):
            if count >= _MIN_ROWS:
                columns |= part(rows)
            elif count:  # a few labels among many captions do not stop the captions
                log.warning("vinfo: %d %s are not scored; at least %d are needed", count, what, _MIN_ROWS)
        return columns

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


def _cosine(x: F32, y: F32) -> F32:
    cosine: F32 = np.einsum("ij,ij->i", unit_rows(x), unit_rows(y))
    return cosine


def _predicted_cosine(image: F32, text: F32, counted: B1) -> F32:
    """Return the cosine of centred captions and their ridge predictions, leave-one-out where counted."""
    from scipy.linalg import cho_factor, cho_solve

    sums = PairMoments.zeros(image.shape[1], text.shape[1])
    for low in range(0, image.shape[0], _TILE):
        part = slice(low, low + _TILE)
        sums.add(image[part][counted[part]], text[part][counted[part]])
    n, p = sums.n, image.shape[1]
    centre, mean = sums.x / n, sums.y / n
    gram = sums.xx - n * np.outer(centre, centre)
    floor = 1e-12 * max(float(np.trace(sums.xx)) / p, 1.0)  # images that do not vary predict the mean
    factor = cho_factor(gram + max(0.1 * float(np.trace(gram)) / p, floor) * np.eye(p))
    weight = cho_solve(factor, sums.xy - n * np.outer(centre, mean))
    out = np.empty(image.shape[0], dtype=np.float32)
    for low in range(0, image.shape[0], _TILE):
        part = slice(low, low + _TILE)
        x, y = image[part] - centre, text[part] - mean
        leverage = 1 / n + np.einsum("ij,ji->i", x, cho_solve(factor, x.T))
        held = np.where(counted[part], np.minimum(leverage, 1 - 1e-9), 0.0)[:, None]
        guess = (x @ weight - held * y) / (1 - held)  # y - (y - guess) / (1 - h)
        guess += np.where(held > 0, y / (n - 1), 0.0)  # from the mean of the others; y only grows by n / (n - 1)
        out[part] = _cosine(guess.astype(np.float32), y.astype(np.float32))
    return out
