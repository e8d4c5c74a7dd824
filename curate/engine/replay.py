"""Replay: the rows of a pool are decided once more, in memory of nothing, in the same order or in another one.

What is stored is enough: embeddings, captions, labels, hashes and measures, so that neither images nor encoders are
needed. In the order of arrival everything is repeated as the pool's versions tell it: batches, checkpoints, changes of
the recipe, evaluation sets. Every decision must come out the same.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from curate.cleaning import Quality, refusal
from curate.encoders import TextEncoder
from curate.encoders.precomputed import is_precomputed
from curate.engine import checkpoint
from curate.engine.arrivals import Arrival
from curate.engine.core import Engine
from curate.engine.grow import count_decisions
from curate.engine.prepare import Prepared
from curate.engine.state import Encoder, State
from curate.errors import UsageError
from curate.pool import QUALITY, Pool, Writer, vectors
from curate.recipe import recipe_from_dict
from curate.samples import Sample
from curate_kernels.arrays import F32, I64

ORDERS = ("arrival", "shuffle")
_COMPARED = ("decision", "reason", "duplicate_of")
_PLACE = ("source", "key", "path", "offset", "size")
_READ = ("uid", *_PLACE, "sha256", "pixel_hash", "phash", "width", "height", "format", "caption", "label", "group")
_STORED = (*_READ, "label_original", "meta", "reason", "embedded", *QUALITY)


@dataclass(frozen=True, slots=True)
class _Moment:
    """One commit that decided: `what` it was, the `rows` of a batch, and the state that it led to."""

    what: str
    rows: int
    state: dict[str, Any]


class _Stored:
    """Stands for both encoders: what it is given is encoded already."""

    def __init__(self, bound: Encoder, nonnegative: bool) -> None:
        self.name, self.dim, self.fingerprint = bound.name, bound.dim, bound.fingerprint
        self.nonnegative, self.compute = nonnegative, bound.compute
        self.epsilon: float | None = bound.epsilon
        self.next: F32 = np.zeros((0, bound.dim), dtype=np.float32)

    def prepare(self, pixels: Any) -> Any:
        return pixels

    def encode(self, prepared: Sequence[Any]) -> F32:
        return self.next


@dataclass(slots=True)
class _Place:
    """Stands for the source that a row came from."""

    id: str
    root: str = ""
    kind: str = "replay"
    fingerprint: str = ""
    count: int | None = None

    def rows(self, start: int = 0) -> Iterator[Sample]:
        return iter(())


def replay(pool: str | Path, *, order: str = "arrival", seed: int = 0) -> dict[str, Any]:
    """Decide a pool's rows once more from an empty state, and compare with what the pool says. Changes nothing.

    order: `arrival`, which must give the same decisions; or `shuffle`, which tells how much the order mattered.
    seed: of the shuffle.

    Returns {"pool", "version", "order", "rows", "equal" (decision, reason and twin of every row), "differing",
    "share", "changed": {"was → is": rows}, "first": the first differing row, "admitted": [was, is],
    "admitted_differ": share of the admitted sets that is in one of them only, where a duplicate counts as what it
    duplicates, "repeated": whether every version was there to be repeated; after a takedown they are gone, and
    checkpoints come when they are due, "mended": rows replayed with the caption that they were given later, for
    the embeddings of the first are gone (labels are set right once more), "reviewed": rows that people decided, which
    replay leaves to the engine; where there are any of either, decisions may differ}.

    Needs room for a copy of the pool in the folder for temporary files.

    Raises PoolError when the pool cannot be read, UsageError for an unknown order.
    """
    if order not in ORDERS:
        raise UsageError(f"order {order!r} is unknown; there are: {', '.join(ORDERS)}")
    opened = Pool.open(pool)
    rows = np.arange(opened.rows)
    moments = _moments(opened) if order == "arrival" else None
    repeated = moments is not None
    if order == "shuffle":
        np.random.default_rng(seed).shuffle(rows)
    with tempfile.TemporaryDirectory(prefix="curate-replay-") as folder, Writer(Path(folder) / "pool") as writer:
        engine = _engine(opened, writer, plan := moments or _when_due(opened))
        _run(engine, opened, rows, plan, given=repeated)
        now = engine.pool.frame(["uid", *_COMPARED])
    was = opened.frame(["row", "uid", "source", "key", *_COMPARED])
    mended = opened.dataset.count_rows(filter="caption_original IS NOT NULL")
    told = {"pool": str(pool), "version": opened.version, "order": order, "rows": opened.rows}
    reviewed = opened.dataset.count_rows(filter="review IS NOT NULL") if "review" in opened.columns else 0
    told |= {"repeated": repeated, "mended": int(mended), "reviewed": int(reviewed)}
    return told | ({"seed": seed} if order == "shuffle" else {}) | _compared(was, now)


# What happened, in order


def _moments(pool: Pool) -> list[_Moment] | None:
    """Return every commit that decided something and is still in force, or None where a takedown removed some."""
    found: dict[int, list[_Moment]] = {}
    past: list[_Moment] = []
    for version in (entry["version"] for entry in pool.versions()):
        event = pool.event(version)
        if event["what"] == "rollback":
            past = list(found.get(event["equals"], []))
        elif event["what"] in ("batch", "checkpoint", "eviction", "review"):
            rows = event["rows"] if event["what"] == "batch" else 0
            past.append(_Moment(event["what"], rows, pool.state(version)))
        found[version] = past.copy()
    return past if sum(moment.rows for moment in past) == pool.rows else None


def _when_due(pool: Pool) -> list[_Moment]:
    """Return batches of the recipe's size, all by the newest state; checkpoints come when they are due."""
    state = pool.state()
    size = state["recipe"]["limits"]["batch_size"]
    return [_Moment("batch", min(size, pool.rows - start), state) for start in range(0, pool.rows, size)]


