"""The second half of a takedown: what was decided and marked is removed, however often the process is killed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from curate.files import atomic_write, canonical_json
from curate.pool.reader import Pool
from curate.remote import Place

if TYPE_CHECKING:
    from curate.pool.writer import Writer

MARK = "forgotten"  # the reason of rows that are to be removed
BAR, PENDING, RECEIPTS = "forgotten/bar.json", "forgotten/pending.json", "receipts"


def write_note(pool: Place, note: dict[str, Any]) -> None:
    """Write down what is about to be decided: the step of the deciding commit, hashes, and what will be gone."""
    (pool / PENDING).parent.mkdir(exist_ok=True)
    atomic_write(pool / PENDING, canonical_json(note))


def finish(writer: Writer) -> dict[str, Any] | None:
    """Remove what a takedown marked and write its receipt; return the receipt with its name, None if none is under way.

    A note whose deciding commit never came is dropped: nothing was decided.
    """
    path = writer.path / PENDING
    if not path.exists():
        return None
    note, pool = json.loads(path.read_text()), Pool.open(writer.path)
    state = pool.state()
    if state["step"] < note["step"]:
        path.unlink()
        return None
    atomic_write(writer.path / BAR, canonical_json(note["bar"]))
    labels = set(pool.frame(["label"], where=f"reason != '{MARK}'")["label"].to_list())
    state["classes"] = [name if name in labels else "" for name in state["classes"]]
    state["rows"] = pool.rows - pool.dataset.count_rows(filter=f"reason = '{MARK}'")
    state["step"] += 1
    purged = writer.purge(pool, f"reason = '{MARK}'", state)
    (writer.path / RECEIPTS).mkdir(exist_ok=True)
    name = f"{RECEIPTS}/{note['step']:08d}.json"
    receipt = {key: note[key] for key in ("forgotten", "versions", "tags", "past")} | {"rows": purged.rows}
    atomic_write(writer.path / name, canonical_json(receipt))
    path.unlink()
    return receipt | {"receipt": name, "refilled": note["refilled"]}
