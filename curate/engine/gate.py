"""The cleaning gates: scores of rows under the models of the last checkpoint, and the verdicts they lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from curate.scoring.calibrate import Threshold
from curate.scoring.labels import LABEL_COLUMNS, LabelModel
from curate.scoring.pairs import PAIR_COLUMNS, PairModel
from curate_kernels.arrays import B1, F32, I64

SCORE_COLUMNS = (*PAIR_COLUMNS, "pvi", *LABEL_COLUMNS)
HELD = "warmup"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to score: image (b, p) features, text (b, t), has_text (b,) bool, label (b,) int64 or -1."""

    image: F32
    text: F32
    has_text: B1
    label: I64


@dataclass(slots=True)
class Gate:
    """Models and thresholds; each is None (or empty) where there is too little to judge by.

    warming: captioned rows are held back because the caption model is not fitted yet
    judge_captions, judge_labels: whether scores lead to refusals at all
    """

    pairs: PairModel | None = None
    caption: Threshold | None = None
    labels: LabelModel | None = None
    classes: Mapping[int, Threshold] = field(default_factory=dict)
    warming: bool = False
    judge_captions: bool = True
    judge_labels: bool = True

    def score(self, rows: Rows, seen: B1, place: I64 | None = None) -> dict[str, F32]:
        """Return every score column (b,) float32 in bits, NaN where there is none.

        seen: (b,) bool, rows that are in the models' sums; they get exact leave-one-out scores
        place: (b,) int64, which of the rows that vote on labels has no vote on this one (itself), -1 for none
        """
        out = {name: np.full(rows.label.shape[0], np.nan, dtype=np.float32) for name in SCORE_COLUMNS}
        if self.pairs is not None and rows.has_text.any():
            at = rows.has_text
            x, y = self.pairs.project(rows.image[at], rows.text[at])
            for name, values in self.pairs.score(x, y, seen[at]).items():
                out[name][at] = values
        if self.labels is not None:
            known = self.labels.count >= 1
            at = (rows.label >= 0) & (rows.label < known.shape[0])
            at[at] = known[rows.label[at]]
            if at.any():
                z = self.labels.project(rows.image[at])
                own = None if place is None else place[at]
                for name, values in self.labels.score(z, rows.label[at], seen[at], own).items():
                    out[name][at] = values
        return out

    def verdicts(self, rows: Rows, scores: Mapping[str, F32]) -> list[str]:
        """Return each row's refusal reason: `caption_mismatch`, `label_noise`, HELD while warming up, or ""."""
        out = [""] * rows.label.shape[0]
        for i in range(len(out)):
            asked = bool(rows.has_text[i]) and self.judge_captions
            if asked and self.warming:
                out[i] = HELD
            elif asked and self.caption is not None and scores["pvi"][i] < self.caption.value:
                out[i] = "caption_mismatch"
            elif self._mislabelled(int(rows.label[i]), float(scores["s1_label"][i])):
                out[i] = "label_noise"
        return out

    def _mislabelled(self, label: int, s1: float) -> bool:
        threshold = self.classes.get(label)
        return self.judge_labels and threshold is not None and -s1 < threshold.value

    def thresholds(self, label: int) -> dict[str, float]:
        """Return the thresholds that a row of this label was judged by: {"pvi": …, "s1_label": …} in bits."""
        out = {}
        if self.caption is not None:
            out["pvi"] = round(self.caption.value, 4)
        if label in self.classes:
            out["s1_label"] = round(-self.classes[label].value, 4)
        return out
