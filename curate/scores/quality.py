"""What images and captions look like, without a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import ClassVar

import numpy as np

from curate.cleaning import Quality, aspect, measure
from curate.errors import UsageError
from curate.scores.rows import Rows
from curate.scoring.captions import CaptionCounts, caption_scores
from curate_kernels.arrays import F32


@dataclass(frozen=True)
class Captions:
    """Length, repetition, non-text, capitals, and how many captions are the same but for digits."""

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the caption columns; NaN where there is no caption."""
        captions = rows.captions()
        at = np.array([caption is not None for caption in captions], dtype=np.bool_)
        counts = CaptionCounts()
        counts.add(captions)
        columns: dict[str, F32] = caption_scores(captions)
        columns["caption_shared"] = counts.shared(captions).astype(np.float32)
        return {name: rows.fill(values[at], at) for name, values in columns.items()}


@dataclass(frozen=True)
class ImageQuality:
    """Decodes every image where it lies."""

    by_row: ClassVar[bool] = True

    def compute(self, rows: Rows) -> dict[str, F32]:
        """Return the quality columns; NaN where an image does not decode."""
        if rows.pixels is None:
            raise UsageError("quality needs the images, and only embeddings were given")
        names = (*(f.name for f in fields(Quality)), "aspect")
        found = {f"quality_{name}": np.full(rows.n, np.nan, dtype=np.float32) for name in names}
        for i, pixels in enumerate(rows.pixels()):
            if pixels is None:
                continue
            values = asdict(measure(pixels)) | {"aspect": aspect(pixels.shape[1], pixels.shape[0])}
            for name, value in values.items():
                found[f"quality_{name}"][i] = value
        return found
