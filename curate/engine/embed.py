"""`curate embed`: embeddings of one more encoder for the rows that a pool has, from the images where they lie."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.encoders import ImageEncoder, load_image_encoder
from curate.encoders.precomputed import is_precomputed
from curate.engine.binding import check_bound, note_compute, settings
from curate.engine.embedding import Embedder, View, check_free, folder
from curate.engine.examine import terms
from curate.engine.grow import image_encoder
from curate.engine.state import Encoder, State
from curate.errors import UsageError
from curate.pool import Pool, Writer
from curate.pool.fill import fill, fragments, unfilled
from curate.recipe import EncodeTable, Recipe, recipe_from_dict
from curate.stored import PLACE, stored_pixels
from curate_kernels.arrays import F16, U8

_BATCH = 256  # images read and decoded ahead
_THREADS = 2
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
    progress: Callable[[int, int | None], None] | None = None,
) -> Embedded:
    """Add the column `name` with the rows of a further image encoder; what grows the pool later fills it, too.

    encoder: its name; empty for a column that is there. run: device, precision, compile and cache, as in [encode].

    A killed run is resumed by the same call. Rows whose image is gone stay null; run it again once the images are back.

    Raises:
        UsageError: the name is taken or no name, or embeddings were given. PoolMismatchError: the column is another
        encoder's. EncoderError: as `load_image_encoder`. PoolLockedError: another process writes.
    """
    started = time.perf_counter()
    with Writer(Pool.open(pool).path) as writer:
        opened = Pool.open(writer.path)
        state = State.from_dict(opened.state())
        recipe = recipe_from_dict(state.recipe).replace({"encode": dict(run or {})})
        writer.remove_orphans(state.step)
        least = _least(state)
        made, opened = _declared(writer, opened, state, name, encoder, recipe.encode)
        counts = _filled(writer, opened, state, name, made, recipe, least, progress)
        version = Pool.open(writer.path).version
    return Embedded(str(pool), version, name, *counts, seconds=round(time.perf_counter() - started, 3))


def _least(state: State) -> int:
    """Return how images are decoded for the pool's own encoder, as they are when the pool grows."""
    own = recipe_from_dict(state.recipe)
    if own.encode.decode != "reduced":
        return 0
    return terms(own, getattr(image_encoder(own, bound=state.image), "crop", None)).least


def _declared(
    writer: Writer, pool: Pool, state: State, name: str, encoder: str, table: EncodeTable
) -> tuple[ImageEncoder, Pool]:
    """Return the encoder, and the pool with a column for it and a state that names it."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a column: take lower case letters, digits and _")
    if is_precomputed(state.image.name):
        raise UsageError("the embeddings of this pool were given: there are no images to embed")
    check_free(name)
    bound = state.extra.get(name)
    if bound is None and (not encoder or (name in pool.columns and name not in pool.vectors)):
        raise UsageError(f"{name!r} is another column of this pool" if encoder else f"name the encoder of {name!r}")
    made = load_image_encoder(encoder or (bound.name if bound else ""), settings(table, bound))
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


def _filled(
    writer: Writer,
    pool: Pool,
    state: State,
    name: str,
    made: ImageEncoder,
    recipe: Recipe,
    least: int,
    progress: Any,
) -> tuple[int, int]:
    """Compute and commit what is missing; return how many rows got a vector, and how many images could not be read."""
    cache, own = folder(recipe.encode.cache, writer.path)
    embedder = Embedder({name: View(made, made.dim, 0)}, cache, own, least)
    todo = pool.dataset.count_rows(filter=f"embedded AND {name} IS NULL")
    done = unread = 0
    for fragment in fragments(pool):
        rows: dict[str, F16] = {}
        roots = {source: s.root for source, s in state.sources.items()}
        read = {"roots": roots, "max_pixels": recipe.limits.max_pixels, "least": least}
        places = unfilled(pool, fragment, name, ["uid", *PLACE])
        for part, crops in _prepared(places, made, read):
            found = embedder.rows(name, crops)
            rows |= {row["uid"]: found[row["sha256"]] for row in part if row["sha256"] in found}
            unread += sum(row["sha256"] not in found for row in part)
            if progress is not None:
                progress(done + len(rows) + unread, todo)
        if rows:
            pool = fill(writer, pool, fragment, name, rows)
        embedder.clear()
        done += len(rows)
    return done, unread


def _prepared(
    rows: Sequence[dict[str, Any]], encoder: ImageEncoder, read: Mapping[str, Any]
) -> Iterator[tuple[Sequence[dict[str, Any]], dict[str, U8]]]:
    """Yield batches of rows with {SHA-256: prepared image} of those that can be read, one batch ahead."""

    def prepared(row: dict[str, Any]) -> U8 | None:
        pixels = next(stored_pixels([row], **read))
        return None if pixels is None else encoder.prepare(pixels)

    parts = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="curate-decode") as threads:
        ahead = [threads.submit(prepared, row) for row in parts[0]] if parts else []
        for i, part in enumerate(parts):
            current = ahead
            ahead = [threads.submit(prepared, row) for row in parts[i + 1]] if i + 1 < len(parts) else []
            crops = [(row["sha256"], future.result()) for row, future in zip(part, current, strict=True)]
            yield part, {key: crop for key, crop in crops if crop is not None}
