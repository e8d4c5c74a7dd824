"""Decisions made on the page and not yet written to the pool: a journal that outlives the server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from curate.remote import Place

FOLDER = "reviews"


class Pending:
    """What a reviewer decided, by uid, in order, each with what it replaced, so that it can be undone.

    Every change is appended to `reviews/pending.jsonl` of the pool and flushed, where the pool lies on disk.
    """

    def __init__(self, pool: Place) -> None:
        self._file = pool / FOLDER / "pending.jsonl" if isinstance(pool, Path) else None
        self.decisions: dict[str, dict[str, Any]] = {}
        self._past: list[list[tuple[str, dict[str, Any] | None]]] = []
        if self._file is not None and self._file.is_file():
            for line in self._file.read_bytes().splitlines():
                try:
                    self._apply(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError):
                    break  # a torn last line: the process was killed while it wrote

    def add(self, decisions: list[dict[str, Any]]) -> None:
        """Take decisions, each {"key": uid, "action", "label"}; together they are one step of undo."""
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
            self._file.parent.mkdir(exist_ok=True)
            with self._file.open("ab") as file:
                file.write(json.dumps(change).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        self._apply(change)

    def _apply(self, change: dict[str, Any]) -> None:
        if change.get("undo"):
            for uid, before in reversed(self._past.pop()):
                self._put(uid, before)
            return
        step = []
        for decision in change["add"]:
            step.append((decision["key"], self.decisions.get(decision["key"])))
            self._put(decision["key"], decision)
        self._past.append(step)

    def _put(self, uid: str, decision: dict[str, Any] | None) -> None:
        if decision is None:
            self.decisions.pop(uid, None)
        else:
            self.decisions[uid] = decision
