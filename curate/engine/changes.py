"""The columns that a checkpoint rewrites, while rows are judged again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.cleaning import Quality, refusal
from curate.engine import bound, guard, prefer
from curate.engine.decisions import Pictures, append_history, history_entry
from curate.engine.gate import HELD
from curate.engine.rows import nullable
from curate.engine.state import Bound
from curate.hashing import hash_words
from curate.pool.takedown import MARK as FORGOTTEN
from curate_kernels.arrays import B1, F32, F64, I64
from curate_selectors.drift import Drift, sample_rows
from curate_selectors.infogrowth import mean_distance
from curate_selectors.types import Stage

if TYPE_CHECKING:
    from curate.engine.core import Engine

_GAINS = ("gain", "gain_image", "gain_text", "gain_arrival")
_QUALITY = ("width", "height", "quality_contrast", "quality_sharpness")
READ = ["uid", "decision", "reason", "detail", "duplicate_of", "history", "counted", "embedded", "caption", "label"]
READ += [*_GAINS, "gain_kept", *_QUALITY]
_COPIES = ("near_duplicate", "exact_duplicate")
KEEP, DROP, LABEL = "keep", "drop", "label"  # what the column `review` says: LABEL: the label is right
REVIEWED = guard.REVIEWED
_GATE_REASONS = ("caption_mismatch", "label_noise", HELD, REVIEWED)


@dataclass(frozen=True, slots=True)
class Forgetting:
    """A takedown: ordinals of the rows that go, and whether their duplicates may take their place."""

    rows: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    refill: bool = False


class Changes:
    """Every row's decision, what it duplicates, its history and its gains, as they are and as they become."""

    def __init__(self, engine: Engine, table: Any, scores: dict[str, F32], forgetting: Forgetting) -> None:
        self.engine, self.scores, self.forgetting = engine, scores, forgetting
        self.uid = table["uid"].to_list()
        self.decision, self.reason, self.detail, self.twin, self.history = (
            np.array(table[c].to_list(), dtype=object)
            for c in ("decision", "reason", "detail", "duplicate_of", "history")
        )
        self.gains = {name: table[name].cast(float).fill_null(np.nan).to_numpy().astype(np.float32) for name in _GAINS}
        self.kept = table["gain_kept"].fill_null(-1).to_numpy().astype(np.int64)
        self.quality = table.select(_QUALITY)
        self.before = (self.decision.copy(), self.reason.copy())
        self.counted, self.embedded = (table[name].to_numpy().copy() for name in ("counted", "embedded"))
        for column in (self.counted, self.embedded):
            column[forgetting.rows] = False
        captions = table["caption"].is_not_null().to_numpy()
        self.rows = engine.gate_rows(
            np.zeros((len(self.uid), 0), np.float32), np.zeros((len(self.uid), 0), np.float32),
            captions, table["label"].to_list(), self.embedded,
        )  # fmt: skip
        self.verdict = np.array(engine.gate.verdicts(self.rows, scores), dtype=object)
        self.review = np.array(table["review"].to_list() if "review" in table.columns else [None] * len(self.uid))
        self.verdict[(self.review == LABEL) & (self.verdict == "label_noise")] = ""
        self.verdict[self.review == KEEP] = ""
        self.verdict[self.review == DROP] = REVIEWED
        self.verdict[forgetting.rows] = FORGOTTEN
        self.cleared = np.zeros(len(self.uid), dtype=np.bool_)
        self.cleared[engine.mended.cleared] = True
        for i in np.flatnonzero(self.cleared & (self.verdict == "")):
            self.verdict[i] = self._poor(int(i))
        self.worth = prefer.values(engine, table, scores["pvi"])
        self.leak = [""] * len(self.uid)
        self.moved: I64 = np.zeros(0, dtype=np.int64)  # duplicates of forgotten rows, which may take their place

    def keep_out(self, leaks: list[str]) -> None:
        """Refuse rows that leak an evaluation set; leaks: (n) what each row leaks in words, or ""."""
        for i, leak in enumerate(leaks):
            if leak and self.verdict[i] != FORGOTTEN:
                self.verdict[i], self.leak[i] = guard.REASON, leak

    def judge(self) -> None:
        """Drop what fails now, and send through the online rule what may enter now."""
        forgotten = self.verdict == FORGOTTEN
        admitted = self.decision == "admit"
        dropped = admitted & (self.verdict != "")
        forced = (self.review == KEEP) & ~admitted & self.embedded & ~forgotten
        old, better = self._successors(admitted & ~dropped & (self.review != KEEP))
        gone = dropped.copy()
        gone[old] = True
        gone |= self.cleared & admitted  # judged again, as if it had just come
        self.engine.index.remove([self.uid[i] for i in np.flatnonzero(gone)])
        orphaned = self._orphans(gone & (self.verdict != REVIEWED), forgotten)
        for i in np.flatnonzero(orphaned):
            self.verdict[i] = self._poor(int(i)) or self.verdict[i]
        again = np.isin(self.reason, _GATE_REASONS) | orphaned | forgotten
        if bound.bar(self.engine)[0] == -np.inf:  # there is no bound, or it is another one now
            again |= self.reason == "budget"
        for i in np.flatnonzero((admitted | again) & (self.verdict != "")):
            decision = "hold" if self.verdict[i] == HELD else "refuse"
            self._set(int(i), decision, str(self.verdict[i]), None, self.leak[i])
        waiting = ((again & ~admitted) | gone) & (self.verdict == "")
        waiting[better] = waiting[old] = waiting[forced] = False
        self._admit(np.flatnonzero(forced), free=True, apart=True)
        for rows in better, old:  # the place is theirs, one or the other
            self._admit(rows, free=True)
        self._admit(np.flatnonzero(waiting))
        self._refresh_gains()
        self._fill()
        self._evict()
        self._log()

    def _successors(self, kept: B1) -> tuple[I64, I64]:
        """Return kept rows that have a better copy, and these copies; the copies are judged first, then all others."""
        if self.worth is None:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        usable = np.isin(self.reason, _COPIES) & (self.verdict == "") & (self.review != KEEP)
        usable[[i for i in np.flatnonzero(usable).tolist() if self._poor(i)]] = False
        return prefer.successors(self.worth, self.uid, self.twin, usable, kept)

    def _orphans(self, dropped: B1, forgotten: B1) -> B1:
        """Return the rows that lost what they duplicated; without a refill, a takedown's only lose its name."""
        gone = {self.uid[i] for i in np.flatnonzero(dropped | forgotten)}
        orphaned: B1 = np.array([twin in gone for twin in self.twin], dtype=np.bool_) & ~forgotten
        taken = {self.uid[i] for i in np.flatnonzero(forgotten)}
        shunned = {self.uid[i] for i in np.flatnonzero(forgotten & (self.review == DROP))}
        moved = [i for i in np.flatnonzero(orphaned).tolist() if self.twin[i] in taken]
        stay = [i for i in moved if not self.forgetting.refill or self.twin[i] in shunned]
        if self.forgetting.refill:
            self.moved = np.array([i for i in moved if i not in set(stay)], dtype=np.int64)
        self.twin[stay], orphaned[stay] = None, False
        return orphaned

    def _poor(self, i: int) -> str:
        """Return the quality refusal that a row would have had if it had duplicated nothing, or ""."""
        width, height, contrast, sharpness = self.quality.row(i)
        if contrast is None or sharpness is None:
            return ""
        return refusal(width, height, Quality(contrast, sharpness), self.engine.recipe.clean)

    def _admit(self, rows: I64, free: bool = False, apart: bool = False) -> None:
        """Send rows through the online rule, in portions of a batch.

        free: whatever the bar of a bounded kept set; apart: whatever they duplicate
        """
        size = self.engine.recipe.limits.batch_size
        for start in range(0, rows.size, size):
            self._admit_batch(rows[start : start + size], free, apart)

    def _admit_batch(self, rows: I64, free: bool, apart: bool) -> None:
        table = self.engine.pool.take(rows.tolist(), self.engine.columns("pixel_hash", "phash")).combine_chunks()
        image, text, has_text, _ = self.engine.table_rows(table)
        pixels = table.column("pixel_hash").to_pylist()
        engine = self.engine
        leaks = engine.guard.leaks(image, pixels, engine.state.image.epsilon)
        shunned = [""] * rows.size if apart else engine.shunned.leaks(image, pixels, engine.state.image.epsilon)
        out = [(guard.REASON, leak) if leak else (REVIEWED, shun) for leak, shun in zip(leaks, shunned, strict=True)]
        stage = np.array([Stage.OUT if why else Stage.FREE for _, why in out], dtype=np.uint8)
        pictures = Pictures([self.uid[i] for i in rows], pixels, hash_words(table.column("phash").to_pylist()))
        decided = engine.decide(engine.index, pictures, image, text, has_text, stage, free, apart)
        for name in _GAINS:
            self.gains[name][rows] = getattr(decided.decision, "gain" if name == "gain_arrival" else name)
        self.kept[rows] = decided.kept
        for place, i in enumerate(rows):
            if out[place][1]:
                self._set(int(i), "refuse", out[place][0], None, out[place][1])
            else:
                self._set(int(i), *decided.outcome(place, ""), decided.twins[place][0] or None)

    def _set(self, i: int, decision: str, reason: str, twin: str | None, detail: str = "") -> None:
        self.decision[i], self.reason[i], self.twin[i], self.detail[i] = decision, reason, twin, detail

    def _log(self) -> None:
        """Write every changed decision into its row's history, as a new decision."""
        changed = (self.decision != self.before[0]) | (self.reason != self.before[1])
        for i in np.flatnonzero(changed):
            thresholds = self.engine.gate.thresholds(int(self.rows.label[i]))
            place, outcome = ("checkpoint", self.engine.state.step + 1), (self.decision[i], self.reason[i])
            entry = history_entry(place, outcome, self.scores, int(i), thresholds)
            self.history[i] = append_history(self.history[i], entry)

    def _refresh_gains(self) -> None:
        """Correct every gain for the growth of what it is measured by: as it would be against all that is kept now."""
        known = np.isfinite(self.gains["gain_arrival"]) & (self.kept >= 0)
        kept = np.flatnonzero(known & (self.decision == "admit") & (self.kept >= self.engine.recipe.gain.k))
        if not kept.size:
            return
        rows = kept[sample_rows(kept.size)]
        curve = Drift.fit(self.kept[rows], self.gains["gain_arrival"][rows], self._gains_now(rows))
        self.gains["gain"][known] = curve.correct(self.kept[known], self.gains["gain_arrival"][known])

    def _luck(self) -> F64:
        """Return each row's luck (n,): that of the first of its copies, so that a better one takes it over."""
        place = {uid: i for i, uid in enumerate(self.uid)}
        first = np.arange(len(self.uid))
        for i, twin in enumerate(self.twin):
            if twin is not None and twin in place:
                first[place[twin]] = min(first[place[twin]], i)
        return bound.luck(self.uid)[first]

    def _fill(self) -> None:
        """Where kept rows have left a bounded kept set, admit the best of those that it refused in their place."""
        state, forgetting = self.engine.state, self.forgetting
        limit = bound.bar(self.engine)[0]
        if state.bound is None or limit == -np.inf or (forgetting.rows.size and not forgetting.refill):
            return
        luck = self._luck()
        while (free := bound.room(self.engine) - int((self.decision == "admit").sum())) > 0:
            refused = np.flatnonzero((self.reason == "budget") & (self.verdict == ""))
            key = bound.keys(self.gains["gain"][refused], luck[refused], state.bound.top)
            order = np.lexsort((np.array([self.uid[i] for i in refused]), -key))[:free]
            if not order.size:
                break
            state.bound.least = min(state.bound.least, float(key[order].min()))
            best = np.sort(refused[order])  # copies of what is kept by now are told to be that, and others follow
            self._admit(best, free=True)
            self.moved = np.concatenate([self.moved, best])

    def _evict(self) -> None:
        """Where the next batch might not fit under the bound, refuse the kept rows that the reservoir drops."""
        kept = np.flatnonzero(self.decision == "admit")
        if not bound.is_crowded(self.engine, kept.size):
            return
        uids, sure = [self.uid[i] for i in kept], self.review[kept] == KEEP
        stays, least, top = bound.reservoir(self.engine, self.gains["gain"][kept], uids, self._luck()[kept], sure)
        for i in kept[~stays]:
            self._set(int(i), "refuse", "budget", None)
        self.engine.state.bound = Bound(self.engine.recipe.limits.max_kept, least, top)

    def _gains_now(self, rows: I64) -> F32:
        """Return the gain of kept rows against all other kept rows."""
        engine, k = self.engine, self.engine.recipe.gain.k
        out = np.empty(rows.size, dtype=np.float32)
        for start in range(0, rows.size, 256):
            part = rows[start : start + 256]
            table = engine.pool.take(part.tolist(), engine.columns()).combine_chunks()
            image, text, has_text, _ = engine.table_rows(table)
            found = engine.index.search(image, text, has_text, [""] * part.size, k + 1, 0.0, 2.0)
            # A kept row is its own nearest: nothing nearer was kept.
            gain = mean_distance(found.top_image[:, 1:])
            out[start : start + 256] = np.where(has_text, (gain + mean_distance(found.top_text[:, 1:])) / 2, gain)
        return out

    def table(self) -> Any:
        """Return the rewritten columns, one row per row of the pool."""
        import pyarrow as pa

        columns: dict[str, Any] = {
            "uid": self.uid,
            "decision": self.decision.tolist(),
            "reason": self.reason.tolist(),
            "detail": pa.array(self.detail.tolist(), type=pa.string()),
            "duplicate_of": pa.array(self.twin.tolist(), type=pa.string()),
            "history": self.history.tolist(),
            "gain_kept": pa.array(self.kept, pa.int32(), mask=self.kept < 0),
        }
        if self.forgetting.rows.size or self.engine.mended.counted:
            columns |= {"counted": self.counted, "embedded": self.embedded}
        columns |= {name: nullable(values) for name, values in (self.gains | self.scores).items()}
        return pa.table(columns)
