"""`curate embed`: embeddings of one more encoder for the rows that a pool has, from the images where they lie."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from curate.distributed.bulk import each
from curate.distributed.carried import once
from curate.distributed.cluster import connected
from curate.encoders import ImageEncoder, load_image_encoder
from curate.encoders.precomputed import is_precomputed
from curate.engine.binding import check_bound, note_compute, settings
from curate.engine.embed_part import Filler, Filling, forget_parts, told
from curate.engine.embedding import check_free, folder
from curate.engine.examine import terms
from curate.engine.grow import image_encoder
from curate.engine.state import Encoder, State
from curate.errors import UsageError
from curate.pool import Pool, Writer
from curate.pool.fill import commit, fill, fragments
from curate.recipe import EncodeTable, Recipe, recipe_from_dict

_COMMIT_SECONDS = 60.0
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Embedded:
    """What one run did. embedded: rows that got a vector; unread: those whose image is gone or has changed."""

    pool: str
    version: int
    name: str
    embedded: int
    unread: int
    seconds: float


def embed(
    pool: str | Path,
    name: str,
    encoder: str = "",
    *,
    run: Mapping[str, Any] | None = None,
    on: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Embedded:
    """Add the column `name` with the rows of a further image encoder; what grows the pool later fills it, too.

    encoder: its name; empty for a column that is there. run: device, precision, compile and cache, as in [encode].
    on: None for this process; `ray` or `ray://HOST:PORT` for the workers of a cluster, which read the images where
        they lie and write the column, a fragment each; the result is the same

    A killed run is resumed by the same call. Rows whose image is gone stay null; run it again once the images are back.

    Raises:
        UsageError: the name is taken or no name, or embeddings were given. PoolMismatchError: the column is another
        encoder's. EncoderError: as `load_image_encoder`. PoolLockedError: another process writes.
    """
    started = time.perf_counter()
    cluster = connected(on) if on else contextlib.nullcontext()
    with cluster as ray, Writer(Pool.open(pool).path) as writer:
        opened = Pool.open(writer.path)
        state = State.from_dict(opened.state())
        recipe = recipe_from_dict(state.recipe).replace({"encode": dict(run or {})})
        writer.remove_orphans(state.step)
        least = _least(state)
        made, opened = _declared(writer, opened, state, name, encoder, recipe.encode, ray)
        filling = _filling(opened, state, name, recipe, least)
        if ray is None:
            counts = _filled(writer, opened, filling, made, progress)
        else:
            counts = _filled_on(ray, writer, opened, filling, state, progress)
        version = Pool.open(writer.path).version
    return Embedded(str(pool), version, name, *counts, seconds=round(time.perf_counter() - started, 3))


def _least(state: State) -> int:
    """Return how images are decoded for the pool's own encoder, as they are when the pool grows."""
    own = recipe_from_dict(state.recipe)
    if own.encode.decode != "reduced":
        return 0
    return terms(own, getattr(image_encoder(own, bound=state.image), "crop", None)).least


def _filling(pool: Pool, state: State, name: str, recipe: Recipe, least: int) -> Filling:
    cache, own = folder(recipe.encode.cache, pool.path)
    roots = {source: s.root for source, s in state.sources.items()}
    bound, pixels = state.extra[name], recipe.limits.max_pixels
    return Filling(str(pool.path), pool.version, name, bound, recipe.encode, roots, pixels, least, cache, own)


