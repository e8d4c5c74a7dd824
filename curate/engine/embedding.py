"""What is embedded, and what need not be: rows of the same bytes that the pool or a cache has already.

A pool has one image encoder, by which everything is decided, and may have more, whose rows are stored beside: columns
of their names, and the patch tokens of the first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from curate.encoders import Compute, ImageEncoder, PatchEncoder, Settings, load_image_encoder
from curate.encoders.machine import machine
from curate.encoders.precomputed import is_precomputed
from curate.encoders.store import Numbers, RowStore, first_bits
from curate.engine.binding import check_bound, settings
from curate.engine.examine import terms
from curate.engine.parts import Parts
from curate.engine.state import Encoder, State
from curate.errors import EncoderError, PoolMismatchError, UsageError
from curate.files import digest
from curate.pool import EMBEDDINGS, PATCHES, Pool, table_schema, vectors
from curate_kernels.arrays import F16, I64, U8

if TYPE_CHECKING:
    from curate.engine.core import Engine
    from curate.engine.machines import Carried
    from curate.engine.prepare import Prepared
    from curate.recipe import Recipe
    from curate.remote import Place

Load = Callable[[str, Settings], ImageEncoder]

_LOG = logging.getLogger("curate")
_MOST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class View:
    """A column of vectors: what computes it, its width, and which part of a prepared image it is computed from."""

    encoder: ImageEncoder
    width: int
    part: int
    patches: bool = False

    def encode(self, crops: Sequence[U8]) -> F16:
        """Return (n, width) float16 rows as they are stored."""
        if not self.patches:
            return self.encoder.encode(crops).astype(np.float16)
        tokens = cast("PatchEncoder", self.encoder).patches(crops)
        return tokens.clip(-_MOST, _MOST).astype(np.float16).reshape(len(crops), self.width)

    def identity(self, least: int) -> str:
        """Return what rows must share to be the same bits; least: pixels at which images are decoded."""
        encoder = self.encoder
        device = encoder.compute.partition(" ")[0]
        return digest([encoder.fingerprint, encoder.compute, self.patches, self.width, least, machine(device)])[:32]


class Embedder:
    """Gives batches their vectors, each image's computed once: `views` by column name, the first is `image`.

    cache: folder that other pools and processes share, or else one in the pool that holds the batch under way
    least: pixels at which images are decoded, as `Terms` has it
    """

    def __init__(self, views: Mapping[str, View], cache: Path | None, own: bool, least: int) -> None:
        self.encoders = {name: view.encoder for name, view in views.items()}
        self._views, self._cache, self._own, self._least = dict(views), cache, own, least
        self._parts = Parts([view.encoder for view in views.values() if not view.patches])
        self._stores: dict[str, RowStore] = {}
        self._pool_rows: Numbers | None = None
        self._batch: Sequence[Prepared] = ()
        self._found: dict[str, F16] = {}

    @property
    def preparer(self) -> ImageEncoder:
        """Return what `prepare`s an image for all encoders at once."""
        return cast("ImageEncoder", self._parts) if len(self._parts) > 1 else self._views["image"].encoder

    def beside(self, batch: Sequence[Prepared]) -> dict[str, F16]:
        """Return the columns beside `image` of the batch that was embedded last."""
        assert batch is self._batch
        return {name: rows for name, rows in self._found.items() if name != "image"}

    def embed(self, batch: Sequence[Prepared], pool: Pool) -> dict[str, F16]:
        """Return {column: (b, width) float16} of a batch; zero rows where there is no crop or no finite embedding."""
        if batch is self._batch:
            return self._found
        have = [i for i, p in enumerate(batch) if p.crop is not None]
        first: dict[str, int] = {}
        for i in have:
            first.setdefault(batch[i].arrival.sha256, i)
        crops = {key: self._parts.split(cast("U8", batch[i].crop)) for key, i in first.items()}
        stored = self._stored(list(first), pool)
        found = {}
        for name, view in self._views.items():
            rows = self.rows(name, {key: parts[view.part] for key, parts in crops.items()}, stored.get(name, {}))
            column = found[name] = np.zeros((len(batch), view.width), dtype=np.float16)
            for i in have:
                column[i] = rows[batch[i].arrival.sha256]
        self._batch, self._found = batch, found
        return found

    def rows(self, name: str, crops: Mapping[str, U8], known: Mapping[str, F16] | None = None) -> dict[str, F16]:
        """Return {SHA-256: (width,) float16} of a column; known: those that need not be looked for.

        What is computed is kept at once, a part of the batch at a time, so that a killed run does not lose it.
        """
        view = self._views[name]
        out = dict(known or {})
        missing = [key for key in crops if key not in out]
        store = self._store(view) if missing else None
        if store is not None:
            out |= self._tried(partial(store.find, missing)) or {}
            missing = [key for key in missing if key not in out]
        compute = Compute.parse(view.encoder.compute)
        step = max(len(missing), 1)
        if compute and compute.device == "cpu":
            step = compute.batch * getattr(view.encoder, "devices", 1)
        for start in range(0, len(missing), step):
            keys = missing[start : start + step]
            before = view.encoder.compute
            rows = view.encode([crops[key] for key in keys])
            out |= zip(keys, rows, strict=True)
            store = self._store(view)
            if store is not None and view.encoder.compute == before:  # else some may be of the larger batch
                self._tried(partial(store.add, keys, rows))
        return out

    def committed(self, table: Any) -> None:
        """Take note that a batch's rows, an Arrow table, are in the pool."""
        self._number(table)
        self._batch, self._found = (), {}
        self.clear()

    def clear(self) -> None:
        """Empty the pool's own folder: what it held is committed."""
        if self._own:
            for store in self._stores.values():
                self._tried(store.clear)

    def _store(self, view: View) -> RowStore | None:
        """Return the store of a view's rows; another one from when its encoder computes otherwise."""
        if self._cache is None:
            return None
        identity, cache = view.identity(self._least), self._cache
        if identity not in self._stores:
            store = self._tried(partial(RowStore, cache, identity, view.width))
            if store is None:
                return None
            self._stores[identity] = store
        return self._stores[identity]

    def _tried(self, action: Callable[[], Any]) -> Any:
        """Do something with the files; where that fails, do without them from here on."""
        try:
            return action()
        except OSError as error:
            if self._cache is not None:
                _LOG.warning("embeddings are not kept in %s any more: %s", self._cache, error)
            self._cache = None
            return None

    def _stored(self, keys: Sequence[str], pool: Pool) -> dict[str, dict[str, F16]]:
        """Return {column: {SHA-256: row}} of the images whose bytes the pool has embedded already."""
        if self._pool_rows is None:
            self._pool_rows = Numbers()
            for batch in pool.scan(["row", "sha256"], where="embedded", size=65536):
                self._number(batch)
        numbers = self._pool_rows.find(keys)
        there = sorted(set(numbers[numbers >= 0].tolist()))
        if not there:
            return {}
        table = pool.take(there, ["sha256", *self._views])
        names, asked = table.column("sha256").to_pylist(), set(keys)
        out: dict[str, dict[str, F16]] = {}
        for name, view in self._views.items():
            rows = vectors(table.column(name), view.width).astype(np.float16)
            valid = table.column(name).is_valid().to_pylist()
            wanted = zip(names, rows, valid, strict=True)
            out[name] = {key: row for key, row, is_there in wanted if is_there and key in asked}
        return out

    def _number(self, table: Any) -> None:
        if self._pool_rows is None:
            return
        names: list[str] = table.column("sha256").to_pylist()
        rows: I64 = table.column("row").to_numpy()
        if "embedded" in table.schema.names:
            embedded = table.column("embedded").to_pylist()
            rows = rows[embedded]
            names = [name for name, there in zip(names, embedded, strict=True) if there]
        self._pool_rows.add(first_bits(names), rows)


