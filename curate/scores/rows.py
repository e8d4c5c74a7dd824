"""What a score reads: embeddings, captions, labels, metadata and pixels of n samples, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curate.errors import UsageError
from curate.recipe import ScoreTable
from curate_kernels.arrays import B1, F32, I64, U8

_TILE = 8192  # rows


@dataclass(frozen=True, slots=True)
class Rows:
    """n samples. Parts that a score does not need may be missing.

    image: (n, d), text: (n, t) float32 unit rows, zero where there is none
    caption: n strings or None; label: (n,) int64 numbers of `classes`, -1 where there is none
    valid: (n,) bool, rows with an image embedding: the others get no score
    kept: (n,) bool, rows that density and diversity are measured against
    counted: (n,) bool, rows that models are fitted on; no duplicates among them
    shared: both embeddings lie in one space, as CLIP's do
    table: dimensions of the V-information families; columns: other values by name
    target: samples like those that are wanted; pixels: decodes every image anew, None where it does not decode
    text_encoder: of the image embeddings' space, for prompts
    rooted: whether models read square roots, where these rows are a part of those that decide it; else None
    """

    n: int
    image: F32 | None = None
    text: F32 | None = None
    caption: Sequence[str | None] | None = None
    label: I64 | None = None
    classes: Sequence[str] = ()
    valid: B1 = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    kept: B1 = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    counted: B1 = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    shared: bool = False
    table: ScoreTable = field(default_factory=ScoreTable)
    columns: dict[str, Sequence[Any]] = field(default_factory=dict)
    target: Rows | None = None
    pixels: Callable[[], Iterator[U8 | None]] | None = None
    text_encoder: Callable[[], Any] | None = None
    rooted: bool | None = None

    def images(self) -> F32:
        """Return the image embeddings. Raises UsageError when there are none."""
        if self.image is None:
            raise UsageError("this score needs image embeddings, and there are none")
        return self.image

    def features(self) -> F32:
        """Return what the models read: square roots of non-negative features (Hellinger map), else the rows."""
        image = self.images()
        rooted = bool(image.size and image.min() >= 0) if self.rooted is None else self.rooted
        return np.sqrt(image) if rooted else image

    def pairs(self) -> tuple[F32, F32, B1]:
        """Return image features, caption embeddings, and which rows have both."""
        if self.text is None:
            raise UsageError("this score needs captions and their embeddings, and there are none")
        return self.features(), self.text, self.valid & self.text.any(axis=1)

    def labelled(self) -> tuple[I64, B1]:
        """Return the labels, and which rows have one and an image embedding."""
        if self.label is None or not (self.label >= 0).any():
            raise UsageError("this score needs labels, and there are none; `curate grow --label COLUMN` reads them")
        return self.label, self.valid & (self.label >= 0)

    def captions(self) -> Sequence[str | None]:
        """Return the captions. Raises UsageError when there are none."""
        if self.caption is None:
            raise UsageError("this score needs captions, and there are none")
        return self.caption

    def wanted(self) -> Rows:
        """Return the target samples. Raises UsageError when none were given."""
        if self.target is None:
            raise UsageError("this score compares with a target set; give one (--target POOL or --target FILE.npy)")
        if not self.target.n:
            raise UsageError("the target set holds no embedding; give one with samples like those that are wanted")
        if self.target.images().shape[1] != self.images().shape[1]:
            raise UsageError(
                f"the target has {self.target.images().shape[1]} dimensions, the samples {self.images().shape[1]};"
                " embed both with the same encoder"
            )
        return self.target

    def fill(self, values: Any, at: B1) -> F32:
        """Return values of the rows `at` as a column (n,) float32, NaN elsewhere."""
        out = np.full(self.n, np.nan, dtype=np.float32)
        out[at] = values
        return out


def target_rows(image: F32, label: I64 | None = None) -> Rows:
    """Return a target set: those rows of image (m, d), of norm 1 or 0, that are embeddings, with their labels (m,)."""
    at = image.any(axis=1)
    n = int(at.sum())
    return Rows(n=n, image=image[at], label=None if label is None else label[at], valid=np.ones(n, dtype=np.bool_))


def tiles(at: B1) -> Iterator[I64]:
    """Yield the numbers of the rows `at`, a few thousand together: what is computed of them stays small."""
    places = np.flatnonzero(at)
    return (places[low : low + _TILE] for low in range(0, places.size, _TILE))


def by_tile(at: B1, score: Callable[[I64], dict[str, Any]]) -> dict[str, F32]:
    """Return the columns (n,) of what `score` makes of the rows `at`, by their numbers, tile by tile; NaN elsewhere."""
    columns: dict[str, F32] = {}
    for part in tiles(at):
        for name, values in score(part).items():
            columns.setdefault(name, np.full(at.size, np.nan, dtype=np.float32))[part] = values
    return columns