# Deciding once more


def _engine(pool: Pool, writer: Writer, moments: Sequence[_Moment]) -> Engine:
    first = moments[0].state if moments else pool.state()
    bound = Encoder(**first["image"])
    # Encoders without negative features (pooled after a ReLU) never give one; any other gives some in every row.
    given = is_precomputed(bound.name)
    nonnegative = not given and all(
        vectors(b.column("image"), bound.dim).min(initial=0.0) >= 0.0 for b in pool.scan(["image"])
    )
    state = State(recipe=first["recipe"], image=bound)
    empty = writer.create(bound.dim, state.as_dict())
    return Engine(writer, empty, recipe_from_dict(state.recipe), state, _Stored(bound, nonnegative))


def _run(engine: Engine, pool: Pool, rows: I64, moments: Sequence[_Moment], given: bool) -> None:
    """Decide rows by moments; given: checkpoints come as the moments say, else when they are due."""
    engine.ready()
    start = 0
    for moment in moments:
        guarded = _bind(engine, pool, moment.state)
        if not given:
            checkpoint.make_room(engine)
        if moment.what == "batch":
            engine.step(_prepared(engine, pool, rows[start : start + moment.rows]))
            start += moment.rows
        elif moment.what == "eviction":
            checkpoint.make_room(engine)
        else:
            warming = moment.state["checkpoint"]["warming"]
            checkpoint.run(engine, final=not warming, guarded=guarded)
        if not given and checkpoint.is_due(engine):
            checkpoint.run(engine)
    if not given and checkpoint.is_due_at_end(engine):
        checkpoint.run(engine, final=True)


def _bind(engine: Engine, pool: Pool, to: dict[str, Any]) -> bool:
    """Bring recipe, near-duplicate distances and evaluation sets to what held then; tell whether there are new sets."""
    state = engine.state
    if to["recipe"] != state.recipe:
        state.recipe, engine.recipe = to["recipe"], recipe_from_dict(to["recipe"])
        if state.checkpoint is None:
            engine.gate.warming = engine.recipe.clean.captions
        engine.rebuild()
    state.image.epsilon = to["image"]["epsilon"]
    if to["text"] and state.text is None:
        state.text = Encoder(**to["text"])
        engine.pool = engine.writer.add_view(engine.pool, "text", state.text.dim)
        engine.text_encoder = cast("TextEncoder", _Stored(state.text, nonnegative=False))
    if state.text:
        state.text.epsilon = to["text"]["epsilon"]
    new = [name for name in to["guards"] if name not in state.guards]
    for name in new:
        engine.guard.add_saved(pool.sums(name))
        state.guards.append(name)
    return bool(new)