def declare(state: State, recipe: Recipe, encoder: ImageEncoder, load: Load | None = None) -> dict[str, ImageEncoder]:
    """Write into a new pool's state what is stored beside its embeddings; return the further encoders by name.

    Raises UsageError for a name that is a column already, EncoderError for patch tokens that there are not.
    """
    asked = recipe.encode
    if is_precomputed(encoder.name) and (asked.extra or asked.patches):
        raise UsageError("embeddings are given, no image is read: leave encode.extra and encode.patches out")
    extra = {}
    for name, extra_name in asked.extra.items():
        check_free(name)
        extra[name] = made = (load or load_image_encoder)(extra_name, settings(asked))
        state.extra[name] = Encoder(made.name, made.fingerprint, made.dim, 0.0, made.compute)
    if asked.patches:
        if not hasattr(encoder, "patches"):
            raise EncoderError(
                f"{encoder.name} gives no patch tokens; use open_clip: or timm:, or leave encode.patches"
            )
        tokens, dim = cast("PatchEncoder", encoder).patch_shape
        state.patches = [tokens, dim]
        size = 2 * tokens * dim
        _LOG.warning("patch tokens take %.0f kB an image, %.1f GB a million", size / 1e3, size / 1e3)
    return extra


def check_free(name: str) -> None:
    """Raise UsageError for a name that a pool's column has."""
    if name in (*table_schema(1).names, "text", PATCHES):
        raise UsageError(f"{name!r} is a column of every pool; give the encoder another name")


