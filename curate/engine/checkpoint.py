"""Checkpoints: the gates are fitted again on everything counted, every row is scored by exact leave-one-out, thresholds
are calibrated, and what the new verdicts change is decided again, in order of arrival.

Rows that pass now (held back or refused by a gate before) and duplicates of rows that are dropped now go through the
online rule once more. All of it is one commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from curate.engine import bound, mend, prefer
from curate.engine.changes import READ, Changes, Forgetting
from curate.engine.gate import SCORE_COLUMNS, Gate
from curate.engine.state import Checkpoint
from curate.engine.thresholds import MIN_ROWS, Before, calibrate_gates, sample
from curate.engine.voters import class_numbers, let_vote, places, voters
from curate.scoring.calibrate import Threshold
from curate.scoring.labels import LabelModel
from curate.scoring.moments import ClassMoments, PairMoments
from curate.scoring.pairs import RIDGE_ROWS, PairModel
from curate_kernels.arrays import F32, I64

if TYPE_CHECKING:
    from curate.engine.core import Engine


_MANY, _GROWTH_OF_MANY = 100_000, 2.0  # counted rows beyond which gates change little, and a checkpoint takes minutes


def is_due(engine: Engine) -> bool:
    """Tell whether the counted rows have grown enough since the last checkpoint."""
    clean, last = engine.recipe.clean, engine.state.checkpoint
    for count, last_count in (
        (engine.state.pairs, last.pairs if last else 0),
        (engine.state.labels, last.labels if last else 0),
    ):
        growth = clean.checkpoint_growth if last_count < _MANY else max(clean.checkpoint_growth, _GROWTH_OF_MANY)
        if count >= clean.warmup and count >= growth * last_count:
            return True
    return False


def is_due_at_end(engine: Engine) -> bool:
    """Tell whether the end of a run calls for a checkpoint: rows are held, or the pool grew by 1 % since the last.

    Without captions and labels there is no gate to fit, but gains age all the same.
    """
    last, state = engine.state.checkpoint, engine.state
    few = 0.01 * state.batches if engine.recipe.dedup.keep == "first" else 0  # any batch may hold a better copy
    return state.held > 0 or state.batches - (last.batches if last else 0) > few


def load(engine: Engine, saved: Checkpoint) -> None:
    """Restore sums and gates as they were right after a checkpoint."""
    if "pairs" in saved.sums:
        engine.sums.pairs = PairMoments.from_arrays(engine.pool.sums(saved.sums["pairs"]))
    if "labels" in saved.sums:
        engine.sums.labels = ClassMoments.from_arrays(engine.pool.sums(saved.sums["labels"]))
    gate = _models(engine, (saved.ridges[0], saved.ridges[1]), saved.warming)
    if gate.labels is not None:
        table = engine.pool.frame(["counted", "label"], where=f"batch < {saved.batches}")
        number = class_numbers(engine, table["label"].to_list())
        let_vote(engine, gate.labels, voters(table["counted"].to_numpy(), number))
    gate.caption = Threshold(**saved.caption) if saved.caption else None
    gate.classes = {int(label): Threshold(**value) for label, value in saved.classes.items()}
    engine.gate = gate


def run(engine: Engine, final: bool = False, guarded: bool = False, forgetting: Forgetting | None = None) -> int:
    """Refit, re-score, re-decide, and commit. The final one of a run ends the warm-up, however few rows there are.

    guarded: an evaluation set is new, and kept rows may leak it; forgetting: rows whose share has left the sums already
    Returns how many duplicates of forgotten rows took their place.
    """
    engine.ready()
    if forgetting is None:
        mend.run(engine)
    return _decide(engine, final, guarded, forgetting or Forgetting(), False)


def settle(engine: Engine) -> None:
    """Mend what the last checkpoint of a run refused, captions by the captioner too, and decide it again."""
    engine.ready()
    if mend.run(engine, last=True):
        _decide(engine, True, False, Forgetting(), True)
        return
    assert engine.state.checkpoint is not None
    engine.state.checkpoint.settled = True
    engine.state.step += 1
    engine.pool = engine.writer.touch(engine.pool, engine.state.as_dict())


def revise(engine: Engine) -> None:
    """Decide everything again after a review; what it says lies in `engine.mended`."""
    last = engine.state.checkpoint
    _decide(engine, False, False, Forgetting(), last is not None and last.settled, "review")


def _decide(
    engine: Engine, final: bool, guarded: bool, forgetting: Forgetting, settled: bool, what: str = "checkpoint"
) -> int:
    clean, pairs = engine.recipe.clean, engine.state.pairs
    warming = clean.captions and engine.gate.warming and pairs < clean.warmup and not (final and pairs > 0)
    gate = _models(engine, (1.0, 1.0), warming)
    table = engine.mended.over(engine.pool.frame(_read(engine, "caption_original", "label_original")))
    counted = table["counted"].to_numpy().copy()
    counted[forgetting.rows] = False
    if gate.pairs is not None:
        _fit_ridges(engine, gate, np.flatnonzero(counted & table["caption"].is_not_null().to_numpy()))
    number = class_numbers(engine, table["label"].to_list())
    voting = voters(counted, number)
    if gate.labels is not None:
        let_vote(engine, gate.labels, voting)
    place = places(table, voting)
    scores = _score_all(engine, gate, place)
    first = class_numbers(engine, table["label_original"].to_list())
    before = Before(table["caption_original"].is_not_null().to_numpy(), first)
    calibrate_gates(engine, gate, scores, counted, number, place, before)
    engine.gate = gate
    changes = Changes(engine, table, scores, forgetting)
    if guarded:
        changes.keep_out(_leaks(engine))
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
        settled=settled,
    )
    engine.pool = engine.writer.update(engine.pool, changes.table(), state.as_dict(), engine.mended.tables(), what)
    engine.mended = mend.Mended()
    engine.rebuild()
    return int((changes.decision[changes.moved] == "admit").sum())


def make_room(engine: Engine) -> None:
    """Commit evictions where the next batch might not fit under the bound; thresholds and scores stay as they are."""
    engine.ready()
    if not bound.is_crowded(engine, len(engine.index)):
        return
    table = engine.pool.frame(_read(engine, *SCORE_COLUMNS))
    scores = {c: table[c].cast(float).fill_null(np.nan).to_numpy().astype(np.float32) for c in SCORE_COLUMNS}
    changes = Changes(engine, table, scores, Forgetting())
    changes.judge()
    engine.state.step += 1
    engine.pool = engine.writer.update(engine.pool, changes.table(), engine.state.as_dict(), what="eviction")
    engine.rebuild()


def _read(engine: Engine, *more: str) -> list[str]:
    review = [name for name in ("review",) if name in engine.pool.columns]
    return list(dict.fromkeys([*READ, *prefer.columns(engine), *review, *more]))


def _leaks(engine: Engine) -> list[str]:
    """Return what each row of the pool leaks of the registered evaluation sets, or ""."""
    leaks: list[str] = []
    for batch in engine.pool.scan(engine.columns("pixel_hash")):
        image, _, _, _ = engine.table_rows(batch)
        leaks += engine.guard.leaks(image, batch.column("pixel_hash").to_pylist(), engine.state.image.epsilon)
    return leaks


def _models(engine: Engine, ridges: tuple[float, float], warming: bool) -> Gate:
    clean, table = engine.recipe.clean, engine.recipe.score
    gate = Gate(warming=warming, judge_captions=clean.captions, judge_labels=clean.labels)
    pairs, labels = engine.sums.pairs, engine.sums.labels
    if pairs is not None and pairs.n >= MIN_ROWS and not warming:
        gate.pairs = PairModel(pairs, table, ridges)
    if labels is not None and labels.count.sum() >= MIN_ROWS and (labels.count > 0).sum() > 1:
        gate.labels = LabelModel(labels, table)
    return gate


def _save_sums(engine: Engine) -> dict[str, str]:
    step, sums = engine.state.step, {}
    for name, part in (("pairs", engine.sums.pairs), ("labels", engine.sums.labels)):
        if part is not None:
            sums[name] = engine.writer.save_sums(step, part.arrays())
    return sums


def _fit_ridges(engine: Engine, gate: Gate, ordinals: I64) -> None:
    assert gate.pairs is not None
    image, text, _, _ = engine.table_rows(sample(engine, ordinals, RIDGE_ROWS))
    gate.pairs.choose_ridges(*gate.pairs.project(engine.features(image), text))


def _score_all(engine: Engine, gate: Gate, place: I64) -> dict[str, F32]:
    """Return every score column over the whole pool, streamed: leave-one-out where counted, else predictive."""
    parts: dict[str, list[F32]] = {name: [] for name in SCORE_COLUMNS}
    start = 0
    for batch in engine.pool.scan(engine.columns("counted", "embedded")):
        image, text, has_text, labels = engine.table_rows(batch)
        counted, usable = (batch.column(c).to_numpy(zero_copy_only=False) for c in ("counted", "embedded"))
        if engine.mended:
            counted = counted | np.isin(batch.column("row").to_numpy(), engine.mended.counted)
        rows = engine.gate_rows(image, text, has_text, labels, usable)
        stop = start + batch.num_rows
        for name, values in gate.score(rows, counted, place[start:stop]).items():
            parts[name].append(values)
        start = stop
    return {name: np.concatenate(values) if values else np.zeros(0, np.float32) for name, values in parts.items()}
