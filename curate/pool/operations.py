"""What a commit does to a pool's table, as Lance's operations: made of new files, in force once they are committed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate_kernels.arrays import I64

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.pool.reader import Pool


def rewritten(pool: Pool, changes: pa.Table, some: Sequence[tuple[I64, pa.Table]] = ()) -> Any:
    """Return the Lance operation that replaces columns of every row, and others of some, fragment by fragment."""
    at = 0
    parts = []
    for fragment in pool.dataset.get_fragments():
        count = fragment.count_rows()
        part = changes.slice(at, count)
        for rows, table in some:
            part = _with_some(part, fragment, rows - at, table)
        at += count
        parts.append(written(fragment, part))
    return of_parts(parts)


def written(fragment: Any, columns: pa.Table) -> str:
    """Write columns of a Lance fragment anew, by `uid`; return, as JSON, what `of_parts` takes. Commits nothing."""
    updated, fields = fragment.update_columns(columns, left_on="uid", right_on="uid")
    return json.dumps({"fragment": updated.to_json(), "fields": sorted(fields)})


def of_parts(parts: Sequence[str]) -> Any:
    """Return the Lance operation that puts fragments, which `written` gave anywhere, in the place of the old ones."""
    import lance

    told = [json.loads(part) for part in parts]
    return lance.LanceOperation.Update(
        updated_fragments=[lance.FragmentMetadata.from_json(json.dumps(part["fragment"])) for part in told],
        fields_modified=sorted({field for part in told for field in part["fields"]}),
        update_mode="rewrite_columns",
    )


def without(pool: Pool, where: str) -> Any:
    """Return the Lance operation that removes rows and numbers the others anew. It holds no word of the filter."""
    import lance
    import pyarrow as pa

    gone = set(pool.frame(["uid"], where=where)["uid"].to_list())
    next_row = 0
    fragments, empty, modified = [], [], set()
    for fragment in pool.dataset.get_fragments():
        uids = fragment.to_table(columns=["uid"]).column("uid").to_pylist()
        left = fragment.delete(where)
        if left is None:
            empty.append(fragment.fragment_id)
            continue
        stays = np.array([uid not in gone for uid in uids])
        rows = np.where(stays, next_row + np.cumsum(stays) - 1, -1)
        next_row += int(stays.sum())
        numbered = pa.table({"uid": pa.array(uids, pa.string()), "row": pa.array(rows, pa.int64())})
        updated, fields = fragment.update_columns(numbered, left_on="uid", right_on="uid")
        updated.deletion_file = left.deletion_file
        fragments.append(updated)
        modified.update(fields)
    return lance.LanceOperation.Update(
        removed_fragment_ids=empty,
        updated_fragments=fragments,
        fields_modified=sorted(modified),
        update_mode="rewrite_columns",
    )


def _with_some(part: pa.Table, fragment: Any, rows: I64, table: pa.Table) -> pa.Table:
    """Return a fragment's changes with further columns: as they are, but for `rows`, counted from its first row."""
    import pyarrow as pa

    mine = np.flatnonzero((rows >= 0) & (rows < part.num_rows))
    if not mine.size:
        return part
    old = fragment.to_table(columns=table.column_names)
    order = np.arange(part.num_rows)
    order[rows[mine]] = part.num_rows + mine
    new = pa.concat_tables([old, table.cast(old.schema)]).take(pa.array(order))
    for name in table.column_names:
        part = part.append_column(new.schema.field(name), new.column(name))
    return part
