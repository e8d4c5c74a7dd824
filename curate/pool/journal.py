"""The journal of decisions that were made on a page and are not yet written to the pool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.files import atomic_write
from curate.remote import Place

FOLDER = "reviews"


def journal(pool: Place) -> Path | None:
    """Return where the journal of a pool is; None for a pool that lies in a store."""
    return pool / FOLDER / "pending.jsonl" if isinstance(pool, Path) else None


def whole_lines(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (bytes up to its end, change) of every line until the first that is torn or no change."""
    end = 0
    for line in data.splitlines(keepends=True):
        end += len(line)
        try:
            change = json.loads(line)
        except ValueError:
            return
        if not line.endswith(b"\n") or not isinstance(change, dict):
            return
        yield end, change


def drop_from_journal(pool: Place, uids: set[str]) -> None:
    """Take every decision on these rows out of the journal: they are being taken down."""
    file = journal(pool)
    if file is None or not file.is_file():
        return
    left = []
    for _, change in whole_lines(file.read_bytes()):
        if "add" in change:
            change["add"] = [one for one in change["add"] if one.get("key") not in uids]
        left.append(json.dumps(change).encode() + b"\n")
    atomic_write(file, b"".join(left))
