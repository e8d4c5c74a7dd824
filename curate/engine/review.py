"""What people decide: samples kept, dropped or given another label, as a version that all later decisions obey.

A review is a checkpoint: marks are written, a new label's share moves in the sums, gates are fitted and everything is
decided again. A dropped sample leaves the kept set, and what was refused as its copy stays refused; its share stays in
the sums, as that of every refused sample does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.engine import checkpoint
from curate.engine.changes import DROP, KEEP, LABEL
from curate.engine.guard import REASON as EVAL_LEAK
from curate.engine.mend import Mended
from curate.engine.voters import class_numbers
from curate.errors import UsageError
from curate.pool import Pool, Writer

if TYPE_CHECKING:
    from curate.engine.core import Engine

ACTIONS = ("keep", "drop", "relabel", "clear")
_COPIES = ("near_duplicate", "exact_duplicate")
_READ = ("row", "uid", "reason", "label", "label_original", "embedded", "counted")


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What a review did. changed: rows whose decision is another one now, copies and gates included."""

    pool: str
    version: int
    keep: int
    drop: int
    relabel: int
    clear: int
    changed: int
    admitted: int


def review(pool: str | Path, decisions: Iterable[Mapping[str, Any]]) -> Reviewed:
    """Write people's decisions to a pool as one version; `grow` and `select` obey them, a checkpoint learns from them.

    decisions: mappings with `key` (a key, `SOURCE:KEY` or uid) and `action`: `keep` (admitted whatever spoke against
    it), `drop` (refused, reason `reviewed`), `relabel` (with `label`; the label gate has nothing more to say about
    it), `clear` (the engine decides again; a new label stays). Of several for one sample the last counts.

    Raises UsageError for an unknown action, a label that is missing, or a sample that cannot be kept since it has no
    embedding or leaks an evaluation set; KeyNotFoundError for a key of no row or of several. Nothing is written then.
    """
    from curate.engine.grow import open_engine

    asked = [_checked(number, given) for number, given in enumerate(decisions, 1)]
    if not asked:
        raise UsageError("the review holds no decision; nothing was written")
    with Writer(Pool.open(pool).path) as writer:
        opened = Pool.open(writer.path)
        rows = _rows(opened, asked)
        if "review" not in opened.columns:
            opened = writer.add_text(opened, "review")
        engine = open_engine(writer, opened)
        engine.ready()
        before = opened.frame(["decision", "reason"])
        engine.mended = _marked(engine, rows)
        checkpoint.revise(engine)
        after = engine.pool.frame(["decision", "reason"])
    actions = [action for _, action, _ in rows.values()]
    return Reviewed(
        pool=str(pool),
        version=engine.pool.version,
        **{action: actions.count(action) for action in ACTIONS},
        changed=int(((before["decision"] != after["decision"]) | (before["reason"] != after["reason"])).sum()),
        admitted=int((after["decision"] == "admit").sum()),
    )


def _checked(number: int, given: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Return (key, action, label) of one decision."""
    key, action, label = given.get("key") or given.get("uid"), given.get("action"), given.get("label")
    if not isinstance(key, str) or not key:
        raise UsageError(f"decision {number} of the review names no sample: give `key` or `uid`")
    if action not in ACTIONS:
        raise UsageError(f"decision {number} ({key}) has the action {action!r}; it must be {', '.join(ACTIONS)}")
    if action == "relabel" and (not isinstance(label, str) or not label.strip()):
        raise UsageError(f"decision {number} ({key}) gives no label: `relabel` needs one")
    return key, str(action), label.strip() if action == "relabel" and isinstance(label, str) else None


def _rows(
    pool: Pool, asked: Sequence[tuple[str, str, str | None]]
) -> dict[int, tuple[dict[str, Any], str, str | None]]:
    """Return {ordinal: (row, action, label)}; KeyNotFoundError or UsageError where that cannot be."""
    table = pool.frame(_READ)
    at = {uid: i for i, uid in enumerate(table["uid"].to_list())}
    found: dict[int, tuple[dict[str, Any], str, str | None]] = {}
    for key, action, label in asked:
        row = table.row(at[key] if key in at else at[str(pool.find(key)["uid"])], named=True)
        if action == "keep" and (not row["embedded"] or row["reason"] in (EVAL_LEAK, "forgotten")):
            why = row["reason"] or "no embedding"
            raise UsageError(
                f"{key} cannot be kept ({why}): only a sample with an embedding, outside evaluation sets, can"
            )
        found[int(row["row"])] = (row, action, label)
    return dict(sorted(found.items()))


def _marked(engine: Engine, rows: Mapping[int, tuple[dict[str, Any], str, str | None]]) -> Mended:
    """Return marks, labels and history entries of a review, its labels' share moved in the sums."""
    marked = Mended()
    mark = {"keep": KEEP, "drop": DROP, "relabel": LABEL, "clear": None}
    for row, (_, action, label) in rows.items():
        marked.marks[row] = mark[action]
        entry = {"checkpoint": engine.state.step + 1, "decision": "review", "reason": action}
        marked.entries[row] = entry | ({"label": label} if label else {})
    new = {row: (old, label) for row, (old, _, label) in rows.items() if label is not None and label != old["label"]}
    engine.number_classes([label for _, label in new.values()])
    for row, (old, label) in new.items():
        marked.labels[row] = (label, old["label_original"] or old["label"])
        if old["embedded"] and not old["counted"] and old["label"] is None and old["reason"] not in _COPIES:
            marked.counted.append(row)  # without a caption it had nothing to count until now
    _move(engine, [(row, old) for row, (old, _) in new.items() if old["counted"] or row in marked.counted], marked)
    return marked


def _move(engine: Engine, rows: Sequence[tuple[int, dict[str, Any]]], marked: Mended) -> None:
    """Take rows' labels out of the sums, and add those that they have now."""
    if not rows:
        return
    ordinals = [row for row, _ in rows]
    table = engine.pool.take(ordinals, engine.columns()).combine_chunks()
    image = engine.features(engine.table_rows(table)[0])
    classes = len(engine.state.classes)
    for sign, labels in ((-1.0, [old["label"] for _, old in rows]), (1.0, [marked.labels[r][0] for r in ordinals])):
        number = class_numbers(engine, labels)
        at = np.flatnonzero(number >= 0)
        if at.size:
            _, moved = engine.sums.update(image[at], label=number[at], classes=classes, sign=sign)
            engine.state.labels += int(sign) * moved
