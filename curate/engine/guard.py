"""Leak guard: samples near a registered evaluation set are refused, so that no model is trained on its test."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.encoders import ImageEncoder
from curate.encoders.precomputed import is_precomputed
from curate.engine import given
from curate.engine.examine import Terms, terms
from curate.errors import DecodeError, PoolMismatchError, SourceError
from curate.images import decode, pixel_hash
from curate.pool import Pool, vectors
from curate.remote import Place, place
from curate.samples import Source
from curate.scoring.nearest import nearest
from curate.sources import open_sources
from curate_kernels.arrays import F16, F32

if TYPE_CHECKING:
    from curate.engine.core import Engine

REASON = "eval_leak"
REVIEWED = "reviewed"  # the reason of what a reviewer dropped, and of its copies
_BATCH = 256


class Guard:
    """The images of every registered evaluation set: embeddings (m, d), hashes of their pixels, and their names."""

    def __init__(self) -> None:
        self._image: F16 = np.zeros((0, 0), dtype=np.float16)
        self._names: list[str] = []
        self._pixels: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._names)

    def add(self, image: F16, pixels: Sequence[str], names: Sequence[str]) -> None:
        """Register images: embeddings (m, d) float16 unit rows, pixel hashes ("" unknown), and names to tell."""
        start = len(self._names)
        self._image = np.concatenate([self._image, image]) if start else image.copy()
        self._names += names
        for i, pixel in enumerate(pixels, start):
            if pixel:
                self._pixels.setdefault(pixel, i)

    def add_saved(self, arrays: dict[str, Any]) -> None:
        """Register a set as `register` saved it."""
        self.add(arrays["image"], _unpacked(arrays["pixels"]), _unpacked(arrays["names"]))

    def leaks(self, image: F32, pixels: Sequence[str], epsilon: float) -> list[str]:
        """Return for each of b rows what it leaks, in words, or "".

        image: (b, d) float32 unit rows, zero where there is none; pixels: b hashes; epsilon: near-duplicate distance
        """
        out = [""] * image.shape[0]
        there = np.flatnonzero(image.any(axis=1))
        if not self._names or not there.size:
            return out
        sim, row = nearest(self._image, np.ascontiguousarray(image[there]), k=1)
        for i, similarity, found in zip(there.tolist(), sim[:, 0].tolist(), row[:, 0].tolist(), strict=True):
            exact = self._pixels.get(pixels[i]) if pixels[i] else None
            if exact is not None:
                out[i] = f"its pixels equal those of {self._names[exact]}"
            elif 1.0 - similarity <= epsilon:
                out[i] = f"{self._names[found]} is {max(1.0 - similarity, 0.0):.4f} away"
        return out


def open_sets(paths: Sequence[str | Place]) -> list[Pool | list[Source]]:
    """Return evaluation sets, opened: pools, or sources of images. Raises SourceError or PoolError."""
    return [Pool.open(path) if (place(path) / "samples.lance").is_dir() else open_sources([path]) for path in paths]


def register(engine: Engine, sets: Sequence[Pool | list[Source]]) -> bool:
    """Register evaluation sets with a pool; return whether there is a new one.

    Raises SourceError when one holds no image, PoolMismatchError for a pool of another encoder.
    """
    new = False
    for opened in sets:
        found = _from_pool(engine, opened) if isinstance(opened, Pool) else _from_sources(engine, opened)
        image, pixels, names = found
        if not names:
            where = opened.path if isinstance(opened, Pool) else ", ".join(source.root for source in opened)
            raise SourceError(f"the evaluation set {where} holds no image that decodes; give its images")
        arrays = {"image": image, "pixels": _packed(pixels), "names": _packed(names)}
        name = engine.writer.save_sums(0, arrays)
        if name not in engine.state.guards:
            engine.state.guards.append(name)
            engine.guard.add(image, pixels, names)
            new = True
    return new


def load(engine: Engine) -> Guard:
    """Return the guard of the sets that a pool's state names."""
    guard = Guard()
    for name in engine.state.guards:
        guard.add_saved(engine.pool.sums(name))
    return guard


def dropped(engine: Engine, but: Container[int] = ()) -> Guard:
    """Return what reviewers dropped from a pool: copies of it that arrive later are not wanted either.

    but: ordinals of rows to leave out
    """
    guard = Guard()
    if "review" not in engine.pool.columns:
        return guard
    names = ["row", "source", "key", "pixel_hash"]
    for batch in engine.pool.scan([*names, "image"], where="review = 'drop' AND embedded"):
        rows = batch.select(names).to_pylist()
        at = np.array([i for i, row in enumerate(rows) if row["row"] not in but], dtype=np.int64)
        image = vectors(batch.column("image"), engine.state.image.dim).astype(np.float16)[at]
        told = [f"{rows[i]['source']}:{rows[i]['key']}, which a reviewer dropped," for i in at.tolist()]
        guard.add(image, [rows[i]["pixel_hash"] for i in at.tolist()], told)
    return guard


def _from_pool(engine: Engine, pool: Pool) -> tuple[F16, list[str], list[str]]:
    theirs, own = pool.state()["image"], engine.state.image
    if theirs["fingerprint"] != own.fingerprint:
        raise PoolMismatchError(
            f"the evaluation pool {pool.path} has another encoder ({theirs['name']}) than {own.name}"
        )
    table = pool.frame(["source", "key", "pixel_hash"], where="embedded")
    image = pool.embeddings("image", where="embedded").astype(np.float16)
    names = [f"{source}:{key}" for source, key in table.select("source", "key").iter_rows()]
    return image, table["pixel_hash"].to_list(), names


def _from_sources(engine: Engine, sources: list[Source]) -> tuple[F16, list[str], list[str]]:
    parts: list[F16] = []
    pixels: list[str] = []
    names: list[str] = []
    crops: list[Any] = []
    if is_precomputed(engine.state.image.name):
        sources = given.of_pool(sources, engine.state.image)
    asked = terms(engine.recipe, getattr(engine.encoder, "crop", None))
    for crop, pixel, name in _images(engine.encoder, sources, asked):
        crops.append(crop)
        pixels.append(pixel)
        names.append(name)
        if len(crops) == _BATCH:
            parts.append(engine.encoder.encode(crops).astype(np.float16))
            crops = []
    if crops:
        parts.append(engine.encoder.encode(crops).astype(np.float16))
    image = np.concatenate(parts) if parts else np.zeros((0, engine.encoder.dim), dtype=np.float16)
    return image, pixels, names


def _images(encoder: ImageEncoder, sources: list[Source], asked: Terms) -> Iterator[tuple[Any, str, str]]:
    for source in sources:
        for sample in source.rows():
            if sample.problem:
                continue
            if sample.embedded is not None:
                yield sample.embedded.image, sample.embedded.sha256, f"{sample.source}:{sample.key}"
                continue
            try:
                image = decode(sample.data, asked.max_pixels, asked.least)
            except DecodeError:
                continue
            pixel = pixel_hash(image.pixels, (image.width, image.height))
            yield encoder.prepare(image.pixels), pixel, f"{sample.source}:{sample.key}"


def _packed(texts: Sequence[str]) -> Any:
    """Return texts as bytes with line feeds between them, which safetensors can hold."""
    return np.frombuffer("\n".join(text.replace("\n", " ") for text in texts).encode(), dtype=np.uint8).copy()


def _unpacked(data: Any) -> list[str]:
    return bytes(data).decode().split("\n")
