"""Mending: what a cleaning gate refused gets another caption or label, if the gate that is in force lets that one pass.

Tried in order: the sample's other captions, a captioner, the class that neighbours and discriminant agree on. The
checkpoint that follows judges a mended row like any other, and commits it; until then `Mended` holds what is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from curate.engine import captioning
from curate.engine.decisions import append_history
from curate.engine.voters import class_numbers, places, voters
from curate.scoring.labels import corrections
from curate.stored import PLACE
from curate_kernels.arrays import B1, F16, F32, I64

if TYPE_CHECKING:
    from curate.engine.core import Engine

MEND = "mend"  # the decision in a row's history
_ALTERNATIVES = "alternatives"
_RELABEL = "relabel"
_REFUSED = "embedded AND reason IN ('caption_mismatch', 'label_noise')"
_READ = ("row", "batch", "counted", "reason", "caption", "alternatives", "caption_original", "label", "label_original")
_CHUNK = 1024

Row = dict[str, Any]


@dataclass(slots=True)
class Mended:
    """Rows that were mended, or for which it was tried, since the last commit, by ordinal.

    last: failures are recorded too
    captions: (caption, original, float16 embedding); labels: (label, original); tried: every rectifier that was asked
    entries: what goes into each mended row's history
    marks: what a reviewer says of a row (`changes.KEEP` and so on, None for nothing); counted: rows that enter the sums
    cleared: rows that a reviewer no longer keeps
    """

    last: bool = False
    captions: dict[int, tuple[str, str, F16]] = field(default_factory=dict)
    labels: dict[int, tuple[str, str | None]] = field(default_factory=dict)
    tried: dict[int, list[str]] = field(default_factory=dict)
    entries: dict[int, dict[str, Any]] = field(default_factory=dict)
    marks: dict[int, str | None] = field(default_factory=dict)
    counted: list[int] = field(default_factory=list)
    cleared: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.labels or self.tried or self.marks)

    def overlay(self, rows: I64, text: F32, labels: list[str | None]) -> None:
        """Put what is new over embeddings (b, t) and labels of the rows with these ordinals."""
        for i in np.flatnonzero(np.isin(rows, list(self.captions))).tolist():
            text[i] = self.captions[int(rows[i])][2]
        for i in np.flatnonzero(np.isin(rows, list(self.labels))).tolist():
            labels[i] = self.labels[int(rows[i])][0]

    def over(self, table: pl.DataFrame) -> pl.DataFrame:
        """Return a table of every row with what is new in its labels, histories and originals."""
        names = ["label", "label_original", "caption_original", "history", *(["review"] if self.marks else [])]
        new = {name: table[name].to_list() for name in names}
        for row, mark in self.marks.items():
            new["review"][row] = mark
        for row, (_, original, _) in self.captions.items():
            new["caption_original"][row] = original
        for row, (label, given) in self.labels.items():
            new["label"][row], new["label_original"][row] = label, given
        for row, entry in self.entries.items():
            new["history"][row] = append_history(new["history"][row], entry)
        table = table.with_columns(**{name: pl.Series(values, dtype=pl.String) for name, values in new.items()})
        return table.with_columns(pl.col("counted") | pl.Series(np.isin(np.arange(table.height), self.counted)))

    def tables(self) -> list[tuple[I64, Any]]:
        """Return what is to be written: (ordinals ascending, Arrow table of the columns that change)."""
        import pyarrow as pa

        from curate.engine.rows import fixed_lists

        out = []
        if self.captions:
            caption, original, text = zip(*(self.captions[row] for row in sorted(self.captions)), strict=True)
            columns = {"caption": caption, "caption_original": original, "text": fixed_lists(np.stack(text))}
            out.append((np.array(sorted(self.captions)), pa.table(columns)))
        if self.labels:
            label, before = zip(*(self.labels[row] for row in sorted(self.labels)), strict=True)
            out.append((np.array(sorted(self.labels)), pa.table({"label": label, "label_original": before})))
        if self.marks:
            out.append(
                (np.array(sorted(self.marks)), pa.table({"review": [self.marks[row] for row in sorted(self.marks)]}))
            )
        if self.tried:
            tried = pa.table({"mend_tried": [self.tried[row] for row in sorted(self.tried)]})
            out.append((np.array(sorted(self.tried)), tried))
        return out


def is_left(engine: Engine) -> bool:
    """Tell whether the last checkpoint refused rows that nothing was tried on yet, and something can be."""
    saved, clean, mend = engine.state.checkpoint, engine.recipe.clean, engine.recipe.mend
    if saved is None or saved.settled:
        return False
    if not (clean.captions and (mend.alternatives or mend.captioner)) and not (clean.labels and mend.relabel):
        return False
    table = engine.pool.frame(["reason", "alternatives", "label_original", "mend_tried"], where=_REFUSED)
    return any(
        (row["label_original"] is None and mend.relabel)
        if row["reason"] == "label_noise"
        else bool(mend.captioner) or (mend.alternatives and _has_untried(row))
        for row in table.iter_rows(named=True)
    )


def run(engine: Engine, last: bool = False) -> bool:
    """Try to mend every refused row; return whether there is something to commit. The sums are brought up to date.

    last: right after a checkpoint, at the end of a run: by the captioner too, which is waited for, and what fails now
    is not tried again. Before, thresholds are older than the sums, and a good caption may fail for that.
    """
    gate, clean, mend = engine.gate, engine.recipe.clean, engine.recipe.mend
    engine.mended = Mended()
    captions = clean.captions and gate.pairs is not None and gate.caption is not None
    labels = clean.labels and mend.relabel and gate.labels is not None and bool(gate.classes)
    if not (captions and (mend.alternatives or mend.captioner)) and not labels:
        return False
    refused = engine.pool.frame([*_READ, "mend_tried", *PLACE], where=_REFUSED).to_dicts()
    mismatched = [row for row in refused if row["reason"] == "caption_mismatch"]
    if gate.pairs is not None:
        gate.pairs.renew()
    mended = Mended(last)  # the engine reads rows as the pool has them until all is known
    if captions and mend.alternatives:
        for part in _chunks([row for row in mismatched if _has_untried(row)]):
            _recaption(engine, mended, part, [row["alternatives"] for row in part], _ALTERNATIVES)
    if captions and mend.captioner and last:
        _caption(engine, mended, [row for row in mismatched if row["row"] not in mended.captions])
    if labels:
        _relabel(engine, mended, [r for r in refused if r["reason"] == "label_noise" and r["label_original"] is None])
    engine.mended = mended
    return bool(mended)


def _has_untried(row: Mapping[str, Any]) -> bool:
    return bool(row["alternatives"]) and _ALTERNATIVES not in (row["mend_tried"] or ())


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for low in range(0, len(rows), _CHUNK):
        yield rows[low : low + _CHUNK]


def _vectors(engine: Engine, part: Sequence[Row]) -> tuple[F32, F32, B1]:
    """Return features and caption embeddings of rows, and whether they are in the sums."""
    table = engine.pool.take([row["row"] for row in part], engine.columns()).combine_chunks()
    image, text, _, _ = engine.table_rows(table)
    return engine.features(image), text, np.array([row["counted"] for row in part], dtype=np.bool_)


# Captions


def _caption(engine: Engine, mended: Mended, rows: Sequence[Row]) -> None:
    if not rows:
        return
    captions = captioning.opened(engine)
    rows = [row for row in rows if captions.name not in (row["mend_tried"] or ())]
    made = captions.wait(rows, engine.state.sources)
    rows = [row for row in rows if row["sha256"] in made]  # the others' files are not there now
    for part in _chunks(rows):
        offers = [[text] if (text := made[row["sha256"]]) not in ("", row["caption"]) else [] for row in part]
        _recaption(engine, mended, part, offers, captions.name)


def _recaption(engine: Engine, mended: Mended, part: Sequence[Row], offers: Sequence[Sequence[str]], by: str) -> None:
    """Give rows the best of the texts that are offered for each, where the caption gate lets it pass."""
    gate = engine.gate
    assert gate.pairs is not None
    assert gate.caption is not None
    image, text, counted = _vectors(engine, part)
    texts = [offered for offer in offers for offered in offer]
    owner = np.repeat(np.arange(len(part)), [len(offer) for offer in offers])
    new, _ = engine.encode_captions(texts)
    x, y = gate.pairs.project(image, text)
    before = gate.pairs.score(x, y, counted)["pvi"]
    pvi = _offered_pvi(engine, (x, y, counted), owner, image, new)
    for i, row in enumerate(part):
        mine = np.flatnonzero(owner == i)
        best = int(mine[pvi[mine].argmax()]) if mine.size else -1
        fails = before[i] < gate.caption.value  # else the gate has come to let it pass as it is
        passes = fails and best >= 0 and pvi[best] >= gate.caption.value
        if passes or (fails and mended.last):
            mended.tried[row["row"]] = [*(mended.tried.get(row["row"]) or row["mend_tried"] or ()), by]
        if passes:
            original = row["caption_original"] or row["caption"]
            mended.captions[row["row"]] = (texts[best], original, new[best])
            mended.entries[row["row"]] = _entry(engine, by, "pvi", (before[i], pvi[best]), gate.caption.value)
    changed = [i for i, row in enumerate(part) if row["row"] in mended.captions and counted[i]]
    if changed:
        fresh = np.stack([mended.captions[part[i]["row"]][2] for i in changed]).astype(np.float32)
        engine.sums.update(image[changed], text[changed], sign=-1.0)
        engine.sums.update(image[changed], fresh)


def _offered_pvi(engine: Engine, old: tuple[Any, Any, B1], owner: I64, image: F32, new: F16) -> F32:
    """Return the PVI of images with other texts, each without the pair that the sums hold of its image."""
    assert engine.gate.pairs is not None
    model, (x, y, counted) = engine.gate.pairs, old
    if not owner.size:
        return np.zeros(0, np.float32)
    _, offered = model.project(image[:1], new.astype(np.float32))
    seen = np.concatenate([counted, np.zeros(owner.size, dtype=np.bool_)])
    pvi = model.mismatched(
        np.concatenate([x, x[owner]]), np.concatenate([y, offered]), seen, len(x) + np.arange(owner.size), owner
    )
    return np.where(new.any(axis=1), pvi, np.float32(-np.inf))


# Labels


def _relabel(engine: Engine, mended: Mended, rows: Sequence[Row]) -> None:
    """Give rows the class that is likelier than their label by far, where that class's gate lets them pass."""
    gate, saved = engine.gate, engine.state.checkpoint
    assert gate.labels is not None
    known = [c for c in gate.classes if c < gate.labels.count.size and gate.labels.count[c] >= 1]
    rows = [row for row in rows if engine.class_number.get(row["label"], -1) in known]
    if not rows or saved is None:
        return
    table = engine.pool.frame(["uid", "duplicate_of", "counted", "label", "batch"])
    then = table["counted"].to_numpy() & (table["batch"].to_numpy() < saved.batches)
    place = places(table, voters(then, class_numbers(engine, table["label"].to_list())))
    for part in _chunks(rows):
        image, _, counted = _vectors(engine, part)
        ordinals, label = np.array([row["row"] for row in part]), class_numbers(engine, [row["label"] for row in part])
        z = gate.labels.project(image)
        bits = gate.labels.every(z, label, then[ordinals], place[ordinals])
        best, share = corrections(bits, label, np.array([gate.classes[c].bad for c in label.tolist()]))
        changed = []
        for i, c in enumerate(best.tolist()):
            if c in known and share[i] >= engine.recipe.mend.confidence and -bits[i, c] >= gate.classes[c].value:
                row, name = part[i], engine.state.classes[c]
                mended.labels[row["row"]] = (name, row["label"])
                entry = _entry(engine, _RELABEL, "s1_label", (bits[i, label[i]], bits[i, c]), -gate.classes[c].value)
                mended.entries[row["row"]] = entry | {"confidence": round(float(share[i]), 4)}
                changed += [i] if counted[i] else []
        if changed:
            classes = len(engine.state.classes)
            engine.sums.update(image[changed], label=label[changed], classes=classes, sign=-1.0)
            engine.sums.update(image[changed], label=best[changed], classes=classes)


def _entry(engine: Engine, by: str, score: str, values: tuple[float, float], threshold: float) -> dict[str, Any]:
    """Return the history entry of a mended row: which rectifier, and the score before and after."""
    return {
        "checkpoint": engine.state.step + 1,
        "decision": MEND,
        "reason": by,
        f"{score}_before": round(float(values[0]), 4),
        score: round(float(values[1]), 4),
        "thresholds": {score: round(threshold, 4)},
    }