def load_extra(state: State, recipe: Recipe, pool: object, load: Load | None = None) -> dict[str, ImageEncoder]:
    """Return a pool's further encoders by name. Raises PoolMismatchError where the recipe asks for what it has not."""
    asked = recipe.encode
    for name, encoder in asked.extra.items():
        if name not in state.extra:
            raise PoolMismatchError(
                f"{pool} holds no embeddings {name!r}:"
                f" `curate embed {pool} --name {name} --encoder {encoder}` adds them"
            )
    if asked.patches and not state.patches:
        raise PoolMismatchError(f"{pool} was made without patch tokens; grow a new pool with encode.patches")
    out = {}
    for name, bound in state.extra.items():
        own = asked.extra.get(name, bound.name)
        out[name] = made = (load or load_image_encoder)(own, settings(asked, bound))
        check_bound(bound, made.name, made.fingerprint, pool)
    return out


def attach(
    engine: Engine, extra: Mapping[str, ImageEncoder], carry: Callable[[Mapping[str, View]], Carried] | None = None
) -> Engine:
    """Give an engine what embeds, and its pool the columns for it; return the engine.

    carry: makes what embeds where rows bring their vectors

    Raises EncoderError where the recipe's cache cannot be made.
    """
    if is_precomputed(engine.encoder.name):
        return engine
    state = engine.state
    if extra and engine.recipe.encode.workers < 0:  # more than 0 is warned of where images are prepared
        _LOG.warning("images are decoded in threads, as encode.extra asks for: none can be stopped")
    views = {"image": View(engine.encoder, state.image.dim, 0)}
    views |= {name: View(made, made.dim, part) for part, (name, made) in enumerate(extra.items(), 1)}
    if state.patches:
        views[PATCHES] = View(engine.encoder, state.patches[0] * state.patches[1], 0, patches=True)
    for name, view in views.items():
        if name not in engine.pool.columns:
            engine.pool = engine.writer.add_view(engine.pool, name, view.width)
    if carry is not None:
        engine.embedder = carry(views)
        return engine
    cache, own = folder(engine.recipe.encode.cache, engine.writer.path)
    least = terms(engine.recipe, getattr(engine.encoder, "crop", None)).least
    engine.embedder = Embedder(views, cache, own, least)
    return engine


def folder(cache: str, pool: Place | None) -> tuple[Path | None, bool]:
    """Return where rows are kept until they are committed, None in an object store, and whether it is the pool's own.

    Raises EncoderError where a cache cannot be made.
    """
    if not cache:
        return (pool / EMBEDDINGS if isinstance(pool, Path) else None), True
    path = Path(cache).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EncoderError(f"encode.cache {path} cannot be made: {error.strerror or error}") from error
    return path, False


def preparer(engine: Engine) -> ImageEncoder:
    """Return what prepares images for an engine."""
    return engine.embedder.preparer if engine.embedder else engine.encoder
