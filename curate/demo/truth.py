"""What a pool decided, held against what was planted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from curate.demo.planting import BROKEN, EXACT, GOOD, LABEL, NEAR, POOR, Planted
from curate.pool import Pool

_REASONS = {
    EXACT: ("exact_duplicate",),
    NEAR: ("near_duplicate",),
    LABEL: ("label_noise",),
    BROKEN: ("undecodable", "too_many_pixels"),
    POOR: ("low_quality", "too_small"),
}
"""The reasons that are right for each kind."""


@dataclass(frozen=True, slots=True)
class TruthRow:
    """One kind in one collection.

    planted: files of it; found: those refused, or relabelled, for a right reason; precision: share of what was refused
    for it that is of this kind; recall: found over planted; kept: files of it that the pool admitted as they were.

    A duplicate is found if of its pair one file is kept and the other refused as its duplicate. Of good images, `kept`
    counts those that the pool still shows, in whatever copy; there is nothing to find.
    """

    collection: str
    kind: str
    planted: int
    found: int | None
    precision: float | None
    recall: float | None
    kept: int


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What was decided about one file; `twin` is the path of the file that it duplicates.

    reason: `label_noise` of a row whose label was set right too
    """

    path: str
    admitted: bool
    reason: str
    twin: str | None


def truth_rows(collection: str, pool: Pool, planted: Sequence[Planted]) -> list[TruthRow]:
    """Return a row for every kind that was planted, and one for the good images."""
    verdicts = _verdicts(pool)
    groups: dict[int, list[_Verdict]] = defaultdict(list)
    for file in planted:
        groups[file.group].append(verdicts[file.path])
    rows = []
    for kind, reasons in _REASONS.items():
        files = [file for file in planted if file.kind == kind]
        if kind in (EXACT, NEAR):
            pairs = [groups[file.group] for file in files]
            found = sum(_is_found(pair, reasons) for pair in pairs)
            kept = sum(all(verdict.admitted for verdict in pair) for pair in pairs)
        else:
            found = sum(verdicts[file.path].reason in reasons for file in files)
            kept = sum(verdicts[file.path].admitted and verdicts[file.path].reason not in reasons for file in files)
        refused = sum(verdict.reason in reasons for verdict in verdicts.values())
        if files:
            precision = found / refused if refused else None
            rows.append(TruthRow(collection, kind, len(files), found, precision, found / len(files), kept))
    good = {file.group for file in planted if file.kind == GOOD}
    shown = sum(any(verdict.admitted for verdict in groups[group]) for group in good)
    return [*rows, TruthRow(collection, GOOD, len(good), None, None, None, shown)]


def _is_found(pair: Sequence[_Verdict], reasons: Sequence[str]) -> bool:
    """Tell whether one of two files was kept, and the other refused because of it."""
    first, second = sorted(pair, key=lambda verdict: not verdict.admitted)
    return first.admitted and not second.admitted and second.reason in reasons and second.twin == first.path


def _verdicts(pool: Pool) -> dict[str, _Verdict]:
    rows = pool.frame(["uid", "path", "decision", "reason", "duplicate_of", "label_original"]).rows()
    path_of = {uid: path for uid, path, *_ in rows}
    return {
        path: _Verdict(path, decision == "admit", reason if given is None else "label_noise", path_of.get(twin))
        for _, path, decision, reason, twin, given in rows
    }