def _declared(
    writer: Writer, pool: Pool, state: State, name: str, encoder: str, table: EncodeTable, ray: Any
) -> tuple[Any, Pool]:
    """Return the encoder (of a cluster's what a worker tells of it), and the pool with a column and a state for it."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a column: take lower case letters, digits and _")
    if is_precomputed(state.image.name):
        raise UsageError("the embeddings of this pool were given: there are no images to embed")
    check_free(name)
    bound = state.extra.get(name)
    if bound is None and (not encoder or (name in pool.columns and name not in pool.vectors)):
        raise UsageError(f"{name!r} is another column of this pool" if encoder else f"name the encoder of {name!r}")
    wanted = encoder or (bound.name if bound else "")
    if ray is None:
        made: Any = load_image_encoder(wanted, settings(table, bound))
    else:
        made = once(ray, told, wanted, table, bound, gpu=True)
    if bound is not None:
        check_bound(bound, made.name, made.fingerprint, pool.path)
    elif name in pool.columns and pool.dataset.schema.field(name).type.list_size != made.dim:
        raise UsageError(
            f"{name!r} is a column of this pool that no encoder is named for, of another width: take another"
        )
    # The state first: a column that it names and the pool lacks is made by the next run.
    if bound is None or bound.compute != made.compute:
        bound = bound or state.extra.setdefault(name, Encoder(made.name, made.fingerprint, made.dim, 0.0, made.compute))
        note_compute(state, name, bound, made.compute)
        state.step += 1
        pool = writer.touch(pool, state.as_dict(), {"what": "encoder", "columns": [name]})
    return made, pool if name in pool.columns else writer.add_view(pool, name, made.dim)


def _filled(writer: Writer, pool: Pool, filling: Filling, made: ImageEncoder, progress: Any) -> tuple[int, int]:
    """Compute and commit what is missing; return how many rows got a vector, and how many images could not be read."""
    embedder = filling.embedder(made)
    todo = _todo(pool, filling)
    done = unread = 0
    for fragment in fragments(pool):
        rows, lost = filling.rows(pool, fragment, embedder, partial(_told, progress, todo, done + unread))
        if rows:
            pool = fill(writer, pool, fragment, filling.name, rows)
        embedder.clear()
        done, unread = done + len(rows), unread + lost
    return done, unread


def _filled_on(ray: Any, writer: Writer, pool: Pool, filling: Filling, state: State, progress: Any) -> tuple[int, int]:
    """Do what `_filled` does in a cluster's workers. What they wrote is committed once a minute, and at the end."""
    todo = _todo(pool, filling)
    done = unread = 0
    computes: set[str] = set()
    waiting = _Waiting(writer, pool, filling.name)
    parts = [{"fragment": fragment} for fragment in fragments(pool)] if todo else []
    try:
        for found in each(ray, partial(Filler, filling), parts, kept=True):
            done, unread = done + found["rows"], unread + found["unread"]
            computes.add(found["compute"])
            waiting.add(found["written"], found["rows"])
            _told(progress, todo, done + unread)
    finally:
        waiting.commit()
    if filling.own:
        forget_parts(filling.cache)
    if others := sorted(computes - {filling.bound.compute}):  # another kind of machine, or memory was short
        for compute in others:
            note_compute(state, filling.name, state.extra[filling.name], compute)
        state.step += 1
        writer.touch(waiting.pool, state.as_dict(), {"what": "encoder", "columns": [filling.name]})
    return done, unread


class _Waiting:
    """Fragments that workers wrote: committed together for few versions, but often, so that a kill costs little."""

    def __init__(self, writer: Writer, pool: Pool, name: str) -> None:
        self.pool = pool
        self._writer, self._name = writer, name
        self._parts: list[tuple[str, int]] = []
        self._looked = time.monotonic()

    def add(self, written: str, rows: int) -> None:
        if written:
            self._parts.append((written, rows))
        if time.monotonic() - self._looked >= _COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        if self._parts:
            written, rows = zip(*self._parts, strict=True)
            self.pool = commit(self._writer, self.pool, self._name, sum(rows), written)
        self._parts.clear()
        self._looked = time.monotonic()


def _todo(pool: Pool, filling: Filling) -> int:
    return int(pool.dataset.count_rows(filter=f"embedded AND {filling.name} IS NULL"))


def _told(progress: Any, todo: int, before: int, done: int = 0) -> None:
    if progress is not None:
        progress(before + done, todo)
