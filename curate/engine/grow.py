"""`curate.grow`: sources in, decided rows in a pool, resumable at any instant."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from curate.encoders import ImageEncoder, load_image_encoder
from curate.encoders.precomputed import IMAGE_EPSILON, Precomputed, is_precomputed
from curate.engine import captioning, checkpoint, embedding, mend
from curate.engine import given as embeddings
from curate.engine.arrivals import Arrival, Arrivals, read
from curate.engine.binding import bind_epsilon, check_bound, settings
from curate.engine.core import Engine
from curate.engine.forget import Bar
from curate.engine.guard import open_sets, register
from curate.engine.machines import Carried, Machines, machines, repeated
from curate.engine.prepare import Prepared, prepared_batches
from curate.engine.state import Encoder, State
from curate.errors import PoolMismatchError
from curate.pool import Pool, Writer
from curate.pool.takedown import MARK
from curate.recipe import Recipe, load_recipe, recipe_from_dict
from curate.remote import Place
from curate.samples import Source
from curate.sources import Columns, open_sources

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Grown:
    """What one run did. `refused` counts by reason; `total` holds the whole pool's figures."""

    pool: str
    version: int
    seen: int
    admitted: int
    known: int
    refused: dict[str, int]
    total: dict[str, Any]
    seconds: float
    samples_per_second: float


def grow(  # noqa: PLR0913
    sources: object,
    pool: str | Place,
    *,
    recipe: Recipe | str | Path | None = None,
    options: dict[str, dict[str, Any]] | None = None,
    change_recipe: bool = False,
    source_kind: str | None = None,
    guard: Sequence[str | Place] = (),
    finish: bool = True,
    progress: Progress | None = None,
    on: str | None = None,
) -> Grown:
    """Stream sources into a pool: decode, embed, find duplicates, clean, score, admit or refuse with a reason.

    Every batch is one atomic commit. A killed run is resumed by the same call; what was decided is skipped as `known`.

    Args:
        sources: what `curate sources` lists, as a path or URL, or several in a list; or an object that is a source.
        pool: the folder of the pool, or a prefix in an object store; made if there is none.
        recipe: a Recipe or the path of a TOML file; None: the pool's own, or the defaults for a new pool.
        options: {table: {key: value}} set on top of the recipe.
        change_recipe: allow a recipe that differs from the pool's; the change is logged in the pool.
        source_kind: what the sources are, a name that `curate sources` lists; None: the recipe's, else told by a look.
        guard: evaluation sets (images or pools) that the pool keeps out from here on; kept rows near them are refused.
        finish: end the warm-up and bring all decisions up to date at the end; False where more is to come soon.
        progress: called with (rows seen, rows in all or None) after each batch.
        on: `ray`, or `ray://HOST:PORT`: a Ray cluster does the work and gives the same pool; None: this process.

    Raises:
        SourceError: a source cannot be read. RecipeError: the recipe makes no sense.
        PoolLockedError: another process writes. PoolMismatchError: another encoder or recipe.
        KeyboardInterrupt: passed on; everything committed stays.
    """
    started = time.perf_counter()
    paths = list(sources) if isinstance(sources, Sequence) and not isinstance(sources, str) else [sources]
    given = load_recipe(recipe) if isinstance(recipe, (str, Path)) else recipe
    writer = Writer(pool)
    # Opened before the pool is locked or made, so that a source that cannot be read leaves nothing behind.
    opened = _opened(paths, writer.pool(), (given or Recipe()).replace(options or {}), source_kind)
    guards = open_sets(guard)
    with writer, machines(on) as cluster:
        existing = writer.pool()
        opened, options = embeddings.settle(opened, given, options or {}, existing.state() if existing else None)
        chosen = _recipe(given, options, existing, change_recipe)
        engine = _engine(writer, existing, chosen, embeddings.image_dim(opened), cluster)
        recipe_changed = existing is not None and engine.state.recipe != existing.state()["recipe"]
        first = engine.state.rows
        images = not is_precomputed(engine.encoder.name)
        reading = functools.partial(cluster.read, engine) if cluster and images else read
        arrivals = Arrivals(opened, engine.state.sources, engine.pool, Bar(writer.path), reading)
        if guards:
            engine.ready()
        guarded = bool(guards) and register(engine, guards)
        try:
            _run(engine, arrivals, opened, recipe_changed, guarded, progress, finish, cluster)
        finally:
            captioning.close(engine)
        return _summary(engine, first, arrivals, paths, time.perf_counter() - started)