def _prepared(engine: Engine, pool: Pool, rows: I64) -> list[Prepared]:
    """Return a batch as it was when its images had been decoded, and give the encoders what they gave then."""
    state = engine.state
    views = ["image", "text"] if state.text else ["image"]
    marks = ["review"] if "review" in pool.columns else []
    table = pool.take(rows.tolist(), [*_STORED, *marks, *views]).combine_chunks()
    image = vectors(table.column("image"), state.image.dim)
    embedded = table.column("embedded").to_numpy()
    stored = table.drop_columns(views).to_pylist()
    _next(engine.encoder, image[embedded])
    if state.text:
        has_text = table.column("caption").is_valid().to_numpy()
        _next(engine.text_encoder, vectors(table.column("text"), state.text.dim)[has_text])
    return [_row(engine, row, int(at)) for row, at in zip(stored, rows, strict=True)]


def _next(encoder: Any, rows: F32) -> None:
    encoder.next = rows


def _row(engine: Engine, row: dict[str, Any], at: int) -> Prepared:
    measures = {name.removeprefix("quality_"): row[name] for name in QUALITY if row[name] is not None}
    quality = Quality(**measures) if {"contrast", "sharpness"} <= measures.keys() else None
    reason = row["reason"]
    if row["embedded"]:
        reason = refusal(row["width"], row["height"], quality, engine.recipe.clean) if quality else ""
    told = {name: row[name] for name in (*_PLACE, "caption", "label", "group")}
    if row["label_original"] is not None and not row.get("review"):
        told["label"] = row["label_original"]  # is set right again when it was
    sample = Sample(**told, data=b"", meta=json.loads(row["meta"]))
    return Prepared(
        arrival=Arrival(sample, row["uid"], row["sha256"], _Place(row["source"]), at + 1),
        reason=reason,
        width=row["width"],
        height=row["height"],
        format=row["format"],
        pixel_hash=row["pixel_hash"],
        quality=quality,
        crop=np.zeros((0,), dtype=np.uint8) if row["embedded"] else None,
        phash=row["phash"] or "",
    )


# Comparing


def _compared(was: pl.DataFrame, now: pl.DataFrame) -> dict[str, Any]:
    both = was.join(now, on="uid", how="left", suffix="_now").sort("row")
    differing = both.filter(pl.any_horizontal(pl.col(n).ne_missing(pl.col(f"{n}_now")) for n in _COMPARED))
    changes = Counter(
        f"{decision} {reason} → {decision_now} {reason_now}"
        for decision, reason, decision_now, reason_now in differing.select(
            "decision", "reason", "decision_now", "reason_now"
        ).iter_rows()
        if (decision, reason) != (decision_now, reason_now)
    )
    moved = sum(changes.values())
    out: dict[str, Any] = {
        "equal": differing.is_empty(),
        "differing": differing.height,
        "decided_otherwise": moved,
        "share": round(moved / max(both.height, 1), 6),
        "changed": dict(changes.most_common()),
        "admitted": [count_decisions(table)["admitted"] for table in (was, now)],
        "admitted_differ": _sets_differ(both),
    }
    if not differing.is_empty():
        names = ["row", "uid", "source", "key", *_COMPARED, *(f"{name}_now" for name in _COMPARED)]
        out["first"] = differing.select(names).row(0, named=True)
    return out


def _sets_differ(both: pl.DataFrame) -> float:
    """Return which share of two admitted sets is in one of them only; a duplicate counts as what it duplicates."""
    group = pl.coalesce("duplicate_of", "uid")
    was = set(both.filter(pl.col("decision") == "admit")["uid"])
    now = set(both.filter(pl.col("decision_now") == "admit").select(group.alias("g"))["g"])
    return round(len(was ^ now) / max(len(was | now), 1), 6)
