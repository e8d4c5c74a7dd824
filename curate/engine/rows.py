"""A decided batch as the table that is committed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.engine.decisions import HOLD, Judged, append_history, history_entry
from curate.engine.gate import SCORE_COLUMNS, Gate
from curate.engine.prepare import Prepared
from curate.engine.state import State
from curate.pool import QUALITY, table_schema
from curate_kernels.arrays import F16, F32

if TYPE_CHECKING:
    import pyarrow as pa


def nullable(values: F32) -> pa.Array:
    """Return a float32 column with null where the value is NaN."""
    import pyarrow as pa

    return pa.array(values.astype(np.float32), mask=np.isnan(values))


def fixed_lists(rows: F16) -> pa.Array:
    """Return (n, d) float16 as an Arrow fixed-size-list column."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).ravel()), rows.shape[1])


def _told(batch: Sequence[Prepared]) -> dict[str, list[Any]]:
    """Return the columns that are what the source or the measures of quality say."""
    columns: dict[str, list[Any]] = {}
    for name in QUALITY:
        field = name.removeprefix("quality_")
        columns[name] = [getattr(p.quality, field) if p.quality else None for p in batch]
    for name in ("source", "key", "path", "offset", "size", "caption", "label", "group"):
        columns[name] = [getattr(p.arrival.sample, name) for p in batch]
    return columns


def batch_table(state: State, gate: Gate, judged: Judged, extra: Mapping[str, F16] | None = None) -> pa.Table:
    """Return the rows of a batch in the pool's schema, decisions, scores and embeddings included.

    state: as it was before the batch; extra: further columns of vectors (b, e) by name
    """
    import pyarrow as pa

    batch, rows, scores, outcomes = judged.batch, judged.rows, judged.scores, judged.outcomes()
    decision, samples = judged.decided.decision, [p.arrival.sample for p in judged.batch]
    histories = [
        history_entry(("batch", state.batches), outcome, scores, i, gate.thresholds(int(rows.label[i])))
        for i, outcome in enumerate(outcomes)
    ]
    held = np.array([verdict == HOLD for verdict, _ in outcomes], dtype=np.bool_)
    columns: dict[str, Any] = {
        "uid": [p.arrival.uid for p in batch],
        "row": np.arange(state.rows, state.rows + len(batch)),
        "batch": np.full(len(batch), state.batches, dtype=np.int32),
        "sha256": [p.arrival.sha256 for p in batch],
        "pixel_hash": [p.pixel_hash for p in batch],
        "phash": [p.phash or None for p in batch],
        "width": [p.width for p in batch],
        "height": [p.height for p in batch],
        "format": [p.format for p in batch],
        "alternatives": [list(s.alternatives) or None for s in samples],
        "caption_original": [None] * len(batch),
        "label_original": [None] * len(batch),
        "mend_tried": [None] * len(batch),
        "meta": [json.dumps(dict(s.meta), sort_keys=True, ensure_ascii=False) for s in samples],
        "decision": [verdict for verdict, _ in outcomes],
        "reason": [reason for _, reason in outcomes],
        "detail": [detail for _, detail in judged.refusals],
        "duplicate_of": [twin or None for twin, _ in judged.decided.twins],
        "history": [append_history("[]", entry) for entry in histories],
        "embedded": judged.image.any(axis=1),
        "counted": judged.counted & (rows.has_text | (rows.label >= 0)),
        # A row that is held back meets the kept set at the checkpoint; against an empty one its gain would say nothing.
        "gain": nullable(np.where(held, np.nan, decision.gain)),
        "gain_arrival": nullable(np.where(held, np.nan, decision.gain)),
        "gain_kept": pa.array(judged.decided.kept, pa.int32(), mask=held),
        "gain_image": nullable(np.where(held, np.nan, decision.gain_image)),
        "gain_text": nullable(np.where(held, np.nan, decision.gain_text)),
        "pvi_arrival": nullable(scores["pvi"]),
        "s1_label_arrival": nullable(scores["s1_label"]),
        "image": fixed_lists(judged.image),
    }
    columns |= {name: nullable(scores[name]) for name in SCORE_COLUMNS} | _told(batch)
    schema = table_schema(state.image.dim)
    if state.text:
        columns["text"] = fixed_lists(judged.text)
        schema = schema.append(pa.field("text", pa.list_(pa.float16(), state.text.dim)))
    for name, vectors in (extra or {}).items():
        columns[name] = fixed_lists(vectors)
        schema = schema.append(pa.field(name, columns[name].type))
    return pa.table([pa.array(columns[f.name], type=f.type) for f in schema], schema=schema)
