"""Checkpoints: the gates are fitted again on everything counted, every row is scored by exact leave-one-out, thresholds
are calibrated, and what the new verdicts change is decided again, in order of arrival.

Rows that pass now (held back or refused by a gate before) and duplicates of rows that are dropped now go through the
online rule once more. All of it is one commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.cleaning import Quality, refusal
from curate.engine.decisions import append_history, history_entry
from curate.engine.gate import HELD, SCORE_COLUMNS, Gate
from curate.engine.rows import nullable
from curate.engine.state import Checkpoint
from curate.scoring.calibrate import Threshold, calibrate
from curate.scoring.labels import LabelModel
from curate.scoring.moments import ClassMoments, PairMoments
from curate.scoring.pairs import PairModel
from curate_kernels.arrays import F32, F64, I64
from curate_selectors.types import Stage

if TYPE_CHECKING:
    from curate.engine.core import Engine

_MIN_ROWS = 64  # to fit anything
_RIDGE_ROWS = 2048
_NULL_ROWS = 8192
_SHUFFLES = 3
_LABEL_ROWS = 512
_GAINS = ("gain", "gain_image", "gain_text")
_READ = ["uid", "decision", "reason", "duplicate_of", "history", "counted", "embedded", "caption", "label", *_GAINS]
_READ += ["width", "height", "quality_contrast", "quality_sharpness"]
_GATE_REASONS = ("caption_mismatch", "label_noise", HELD)


def is_due(engine: Engine) -> bool:
    """Tell whether the counted rows have grown enough since the last checkpoint."""
    clean, last = engine.recipe.clean, engine.state.checkpoint
    for count, last_count in (
        (engine.state.pairs, last.pairs if last else 0),
        (engine.state.labels, last.labels if last else 0),
    ):
        if count >= clean.warmup and count >= clean.checkpoint_growth * last_count:
            return True
    return False


def is_due_at_end(engine: Engine) -> bool:
    """Tell whether the end of a run calls for a checkpoint: rows are held, or 1 % more were counted since the last."""
    last, state = engine.state.checkpoint, engine.state
    new = state.pairs + state.labels - (last.pairs + last.labels if last else 0)
    return state.held > 0 or new > 0.01 * (state.pairs + state.labels)


def load(engine: Engine, saved: Checkpoint) -> None:
    """Restore sums and gates as they were right after a checkpoint."""
    if "pairs" in saved.sums:
        engine.sums.pairs = PairMoments.from_arrays(engine.pool.sums(saved.sums["pairs"]))
    if "labels" in saved.sums:
        engine.sums.labels = ClassMoments.from_arrays(engine.pool.sums(saved.sums["labels"]))
    gate = _models(engine, (saved.ridges[0], saved.ridges[1]), saved.warming)
    gate.caption = Threshold(**saved.caption) if saved.caption else None
    gate.classes = {int(label): Threshold(**value) for label, value in saved.classes.items()}
    engine.gate = gate


def run(engine: Engine, final: bool = False) -> None:
    """Refit, re-score, re-decide, and commit. The final one of a run ends the warm-up, however few rows there are."""
    engine.ready()
    clean, pairs = engine.recipe.clean, engine.state.pairs
    warming = clean.captions and engine.gate.warming and pairs < clean.warmup and not (final and pairs > 0)
    gate = _models(engine, (1.0, 1.0), warming)
    table = engine.pool.frame(_READ)
    counted = table["counted"].to_numpy()
    if gate.pairs is not None:
        _fit_ridges(engine, gate, np.flatnonzero(counted & table["caption"].is_not_null().to_numpy()))
    scores = _score_all(engine, gate)
    _calibrate(engine, gate, scores, counted, table["label"].to_list())
    engine.gate = gate
    changes = _Changes(engine, table, scores)
    changes.judge()
    state = engine.state
    state.step += 1
    state.held = int((changes.decision == "hold").sum())
    state.checkpoint = Checkpoint(
        batches=state.batches,
        pairs=state.pairs,
        labels=state.labels,
        sums=_save_sums(engine),
        ridges=list(gate.pairs.ridges) if gate.pairs else [1.0, 1.0],
        caption=gate.caption.as_dict() if gate.caption else None,
        classes={str(label): t.as_dict() for label, t in sorted(gate.classes.items())},
        warming=gate.warming,
    )
    engine.pool = engine.writer.update(engine.pool, changes.table(), state.as_dict())
    engine.rebuild()


def _models(engine: Engine, ridges: tuple[float, float], warming: bool) -> Gate:
    clean, table = engine.recipe.clean, engine.recipe.score
    gate = Gate(warming=warming, judge_captions=clean.captions, judge_labels=clean.labels)
    pairs, labels = engine.sums.pairs, engine.sums.labels
    if pairs is not None and pairs.n >= _MIN_ROWS and not warming:
        gate.pairs = PairModel(pairs, table, ridges)
    if labels is not None and labels.count.sum() >= _MIN_ROWS and (labels.count > 0).sum() > 1:
        gate.labels = LabelModel(labels, table)
    return gate


def _save_sums(engine: Engine) -> dict[str, str]:
    step, sums = engine.state.step, {}
    for name, part in (("pairs", engine.sums.pairs), ("labels", engine.sums.labels)):
        if part is not None:
            sums[name] = engine.writer.save_sums(step, part.arrays())
    return sums


def _sample(engine: Engine, ordinals: I64, most: int) -> Any:
    """Return the Arrow table of at most `most` of these rows, evenly spread over their order of arrival."""
    chosen = ordinals[np.unique(np.linspace(0, ordinals.size - 1, min(most, ordinals.size)).astype(np.int64))]
    return engine.pool.take(chosen.tolist(), engine.columns()).combine_chunks()


def _fit_ridges(engine: Engine, gate: Gate, ordinals: I64) -> None:
    assert gate.pairs is not None
    image, text, _, _ = engine.table_rows(_sample(engine, ordinals, _RIDGE_ROWS))
    gate.pairs.choose_ridges(*gate.pairs.project(engine.features(image), text))


def _score_all(engine: Engine, gate: Gate) -> dict[str, F32]:
    """Return every score column over the whole pool, streamed: leave-one-out where counted, else predictive."""
    parts: dict[str, list[F32]] = {name: [] for name in SCORE_COLUMNS}
    for batch in engine.pool.scan(engine.columns("counted", "embedded")):
        image, text, has_text, labels = engine.table_rows(batch)
        counted, usable = (batch.column(c).to_numpy(zero_copy_only=False) for c in ("counted", "embedded"))
        rows = engine.gate_rows(image, text, has_text, labels, usable)
        for name, values in gate.score(rows, counted).items():
            parts[name].append(values)
    return {name: np.concatenate(values) if values else np.zeros(0, np.float32) for name, values in parts.items()}


def _calibrate(engine: Engine, gate: Gate, scores: dict[str, F32], counted: Any, labels: Sequence[str | None]) -> None:
    clean = engine.recipe.clean
    rng = np.random.default_rng(0)  # the calibration depends on the rows alone
    pvi = scores["pvi"][counted & np.isfinite(scores["pvi"])].astype(np.float64)
    # A family that predicts no better than the marginal has collapsed (mean PVI <= 0): it must not judge.
    if gate.pairs is not None and pvi.size >= _MIN_ROWS and pvi.mean() > 0:
        wrong = _shuffled_pvi(engine, gate.pairs, np.flatnonzero(counted & np.isfinite(scores["pvi"])), rng)
        gate.caption = calibrate(pvi, wrong, clean.caption_loss, clean.min_precision)
    s1 = scores["s1_label"]
    usable = np.flatnonzero(counted & np.isfinite(s1))
    # For labels the median tells: the classes are overconfident, and a few flipped labels cost dozens of bits each.
    if gate.labels is None or not usable.size or np.median(scores["pvi_label"][usable]) <= 0:
        return
    number = np.array([-1 if name is None else engine.class_number.get(name, -1) for name in labels], dtype=np.int64)
    classes = {}
    for label in np.unique(number[usable]):
        own = usable[number[usable] == label]
        if own.size >= clean.min_class:
            wrong = _foreign_s1(engine, gate.labels, usable[number[usable] != label], int(label), rng)
            if wrong.size >= clean.min_class:
                own_scores = -s1[own].astype(np.float64)
                threshold = calibrate(own_scores, -wrong, clean.label_loss, clean.min_precision)
                # A label that is likelier than not is never noise, however well its class is separated.
                classes[int(label)] = replace(threshold, value=min(threshold.value, -1.0))
    gate.classes = classes


def _shuffled_pvi(engine: Engine, model: PairModel, ordinals: I64, rng: np.random.Generator) -> F64:
    """Return the PVI of images with the captions of other images."""
    image, text, _, _ = engine.table_rows(_sample(engine, ordinals, _NULL_ROWS))
    x, y = model.project(engine.features(image), text)
    unseen = np.zeros(x.shape[0], dtype=np.bool_)
    parts = []
    for _ in range(_SHUFFLES):
        # Neighbours in a random cyclic order: no row keeps its own caption.
        order = rng.permutation(x.shape[0])
        parts.append(model.score(x[order], y[np.roll(order, 1)], unseen)["pvi"])
    return np.concatenate(parts).astype(np.float64)


def _foreign_s1(engine: Engine, model: LabelModel, others: I64, label: int, rng: np.random.Generator) -> F64:
    """Return s1 of rows of other classes as if they bore this label."""
    if not others.size:
        return np.zeros(0)
    chosen = np.sort(rng.choice(others, min(_LABEL_ROWS, others.size), replace=False))
    image, _, _, _ = engine.table_rows(engine.pool.take(chosen.tolist(), engine.columns()).combine_chunks())
    z = model.project(engine.features(image))
    claimed = np.full(z.shape[0], label, dtype=np.int64)
    return model.score(z, claimed, np.zeros(z.shape[0], dtype=np.bool_))["s1_label"].astype(np.float64)


class _Changes:
    """The columns that a checkpoint rewrites, while rows are judged again."""

    def __init__(self, engine: Engine, table: Any, scores: dict[str, F32]) -> None:
        self.engine, self.scores = engine, scores
        self.uid = table["uid"].to_list()
        self.decision, self.reason = (np.array(table[c].to_list(), dtype=object) for c in ("decision", "reason"))
        self.twin = np.array(table["duplicate_of"].to_list(), dtype=object)
        self.history = np.array(table["history"].to_list(), dtype=object)
        self.gains = {name: table[name].cast(float).fill_null(np.nan).to_numpy().astype(np.float32) for name in _GAINS}
        self.quality = table.select("width", "height", "quality_contrast", "quality_sharpness")
        self.before = (self.decision.copy(), self.reason.copy())
        captions = table["caption"].is_not_null().to_numpy()
        embedded = table["embedded"].to_numpy()
        self.rows = engine.gate_rows(
            np.zeros((len(self.uid), 0), np.float32), np.zeros((len(self.uid), 0), np.float32),
            captions, table["label"].to_list(), embedded,
        )  # fmt: skip
        self.verdict = np.array(engine.gate.verdicts(self.rows, scores), dtype=object)

    def judge(self) -> None:
        """Drop what fails now, and send through the online rule what may enter now."""
        admitted = self.decision == "admit"
        dropped = np.flatnonzero(admitted & (self.verdict != ""))
        self.engine.index.remove([self.uid[i] for i in dropped])
        gone = {self.uid[i] for i in dropped}
        orphaned = np.array([twin in gone for twin in self.twin], dtype=np.bool_)
        for i in np.flatnonzero(orphaned):
            self.verdict[i] = self._poor(int(i)) or self.verdict[i]
        again = np.isin(self.reason, _GATE_REASONS) | orphaned
        for i in np.flatnonzero((admitted | again) & (self.verdict != "")):
            self._set(int(i), "hold" if self.verdict[i] == HELD else "refuse", str(self.verdict[i]), None)
        waiting = np.flatnonzero(again & ~admitted & (self.verdict == ""))
        size = self.engine.recipe.limits.batch_size
        for start in range(0, waiting.size, size):
            self._admit(waiting[start : start + size])
        self._log()

    def _poor(self, i: int) -> str:
        """Return the quality refusal that a row would have had if it had duplicated nothing, or ""."""
        width, height, contrast, sharpness = self.quality.row(i)
        return refusal(width, height, Quality(contrast, sharpness), self.engine.recipe.clean)

    def _admit(self, rows: I64) -> None:
        table = self.engine.pool.take(rows.tolist(), self.engine.columns("pixel_hash")).combine_chunks()
        image, text, has_text, _ = self.engine.table_rows(table)
        stage = np.full(rows.size, Stage.FREE, dtype=np.uint8)
        pixels = table.column("pixel_hash").to_pylist()
        engine = self.engine
        decided = engine.decide(engine.index, [self.uid[i] for i in rows], pixels, image, text, has_text, stage)
        for name in _GAINS:
            self.gains[name][rows] = getattr(decided.decision, name)
        for place, i in enumerate(rows):
            self._set(int(i), *decided.outcome(place, ""), decided.twins[place][0] or None)

    def _set(self, i: int, decision: str, reason: str, twin: str | None) -> None:
        self.decision[i], self.reason[i], self.twin[i] = decision, reason, twin

    def _log(self) -> None:
        """Write every changed decision into its row's history, as a new decision."""
        changed = (self.decision != self.before[0]) | (self.reason != self.before[1])
        for i in np.flatnonzero(changed):
            thresholds = self.engine.gate.thresholds(int(self.rows.label[i]))
            place, outcome = ("checkpoint", self.engine.state.step + 1), (self.decision[i], self.reason[i])
            entry = history_entry(place, outcome, self.scores, int(i), thresholds)
            self.history[i] = append_history(self.history[i], entry)

    def table(self) -> Any:
        """Return the rewritten columns, one row per row of the pool."""
        import pyarrow as pa

        columns: dict[str, Any] = {
            "uid": self.uid,
            "decision": self.decision.tolist(),
            "reason": self.reason.tolist(),
            "duplicate_of": pa.array(self.twin.tolist(), type=pa.string()),
            "history": self.history.tolist(),
        }
        columns |= {name: nullable(values) for name, values in (self.gains | self.scores).items()}
        return pa.table(columns)
