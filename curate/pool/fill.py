"""Vectors that are added to rows which a pool has long: fragment by fragment, each a commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.files import canonical_json
from curate.pool.operations import of_parts, written
from curate.pool.reader import Pool
from curate.pool.schema import EVENT_PROPERTY
from curate.pool.trouble import trouble
from curate_kernels.arrays import F16

if TYPE_CHECKING:
    from curate.pool.writer import Writer


def fragments(pool: Pool) -> list[int]:
    """Return the numbers of a pool's fragments, in order."""
    with trouble(pool.path, "read"):
        return [fragment.fragment_id for fragment in pool.dataset.get_fragments()]


def unfilled(pool: Pool, fragment: int, name: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the `columns` of a fragment's embedded rows whose vector `name` is null."""
    with trouble(pool.path, "read"):
        part = pool.dataset.get_fragment(fragment)
        rows = part.to_table(columns=list(columns), filter=f"embedded AND {name} IS NULL")
        return list(rows.to_pylist())


def fill(writer: Writer, pool: Pool, fragment: int, name: str, rows: Mapping[str, F16]) -> Pool:
    """Commit vectors of a fragment's rows, {uid: (d,) float16}; the others keep theirs. Changes no statistics."""
    return commit(writer, pool, name, len(rows), [rewritten(pool, fragment, name, rows)])


def rewritten(pool: Pool, fragment: int, name: str, rows: Mapping[str, F16]) -> str:
    """Write a fragment's column with these rows' vectors anew; return the fragment as `commit` wants it.

    Nothing is committed: until it is, and if it never is, the file lies in the pool's folder and nobody reads it.
    """
    import pyarrow as pa

    with trouble(pool.path, "written"):
        part = pool.dataset.get_fragment(fragment)
        old = part.to_table(columns=["uid", name])
        uids = old.column("uid").to_pylist()
        dim = pool.dataset.schema.field(name).type.list_size
        new = np.array([rows[uid] for uid in uids if uid in rows], dtype=np.float16).reshape(-1, dim)
        order = np.arange(len(uids))
        order[[uid in rows for uid in uids]] = len(uids) + np.arange(len(new))
        column = pa.FixedSizeListArray.from_arrays(pa.array(new.ravel()), dim)
        merged = pa.chunked_array([*old.column(name).chunks, column]).take(pa.array(order))
        return written(part, pa.table({"uid": uids, name: merged}))


def commit(writer: Writer, pool: Pool, name: str, rows: int, parts: Sequence[str]) -> Pool:
    """Commit fragments that `rewritten` gave, of any version since which nothing but such commits came."""
    with trouble(writer.path, "written"):
        event = canonical_json({"what": "embedded", "columns": [name], "rows": rows}).decode()
        return writer.commit(pool, of_parts(parts), {EVENT_PROPERTY: event})
