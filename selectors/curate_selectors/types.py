"""What goes into a selector and what comes out. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from curate_kernels.arrays import B1, F32, F64, I64, U8


class Stage(IntEnum):
    """How far a row has come when the stream selector sees it."""

    FREE = 0  # may be admitted
    GATED = 1  # refused or held by the cleaning gate; told if it is a duplicate
    OUT = 2  # refused before it had an embedding


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch with what the engine found out about it (b rows, d and t dimensions).

    stage: (b,) uint8 `Stage`
    image: (b, d) float32 unit rows, zero where OUT; text: (b, t) float32 unit rows, zero where there is no caption
    has_text: (b,) bool
    pixel: (b,) int64, equal numbers mean equal pixels, -1 unknown
    alike: (b, b) bool, perceptual hashes that are near
    luck: (b,) float64 Gumbel noise of each sample, for a bounded kept set
    kept_twin: (b,) int64, kept row that this one duplicates, -1 for none
    top_image, top_text: (b, k) float32, similarity to the k nearest kept, descending, -inf padding
    """

    stage: U8
    image: F32
    text: F32
    has_text: B1
    pixel: I64
    alike: B1
    luck: F64
    kept_twin: I64
    top_image: F32
    top_text: F32


@dataclass(frozen=True, slots=True)
class Decision:
    """What a stream selector decided.

    admitted: (b,) bool; batch_twin: (b,) int64, earlier row of the batch that this one duplicates, -1 for none
    gain, gain_image, gain_text: (b,) float32, NaN where there is none
    """

    admitted: B1
    batch_twin: I64
    gain: F32
    gain_image: F32
    gain_text: F32


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a subset selector chooses from (n candidates in a fixed order).

    x: (n, d) float32 unit rows, or None for methods that need no embeddings; text: (n, t), zero rows without a caption
    target: (m, d) float32 unit rows of what the subset shall serve, or None; target_label: (m,) int64, -1 unknown
    label, group: (n,) int64, -1 unknown, or None; captions: n texts, or None
    scores: named (n,) float32 columns
    """

    n: int
    x: F32 | None = None
    text: F32 | None = None
    target: F32 | None = None
    target_label: I64 | None = None
    label: I64 | None = None
    group: I64 | None = None
    captions: Sequence[str | None] | None = None
    scores: Mapping[str, F32] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen, best first; where the method is nested, every prefix is a valid smaller selection.

    index: (m,) int64 in pick order, unique; gain: (m,) float32, the method's own gain of each pick
    weight: (m,) float32 training multiplicity, 1 unless the method says otherwise
    probability: (m,) float32 chance with which the row was taken, 1 for a deterministic method
    """

    index: I64
    gain: F32
    weight: F32
    probability: F32

    def _repr_html_(self) -> str:
        """Return the first picks as a table, for notebooks."""
        columns = zip(self.index[:10].tolist(), self.gain.tolist(), self.weight.tolist(), strict=False)
        lines = "".join(f"<tr><td>{i}</td><td>{g:.4g}</td><td>{w:g}</td></tr>" for i, g, w in columns)
        head = f"<b>Selection</b> of {self.index.size:,}, best first"
        return f"{head}<table><tr><th>index</th><th>gain</th><th>weight</th></tr>{lines}</table>"


def among(data: Candidates, rows: I64) -> Candidates:
    """Return the candidates `rows`, in this order, repeats allowed."""
    part = {name: getattr(data, name) for name in ("x", "text", "label", "group")}
    return replace(
        data,
        n=len(rows),
        **{name: None if values is None else values[rows] for name, values in part.items()},
        captions=None if data.captions is None else [data.captions[i] for i in rows],
        scores={name: values[rows] for name, values in data.scores.items()},
    )