def _opened(paths: Sequence[object], pool: Pool | None, recipe: Recipe, kind: str | None) -> list[Source]:
    """Return the sources, opened by the recipe's columns, where the pool knows them from places that moved."""
    named = recipe.as_dict()["source"]
    columns = Columns(**{key: value or None for key, value in named.items() if key != "kind"})
    saved = {} if pool is None else pool.state()["sources"]
    roots = {name: source["root"] for name, source in saved.items()}
    return open_sources(paths, columns, roots, kind or named["kind"])


def _recipe(given: Recipe | None, options: dict[str, dict[str, Any]], pool: Pool | None, change: bool) -> Recipe:
    """Return the run's recipe: what was given, else the pool's; raises PoolMismatchError when they differ."""
    if pool is None:
        return (given or Recipe()).replace(options)
    own = recipe_from_dict(pool.state()["recipe"])
    asked = (given or own).replace(options)
    if asked.digest() == own.digest():
        return asked
    differences = "; ".join(asked.differences(own))
    if asked.limits.batch_size != own.limits.batch_size:
        raise PoolMismatchError(f"the batch size of a pool is fixed: {differences}")
    other_encoder = asked.binding()["encode"] != own.binding()["encode"]
    if not change or other_encoder:
        advice = "grow a new pool for it" if other_encoder else "pass --change-recipe to change it from here on"
        raise PoolMismatchError(f"the recipe differs from that of {pool.path} ({differences}); {advice}")
    return asked


def _engine(writer: Writer, pool: Pool | None, recipe: Recipe, dim: int, cluster: Machines | None) -> Engine:
    """Return the engine of a pool, made if there is none; dim: of embeddings that the sources give."""
    load = cluster.load_image if cluster else None
    if pool is not None:
        engine = open_engine(writer, pool, recipe, load)
        extra = embedding.load_extra(engine.state, recipe, writer.path, load)
    else:
        engine, extra = _new_engine(writer, recipe, dim, load)
    if cluster is not None:
        engine.make_index = cluster.index
        if not is_precomputed(engine.encoder.name):  # else captions take no detour either
            engine.load_text = cluster.load_text
    return embedding.attach(engine, extra, Carried if cluster else None)


def _new_engine(
    writer: Writer, recipe: Recipe, dim: int, load: embedding.Load | None
) -> tuple[Engine, dict[str, ImageEncoder]]:
    encoder = image_encoder(recipe, dim, load=load)
    bound = Encoder(encoder.name, encoder.fingerprint, encoder.dim, recipe.dedup.epsilon, encoder.compute)
    state = State(recipe=recipe.binding(), image=bound)
    extra = embedding.declare(state, recipe, encoder, load)
    return Engine(writer, writer.create(encoder.dim, state.as_dict()), recipe, state, encoder), extra


def image_encoder(
    recipe: Recipe, dim: int = 0, bound: Encoder | None = None, load: embedding.Load | None = None
) -> ImageEncoder:
    """Return a recipe's image encoder; dim: of given embeddings, which need none; bound: what the pool has of it."""
    name = recipe.encode.image
    if is_precomputed(name):
        return Precomputed(name, dim, IMAGE_EPSILON)
    return (load or load_image_encoder)(name, settings(recipe.encode, bound))


def open_engine(writer: Writer, pool: Pool, recipe: Recipe | None = None, load: embedding.Load | None = None) -> Engine:
    """Return the engine of an existing pool, by its own recipe or by another one, which is logged."""
    recipe = recipe or recipe_from_dict(pool.state()["recipe"])
    state = State.from_dict(pool.state())
    encoder = image_encoder(recipe, state.image.dim, state.image, load)
    check_bound(state.image, encoder.name, encoder.fingerprint, pool.path)
    writer.remove_orphans(state.step)
    if changes := recipe.differences(recipe_from_dict(state.recipe)):
        state.changes.append({"rows": state.rows, "changes": changes})
        state.recipe = recipe.binding()
        state.image.epsilon = recipe.dedup.epsilon or state.image.epsilon
        if state.text:
            state.text.epsilon = recipe.dedup.epsilon_text or state.text.epsilon
    return Engine(writer, pool, recipe, state, encoder)


