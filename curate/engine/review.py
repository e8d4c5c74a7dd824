"""What people decide: samples kept, dropped or given another label, as a version that all later decisions obey.

A review is a checkpoint: marks are written, a new label's share moves in the sums, gates are fitted and everything is
decided again. A dropped sample leaves the kept set, what was refused as its copy stays refused, and copies that arrive
later are refused too; its share stays in the sums, as that of every refused sample does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.engine import bound, checkpoint
from curate.engine.changes import DROP, KEEP, LABEL, REVIEWED
from curate.engine.guard import REASON as EVAL_LEAK
from curate.engine.guard import dropped
from curate.engine.mend import Mended
from curate.engine.voters import class_numbers
from curate.errors import UsageError
from curate.pool import Pool, Writer

if TYPE_CHECKING:
    from curate.engine.core import Engine

ACTIONS = ("keep", "drop", "relabel", "clear")
_READ = ("row", "uid", "source", "key", "reason", "caption", "label", "label_original", "embedded", "counted", "review")
_UNCOUNTED = ("admitted", "budget", REVIEWED)  # good and no copy: without caption and label there was nothing to count


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
    it), `drop` (refused for good, reason `reviewed` where it had been admitted), `relabel` (with `label`; the label
    gate has nothing more to say about it), `clear` (the engine decides again; a new label stays). A `label` may stand
    beside any action. Of several verdicts, or labels, for one sample the last counts.

    Raises UsageError for an unknown action, a label that is missing, a sample that cannot be kept since it has no
    embedding or leaks an evaluation set, or more kept ones than a bounded pool has room for; KeyNotFoundError for a key
    of no row or of several. Nothing is written then.
    """
    from curate.engine.grow import open_engine

    asked = [_checked(number, given) for number, given in enumerate(decisions, 1)]
    if not asked:
        raise UsageError("the review holds no decision; nothing was written")
    with Writer(Pool.open(pool).path) as writer:
        opened = Pool.open(writer.path)
        said = _said(opened, asked)
        engine = open_engine(writer, opened)
        _check_room(engine, said)
        if "review" not in opened.columns:
            engine.pool = writer.add_text(opened, "review")
        engine.ready()
        engine.shunned = dropped(engine, but=said)  # what is cleared must not stand in its own way
        before = opened.frame(["decision", "reason"])
        engine.mended = _marked(engine, said)
        checkpoint.revise(engine)
        after = engine.pool.frame(["decision", "reason"])
    verdicts = [one.verdict for one in said.values()]
    return Reviewed(
        pool=str(pool),
        version=engine.pool.version,
        **{action: verdicts.count(action) for action in ("keep", "drop", "clear")},
        relabel=sum(one.label is not None for one in said.values()),
        changed=int(((before["decision"] != after["decision"]) | (before["reason"] != after["reason"])).sum()),
        admitted=int((after["decision"] == "admit").sum()),
    )


@dataclass(slots=True)
class _Said:
    """What is said of one row: `keep`, `drop`, `clear` or "", and its new label, if any."""

    row: dict[str, Any]
    verdict: str = ""
    label: str | None = None
    actions: list[str] = field(default_factory=list)


def _checked(number: int, given: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Return (key, action, label) of one decision."""
    key, action, label = given.get("key") or given.get("uid"), given.get("action"), given.get("label")
    if not isinstance(key, str) or not key:
        raise UsageError(f"decision {number} of the review names no sample: give `key` or `uid`")
    if action not in ACTIONS:
        raise UsageError(f"decision {number} ({key}) has the action {action!r}; it must be {', '.join(ACTIONS)}")
    if label is not None and (not isinstance(label, str) or not label.isprintable()):
        raise UsageError(f"decision {number} ({key}) has the label {label!r}; it must be a text of visible characters")
    label = (label or "").strip() or None
    if action == "relabel" and label is None:
        raise UsageError(f"decision {number} ({key}) gives no label: `relabel` needs one")
    return key, str(action), label


def _said(pool: Pool, asked: Sequence[tuple[str, str, str | None]]) -> dict[int, _Said]:
    """Return what is said of each row, by ordinal; KeyNotFoundError or UsageError where that cannot be."""
    table = pool.frame([name for name in _READ if name in pool.columns])
    at = {uid: i for i, uid in enumerate(table["uid"].to_list())}
    if any(key not in at for key, _, _ in asked):
        names: dict[str, list[int]] = {}
        for i, (source, key) in enumerate(table.select("source", "key").iter_rows()):
            names.setdefault(key, []).append(i)
            names.setdefault(f"{source}:{key}", []).append(i)
        at = {name: rows[0] for name, rows in names.items() if len(rows) == 1} | at
    found: dict[int, _Said] = {}
    for key, action, label in asked:
        row = table.row(at[key] if key in at else at[str(pool.find(key)["uid"])], named=True)
        if action == "keep" and (not row["embedded"] or row["reason"] in (EVAL_LEAK, "forgotten")):
            why = row["reason"] or "no embedding"
            raise UsageError(
                f"{key} cannot be kept ({why}): only a sample with an embedding, outside evaluation sets, can"
            )
        said = found.setdefault(int(row["row"]), _Said(row))
        said.actions.append(action)
        said.verdict = said.verdict if action == "relabel" else action
        said.label = label or said.label
    return dict(sorted(found.items()))


def _check_room(engine: Engine, said: Mapping[int, _Said]) -> None:
    """Raise UsageError where a bounded pool would hold more samples that must be kept than an eviction leaves."""
    if engine.recipe.limits.max_kept:
        marked = f"review = '{KEEP}'" if "review" in engine.pool.columns else "false"
        kept = set(engine.pool.frame(["row"], where=marked)["row"].to_list())
        kept = {row for row in kept if row not in said or said[row].verdict not in ("drop", "clear")}
        kept |= {row for row, one in said.items() if one.verdict == "keep"}
        if len(kept) > bound.room(engine):
            raise UsageError(
                f"{len(kept)} samples would have to be kept, and limits.max_kept = {engine.recipe.limits.max_kept}"
                f" leaves room for {bound.room(engine)}; raise it with --change-recipe, or keep fewer"
            )


def _marked(engine: Engine, said: Mapping[int, _Said]) -> Mended:
    """Return marks, labels and history entries of a review, its labels' share moved in the sums."""
    marked = Mended()
    for row, one in said.items():
        old = one.row.get("review")
        label = LABEL if one.label is not None else None
        stays = old if one.verdict == "" and old in (KEEP, DROP) else label or (old if old == LABEL else None)
        marked.marks[row] = {"keep": KEEP, "drop": DROP}.get(one.verdict, stays)
        if old == KEEP and marked.marks[row] != KEEP:
            marked.cleared.append(row)
        entry = {"checkpoint": engine.state.step + 1, "decision": "review", "reason": ", ".join(one.actions)}
        marked.entries[row] = entry | ({"label": one.label} if one.label else {})
    new = {row: one for row, one in said.items() if one.label is not None and one.label != one.row["label"]}
    engine.number_classes([one.label for one in new.values()])
    for row, one in new.items():
        old, original = one.row, one.row["label_original"] or one.row["label"]
        assert one.label is not None
        marked.labels[row] = (one.label, None if original == one.label else original)
        bare = old["caption"] is None and old["label"] is None
        if old["embedded"] and not old["counted"] and bare and old["reason"] in _UNCOUNTED:
            marked.counted.append(row)
    _move(engine, [(row, one.row) for row, one in new.items() if one.row["counted"] or row in marked.counted], marked)
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
