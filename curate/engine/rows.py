"""A decided batch as the table that is committed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.engine.gate import SCORE_COLUMNS, Rows
from curate.pool import table_schema
from curate_kernels.arrays import B1, F16, F32

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.engine.core import Decided, Engine
    from curate.engine.prepare import Prepared


def nullable(values: F32) -> pa.Array:
    """Return a float32 column with null where the value is NaN."""
    import pyarrow as pa

    return pa.array(values.astype(np.float32), mask=np.isnan(values))


def fixed_lists(rows: F16) -> pa.Array:
    """Return (n, d) float16 as an Arrow fixed-size-list column."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).ravel()), rows.shape[1])


def batch_table(
    engine: Engine,
    batch: Sequence[Prepared],
    image: F16,
    text: F16,
    rows: Rows,
    scores: dict[str, F32],
    decided: Decided,
    outcomes: Sequence[tuple[str, str]],
    refusals: Sequence[tuple[str, str]],
    usable: B1,
    counted: B1,
) -> pa.Table:
    """Return the rows of a batch in the pool's schema, decisions, scores and embeddings included."""
    import pyarrow as pa

    from curate.engine.core import arrival_history

    state, samples = engine.state, [p.arrival.sample for p in batch]
    columns: dict[str, Any] = {
        "uid": [p.arrival.uid for p in batch],
        "row": np.arange(state.rows, state.rows + len(batch)),
        "batch": np.full(len(batch), state.batches, dtype=np.int32),
        "sha256": [p.arrival.sha256 for p in batch],
        "pixel_hash": [p.pixel_hash for p in batch],
        "width": [p.width for p in batch],
        "height": [p.height for p in batch],
        "format": [p.format for p in batch],
        "caption_original": [None] * len(batch),
        "meta": [json.dumps(dict(s.meta), sort_keys=True, ensure_ascii=False) for s in samples],
        "decision": [decision for decision, _ in outcomes],
        "reason": [reason for _, reason in outcomes],
        "detail": [detail for _, detail in refusals],
        "duplicate_of": [twin or None for twin, _ in decided.twins],
        "history": [
            arrival_history(outcomes[i], scores, engine.gate.thresholds(int(rows.label[i])), i, state.batches)
            for i in range(len(batch))
        ],
        "embedded": image.any(axis=1),
        "counted": counted & (rows.has_text | (rows.label >= 0)),
        "gain": nullable(decided.decision.gain),
        "gain_image": nullable(decided.decision.gain_image),
        "gain_text": nullable(decided.decision.gain_text),
        "quality_contrast": [p.quality.contrast if p.quality else None for p in batch],
        "quality_sharpness": [p.quality.sharpness if p.quality else None for p in batch],
        "pvi_arrival": nullable(scores["pvi"]),
        "s1_label_arrival": nullable(scores["s1_label"]),
        "image": fixed_lists(image),
    }
    columns |= {name: nullable(scores[name]) for name in SCORE_COLUMNS}
    columns |= {n: [getattr(s, n) for s in samples] for n in ("source", "key", "path", "offset", "size", "caption", "label", "group")}
    schema = table_schema(state.image.dim)
    if text.shape[1]:
        columns["text"] = fixed_lists(text)
        schema = schema.append(pa.field("text", pa.list_(pa.float16(), text.shape[1])))
    return pa.table([pa.array(columns[f.name], type=f.type) for f in schema], schema=schema)