def _run(
    engine: Engine,
    arrivals: Arrivals,
    sources: Sequence[Source],
    recipe_changed: bool,
    guarded: bool,
    progress: Progress | None,
    finish: bool,
    cluster: Machines | None,
) -> None:
    counts = [source.count for source in sources]
    total = None if any(count is None for count in counts) else sum(count or 0 for count in counts)
    seen = 0
    if ((recipe_changed or guarded) and engine.state.rows) or checkpoint.is_due(engine):
        # By the new recipe from here on; or a run was killed between a batch and the checkpoint that it called for.
        repeated(engine, lambda: checkpoint.run(engine, guarded=guarded))
    elif guarded:
        _touch(engine)
    rows = arrivals.batches(engine.recipe.limits.batch_size)
    with contextlib.closing(_prepared(engine, rows, cluster)) as prepared:
        for batch in prepared:
            captioning.offer(engine, repeated(engine, functools.partial(_decide, engine, batch)))
            seen += len(batch)
            if progress is not None:
                progress(seen + arrivals.known, total)
            if checkpoint.is_due(engine):
                repeated(engine, lambda: checkpoint.run(engine))
                captioning.offer(engine)
    if finish and checkpoint.is_due_at_end(engine):
        repeated(engine, lambda: checkpoint.run(engine, final=True))
    if finish and mend.is_left(engine):
        repeated(engine, lambda: checkpoint.settle(engine))
    _record_moves(engine, sources)


def _prepared(
    engine: Engine, rows: Iterator[list[Arrival]], cluster: Machines | None
) -> Generator[list[Prepared], None, None]:
    """Yield batches ready to be decided: given, prepared here, or on a cluster."""
    if is_precomputed(engine.encoder.name):
        return embeddings.prepared(rows)
    return cluster.prepared(rows) if cluster else prepared_batches(rows, embedding.preparer(engine), engine.recipe)


def _decide(engine: Engine, batch: list[Prepared]) -> Any:
    bind_epsilon(engine, batch)
    checkpoint.make_room(engine)
    return engine.step(batch)


def _record_moves(engine: Engine, sources: Sequence[Source]) -> None:
    """Commit the new roots of sources that were moved and brought nothing new."""
    moved = [s for s in sources if s.id in engine.state.sources and engine.state.sources[s.id].root != s.root]
    for source in moved:
        engine.state.sources[source.id].root = source.root
    if moved:
        _touch(engine)


def _touch(engine: Engine) -> None:
    """Commit the state without any rows."""
    engine.state.step += 1
    engine.pool = engine.writer.touch(engine.pool, engine.state.as_dict())


def _summary(engine: Engine, first: int, arrivals: Arrivals, paths: Sequence[object], seconds: float) -> Grown:
    table = engine.pool.frame(["row", "decision", "reason"])
    mine = table.filter(pl.col("row") >= first)
    seen = mine.height + arrivals.known + arrivals.barred
    if not seen:
        logging.getLogger("curate").warning("no samples in %s", ", ".join(str(path) for path in paths[:3]))
    counts = count_decisions(mine)
    if arrivals.barred:
        counts["refused"][MARK] = arrivals.barred  # counted, never stored again
    return Grown(
        pool=str(engine.pool.path),
        version=engine.pool.version,
        seen=seen,
        known=arrivals.known,
        seconds=round(seconds, 3),
        samples_per_second=round(seen / max(seconds, 1e-9), 2),
        total={"rows": table.height, **count_decisions(table)},
        **counts,
    )


def count_decisions(table: pl.DataFrame) -> dict[str, Any]:
    """Return {"admitted": n, "refused": {reason: n}} of rows; held ones count as refused."""
    refused = table.filter(pl.col("decision") != "admit")
    counts = refused.group_by("reason").len().sort("reason")
    return {
        "admitted": int((table["decision"] == "admit").sum()),
        "refused": dict(zip(counts["reason"].to_list(), counts["len"].to_list(), strict=True)),
    }
