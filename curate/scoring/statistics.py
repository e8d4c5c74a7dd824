"""All sums of a collection in one object: they add batch by batch, merge across workers, and subtract on a takedown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from curate.errors import UsageError
from curate.files import atomic_write
from curate.scoring.moments import ClassMoments, PairMoments
from curate.scoring.race import Race
from curate_kernels.arrays import B1, F32, I64

PARTS = ("rows", "pairs", "labels", "race")
_LOAD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "rows": PairMoments.from_arrays,
    "pairs": PairMoments.from_arrays,
    "labels": ClassMoments.from_arrays,
    "race": Race.from_arrays,
}


@dataclass(slots=True)
class Statistics:
    """Sums in float64; each part over the rows that have what it needs, None until there is one.

    rows: n, Σx, Σxxᵀ of all rows (pair sums with a view of 0 dimensions)
    pairs: n, Σx, Σy, Σxxᵀ, Σxyᵀ, Σyyᵀ of the rows with a caption
    labels: per-class counts and Σx, and Σxxᵀ, of the rows with a label
    race: counters of hash codes of all rows; given at the start, or not kept
    keep: the parts that `update` makes
    """

    rows: PairMoments | None = None
    pairs: PairMoments | None = None
    labels: ClassMoments | None = None
    race: Race | None = None
    keep: tuple[str, ...] = PARTS

    def update(
        self,
        image: F32,
        text: F32 | None = None,
        has_text: B1 | None = None,
        label: I64 | None = None,
        classes: int = 0,
        sign: float = 1.0,
    ) -> tuple[int, int]:
        """Add rows, or with sign -1 take them out; return how many pairs and how many labelled rows they held.

        image: (m, p), text: (m, t) float32; has_text: (m,) bool, all where it is not given; label: (m,) int64, -1
        where there is none; classes: number of classes known so far, if more than these labels show
        """
        if "rows" in self.keep and image.shape[0]:
            self.rows = self.rows or PairMoments.zeros(image.shape[1], 0)
            self.rows.add(image, image[:, :0], sign)
        if self.race is not None and "race" in self.keep:
            self.race.add(image, sign)
        paired = labelled = 0
        if text is not None and "pairs" in self.keep:
            at = np.ones(image.shape[0], dtype=np.bool_) if has_text is None else has_text
            paired = int(at.sum())
            if paired:
                self.pairs = self.pairs or PairMoments.zeros(image.shape[1], text.shape[1])
                self.pairs.add(image[at], text[at], sign)
        if label is not None and "labels" in self.keep:
            at = label >= 0
            labelled = int(at.sum())
            if labelled:
                self.labels = self.labels or ClassMoments.zeros(image.shape[1])
                self.labels.add(image[at], label[at], max(classes, int(label.max()) + 1), sign)
        return paired, labelled

    def merge(self, other: Statistics) -> None:
        """Add another's sums, over the same numbering of classes. A part that only the other has becomes a copy."""
        for name in PARTS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is not None and theirs is not None:
                mine.merge(theirs)
            elif theirs is not None:
                setattr(self, name, _LOAD[name](theirs.arrays()))

    def subtract(self, other: Statistics) -> None:
        """Take another's sums out, as if its rows had never been seen.

        Raises UsageError when the other has a part that this one lacks: its rows cannot be in here.
        """
        for name in PARTS:
            mine, theirs = getattr(self, name), getattr(other, name)
            if theirs is not None:
                if mine is None:
                    raise UsageError(f"sums of {name} cannot be taken out of statistics that have none")
                negative = {key: -value if key not in _FIXED else value for key, value in theirs.arrays().items()}
                mine.merge(_LOAD[name](negative))

    def arrays(self) -> dict[str, Any]:
        """Return every sum as `part.name`, to be saved."""
        parts = {name: getattr(self, name) for name in PARTS}
        return {
            f"{name}.{key}": value
            for name, part in parts.items()
            if part is not None
            for key, value in part.arrays().items()
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """Return the statistics that `arrays()` gave."""
        parts: dict[str, dict[str, Any]] = {}
        for name, value in arrays.items():
            part, _, key = name.partition(".")
            parts.setdefault(part, {})[key] = value
        return cls(**{part: _LOAD[part](named) for part, named in parts.items()})

    def save(self, path: str | Path) -> None:
        """Write every sum to a safetensors file, whole or not at all."""
        from safetensors.numpy import save

        atomic_write(Path(path), save({name: np.asarray(value, order="C") for name, value in self.arrays().items()}))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the statistics that `save` wrote. Raises UsageError when the file is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return cls.from_arrays(load(Path(path).read_bytes()))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"statistics {path} cannot be read: {type(error).__name__}: {error}") from error


_FIXED = ("centre", "seed", "offset")  # of a sketch: how it hashes, not what it has seen
