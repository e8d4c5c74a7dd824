"""The columns of a pool's table, and embeddings out of Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curate_kernels.arrays import F32

if TYPE_CHECKING:
    import pyarrow as pa

STATE_PROPERTY = "curate.state"  # of a Lance transaction: the name of the engine state that it leads to
EVENT_PROPERTY = "curate.event"  # what the commit did, as JSON
VIEWS = ("image", "text")
PATCHES = "image_patches"  # column of patch tokens
CAPTIONS = "captions"  # folder of a pool: what captioners said, a cache
EMBEDDINGS = "embeddings"  # folder of a pool: rows that are computed and not committed yet
QUALITY = tuple(
    f"quality_{name}" for name in ("contrast", "sharpness", "brightness", "entropy", "colourfulness", "clipped")
)


def table_schema(image_dim: int) -> pa.Schema:
    """Return the columns of a pool's table. Scores are null where there is none, embeddings zero rows."""
    import pyarrow as pa

    text, f32 = pa.string(), pa.float32()
    scores = ["gain", "gain_image", "gain_text", "gain_arrival", *QUALITY, "pvi", "pvi_arrival"]
    scores += [f"{kind}_{view}" for view in ("text", "image", "label") for kind in ("s0", "s1", "pvi")]
    scores += ["s1_label_arrival"]
    columns: list[tuple[str, pa.DataType]] = [
        ("uid", text), ("row", pa.int64()), ("batch", pa.int32()),
        ("source", text), ("key", text), ("path", text), ("offset", pa.int64()), ("size", pa.int64()),
        ("sha256", text), ("pixel_hash", text), ("phash", text),
        ("width", pa.int32()), ("height", pa.int32()), ("format", text),
        ("caption", text), ("alternatives", pa.list_(text)), ("caption_original", text),
        ("label", text), ("label_original", text), ("mend_tried", pa.list_(text)), ("group", text), ("meta", text),
        ("decision", text), ("reason", text), ("detail", text), ("duplicate_of", text), ("history", text),
        ("embedded", pa.bool_()), ("counted", pa.bool_()), ("gain_kept", pa.int32()),
    ]  # fmt: skip
    columns += [(name, f32) for name in scores]
    columns.append(("image", pa.list_(pa.float16(), image_dim)))
    return pa.schema(columns)


def vectors(column: Any, dim: int) -> F32:
    """Return an Arrow fixed-size-list column of float16 as (n, dim) float32; null rows become zero rows."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if column.null_count:
        out = np.zeros((len(column), dim), dtype=np.float32)
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        out[valid] = column.drop_null().flatten().to_numpy().reshape(-1, dim)
        return out
    rows: F32 = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim).astype(np.float32)
    return rows
