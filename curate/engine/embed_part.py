"""The vectors of one fragment of a pool by a further encoder: what `curate embed` does here, and in workers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.encoders import ImageEncoder, load_image_encoder
from curate.engine.binding import check_bound, one_device, settings
from curate.engine.embedding import Embedder, View
from curate.engine.state import Encoder
from curate.pool import Pool
from curate.pool.fill import rewritten, unfilled
from curate.recipe import EncodeTable
from curate.stored import PLACE, stored_pixels
from curate_kernels.arrays import F16, U8

_BATCH = 256  # images read and decoded ahead
_THREADS = 2
_FRAGMENT = "fragment-"


@dataclass(frozen=True, slots=True)
class Filling:
    """Which column of which pool is filled by what, and how images are read.

    cache, own: as for `Embedder`; a worker keeps rows in a folder of the fragment's own, as it alone writes there
    """

    pool: str
    version: int
    name: str
    bound: Encoder
    encode: EncodeTable
    roots: Mapping[str, str]
    max_pixels: int
    least: int
    cache: Path | None
    own: bool

    def embedder(self, made: ImageEncoder, fragment: int | None = None) -> Embedder:
        """Return what embeds; fragment: that a worker embeds."""
        cache = self.cache
        if cache is not None and self.own and fragment is not None:
            cache = cache / f"{_FRAGMENT}{fragment}"
        return Embedder({self.name: View(made, made.dim, 0)}, cache, self.own, self.least)

    def rows(
        self, pool: Pool, fragment: int, embedder: Embedder, tick: Callable[[int], None]
    ) -> tuple[dict[str, F16], int]:
        """Return {uid: vector} of a fragment's rows that lack it, and how many images could not be read.

        tick: is told how many rows are done with
        """
        rows: dict[str, F16] = {}
        unread = 0
        read = {"roots": self.roots, "max_pixels": self.max_pixels, "least": self.least}
        places = unfilled(pool, fragment, self.name, ["uid", *PLACE])
        for part, crops in _prepared(places, embedder.encoders[self.name], read):
            found = embedder.rows(self.name, crops)
            rows |= {row["uid"]: found[row["sha256"]] for row in part if row["sha256"] in found}
            unread += sum(row["sha256"] not in found for row in part)
            tick(len(rows) + unread)
        return rows, unread


class Filler:
    """A worker: it loads the encoder once, then embeds fragments and writes their column, uncommitted."""

    def __init__(self, filling: Filling) -> None:
        self._filling = filling
        bound = filling.bound
        self._made = load_image_encoder(bound.name, settings(filling.encode, bound))
        check_bound(bound, self._made.name, self._made.fingerprint, filling.pool)
        self._pool = Pool.open(filling.pool, filling.version)

    def __call__(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `curate.pool.fill.commit` wants ("" for nothing), counts, and how the encoder computed."""
        filling, fragment = self._filling, part["fragment"]
        rows, unread = filling.rows(self._pool, fragment, filling.embedder(self._made, fragment), lambda _: None)
        written = rewritten(self._pool, fragment, filling.name, rows) if rows else ""
        return {"written": written, "rows": len(rows), "unread": unread, "compute": self._made.compute}


def told(name: str, encode: EncodeTable, bound: Encoder | None) -> Encoder:
    """Return what a pool writes down of an encoder, as it is on this machine.

    Raises UsageError where several devices are asked for: a worker has one.
    """
    made = load_image_encoder(name, one_device(settings(encode, bound)))
    return Encoder(made.name, made.fingerprint, made.dim, 0.0, made.compute)


def forget_parts(cache: Path | None) -> None:
    """Remove what workers kept of fragments that are committed."""
    for folder in cache.glob(f"{_FRAGMENT}*") if cache is not None else ():
        shutil.rmtree(folder, ignore_errors=True)


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
