"""The second half of a takedown: what was decided and marked is removed, however often the process is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.errors import PoolError
from curate.files import atomic_write, canonical_json, sealed, unsealed
from curate.pool.reader import Pool
from curate.pool.trouble import trouble
from curate.remote import Place, listed

if TYPE_CHECKING:
    from curate.pool.writer import Writer

MARK = "forgotten"  # the reason of rows that are to be removed
BAR, PENDING, RECEIPTS = "forgotten/bar.json", "forgotten/pending.json", "receipts"


def write_note(pool: Place, note: dict[str, Any]) -> None:
    """Write down what is about to be decided: the step of the deciding commit, hashes, and what will be gone."""
    with trouble(pool, "written"):
        (pool / PENDING).parent.mkdir(exist_ok=True)
        atomic_write(pool / PENDING, sealed(note))


def read_bar(pool: Place) -> dict[str, Any]:
    """Return {"salt", "hashes"} of what must not come back. Raises PoolError when the list is damaged or missing."""
    if (pool / BAR).exists():
        todo = "restore it from a backup; while it is lost, what was taken down could come back"
        return dict(_read(pool / BAR, "list of what was taken down", todo))
    if listed(pool / RECEIPTS, ".json"):
        raise PoolError(f"{pool / BAR} is missing, and {pool / RECEIPTS} tells of takedowns: restore it from a backup")
    return {"salt": "", "hashes": []}


def _read(path: Place, what: str, todo: str) -> Any:
    try:
        return unsealed(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PoolError(f"the {what}, {path}, is damaged: {error}; {todo}") from error


def finish(writer: Writer) -> dict[str, Any] | None:
    """Remove what a takedown marked and write its receipt; return the receipt with its name, None if none is under way.

    A note whose deciding commit never came is dropped: nothing was decided.
    """
    with trouble(writer.path, "written"):
        for folder in (writer.path / PENDING).parent, writer.path / RECEIPTS:
            for unfinished in listed(folder):
                if unfinished.name.startswith("."):
                    unfinished.unlink()
        if not (writer.path / PENDING).exists():
            return None
        return _finish(writer)


def _finish(writer: Writer) -> dict[str, Any] | None:
    path = writer.path / PENDING
    todo = "move it away, and run the `curate forget` that was interrupted again"
    note, pool = _read(path, "note of a takedown under way", todo), Pool.open(writer.path)
    state = pool.state()
    if state["step"] < note["step"]:
        path.unlink()
        return None
    atomic_write(writer.path / BAR, sealed(note["bar"]))
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
