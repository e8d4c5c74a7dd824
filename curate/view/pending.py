"""Decisions made on the page and not yet written to the pool: a journal that outlives the server."""

from __future__ import annotations

import json
import os
from typing import Any

from filelock import FileLock, Timeout

from curate.errors import PoolLockedError
from curate.pool.journal import journal, whole_lines
from curate.remote import Place

Decision = dict[str, Any]


class Pending:
    """What a reviewer decided, by uid, in order, each with what it replaced, so that it can be undone.

    A decision is {"key": uid, "action", "label"}; a label and a verdict on the same sample stand beside each other.
    Every change is appended to the journal of the pool and flushed, where the pool lies on disk.

    Raises PoolLockedError while another page of the same pool is open.
    """

    def __init__(self, pool: Place) -> None:
        self._file = journal(pool)
        self.decisions: dict[str, Decision] = {}
        self._past: list[list[tuple[str, Decision | None]]] = []
        if self._file is None:
            return
        self._file.parent.mkdir(exist_ok=True)
        self._lock = FileLock(self._file.with_suffix(".lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise PoolLockedError(f"another page of the pool at {pool} is open; close it first") from None
        whole = 0
        data = self._file.read_bytes() if self._file.is_file() else b""
        for end, change in whole_lines(data):
            try:
                self._apply(change)
            except (LookupError, TypeError, AttributeError):
                break
            whole = end
        if whole < len(data):  # the process was killed while it wrote
            os.truncate(self._file, whole)

    def close(self) -> None:
        """Let another page open the pool."""
        if self._file is not None:
            self._lock.release()

    def add(self, decisions: list[Decision]) -> None:
        """Take decisions; together they are one step of undo."""
        self._record({"add": decisions})

    def undo(self) -> list[str]:
        """Take the last step back; return the uids that it was about."""
        if not self._past:
            return []
        uids = [uid for uid, _ in self._past[-1]]
        self._record({"undo": True})
        return uids

    def clear(self) -> None:
        """Forget everything: it is in the pool now."""
        self.decisions.clear()
        self._past.clear()
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def _record(self, change: dict[str, Any]) -> None:
        if self._file is not None:
            with self._file.open("ab") as file:
                start = file.tell()
                try:
                    file.write(json.dumps(change).encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.truncate(self._file, start)
                    raise
        self._apply(change)

    def _apply(self, change: dict[str, Any]) -> None:
        if change.get("undo"):
            for uid, before in reversed(self._past.pop()):
                self._put(uid, before)
            return
        step = []
        for decision in change["add"]:
            before = self.decisions.get(decision["key"])
            step.append((decision["key"], before))
            self._put(decision["key"], _together(before, decision))
        self._past.append(step)

    def _put(self, uid: str, decision: Decision | None) -> None:
        if decision is None:
            self.decisions.pop(uid, None)
        else:
            self.decisions[uid] = decision


def _together(before: Decision | None, now: Decision) -> Decision:
    """Return a decision with the label, or the verdict, that an earlier one gave."""
    if before is None:
        return now
    if now["action"] == "relabel":
        return {**before, "label": now["label"]}
    return {**now, "label": now["label"] or before["label"]}
