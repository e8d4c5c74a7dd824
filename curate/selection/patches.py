"""Crops of a pool's images for `optidel-patches`: proposed, read where the images lie, encoded, scored, kept, tiled."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.budgets import Budget, parse_budget
from curate.cleaning import measure, refusal
from curate.encoders import load_image_encoder
from curate.encoders.protocols import ImageEncoder
from curate.engine.binding import check_bound, settings
from curate.engine.state import Encoder
from curate.errors import UsageError
from curate.images import Pixels
from curate.recipe import CleanTable, EncodeTable
from curate.scoring.crops import crop_information
from curate.selection.candidates import PoolCandidates
from curate.selection.constraints import Constraints
from curate.stored import PLACE, stored_pixels
from curate_kernels.arrays import F32, I64, U8
from curate_selectors.information.patches import (
    TILE,
    OptiDelPatches,
    grid_boxes,
    keep_crops,
    random_boxes,
    tile_order,
)
from curate_selectors.types import Selection

_LOG = logging.getLogger("curate")
_BATCH = 256  # crops encoded together


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops in the order of the manifest: the image of each, its columns there, and counts for manifest.json."""

    chosen: Selection
    columns: dict[str, F32 | I64]
    counts: dict[str, int]


def tiles_of(budget: Budget, candidates: int, given: Constraints) -> int:
    """Return the tiles that a budget asks for. Raises UsageError for what cannot be promised of crops."""
    if given.quotas or given.keep or given.group:
        raise UsageError(
            "'optidel-patches' chooses crops, and minima, maxima, rows to keep and groups are of images; "
            "only rows to drop may be given: select the images first, and drop the others"
        )
    amount = parse_budget(budget, candidates)
    if amount.rows is None:
        raise UsageError("'optidel-patches' copies no bytes; its budget is a share (5%) or a count (500) of tiles")
    return amount.rows


def choose_crops(source: PoolCandidates, whole: F32, images: I64, made: OptiDelPatches, tiles: int, seed: int) -> Crops:
    """Return the crops for `tiles` tiles, or for as many as the images give; then, and for images unread, it warns.

    whole: (n, d) embeddings of the candidates; images: (m,) int64 those to be cropped

    Raises UsageError when crops need more memory than the recipe allows, boxes make no sense, or there is no tile.
    """
    images = np.sort(images)  # the same order, and the same sums, however they were ranked
    state = source.pool.state()
    proposed = _proposed(source, images, made, seed)
    total, dim = sum(map(len, proposed)), whole.shape[1]
    if total * dim * 4 > float(state["recipe"]["limits"]["memory_gb"]) * 1e9:
        raise UsageError(
            f"the embeddings of {total} crops take {total * dim * 4 / 1e9:.1f} GB, more than limits.memory_gb in the "
            "pool's recipe; ask for fewer tiles, or fewer images or boxes for each"
        )
    cuts = _Cuts(state, dim)
    image, which, x = cuts.encoded(source, images, proposed) if total else cuts.none()
    if cuts.unread:
        _LOG.warning("%d of %d images are gone or have changed; their crops are left out", cuts.unread, images.size)
    box = np.array([proposed[i][j] for i, j in zip(image, which, strict=True)], dtype=np.int64).reshape(-1, 4)
    bits = crop_information(whole[images], x, image)
    kept = keep_crops(made, bits["s1_crop"], bits["pvi_crop"], image, box, TILE * tiles)
    kept = kept[tile_order(image[kept])]
    found = kept.size // TILE
    if tiles and not found:
        raise UsageError(f"there is no tile of {TILE} crops: {image.size} of {total} boxes were readable and clear")
    if found < tiles:
        _LOG.warning("%d tiles were asked for, and there are crops for %d; raise images or per_image", tiles, found)
    counts = {"tile": TILE, "tiles": found, "images": int(images.size), "unread": cuts.unread, "proposed": total}
    clear = {"encoded": int(image.size), "informative": int((bits["pvi_crop"] >= made.threshold).sum())}
    chosen, columns = _rows(made, images[image], box, bits, kept)
    return Crops(chosen, columns, counts | clear)


def _rows(
    made: OptiDelPatches, image: I64, box: I64, bits: dict[str, F32], kept: I64
) -> tuple[Selection, dict[str, F32 | I64]]:
    """Return the crops `kept`, in order of their tiles, as a selection of their images and the columns of crops."""
    place, ones = np.arange(kept.size, dtype=np.int64), np.ones(kept.size, dtype=np.float32)
    # No formula gives the chance of a box where boxes are drawn.
    chance = np.full(kept.size, np.nan if made.proposer == "random" else 1.0, dtype=np.float32)
    columns: dict[str, F32 | I64] = {f"crop_{side}": box[kept, i] for i, side in enumerate("xywh")}
    columns |= {"tile": place // TILE, "tile_slot": place % TILE, **{k: v[kept] for k, v in bits.items()}}
    return Selection(image[kept], bits["s1_crop"][kept], ones, chance), columns


class _Cuts:
    """Cuts boxes out of stored images and encodes them as the pool's own images were."""

    def __init__(self, state: dict[str, Any], dim: int) -> None:
        self._roots = {name: source["root"] for name, source in state["sources"].items()}
        self._max_pixels = state["recipe"]["limits"]["max_pixels"]
        self._clean = CleanTable(**state["recipe"]["clean"])
        self._bound = Encoder(**state["image"])
        self._dim = dim
        self.unread = 0

    def none(self) -> tuple[I64, I64, F32]:
        """Return what no boxes give."""
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, self._dim), np.float32)

    def encoded(self, source: PoolCandidates, images: I64, proposed: Sequence[I64]) -> tuple[I64, I64, F32]:
        """Return image and box number (n,) int64 and embedding (n, d) float32 of the boxes that give a clear crop."""
        encoder = load_image_encoder(self._bound.name, settings(EncodeTable(), self._bound))
        check_bound(self._bound, encoder.name, encoder.fingerprint, source.pool.path)
        rows = source.table[images].select(PLACE).iter_rows(named=True)
        places: list[tuple[int, int]] = []
        parts, prepared = [self.none()[2]], []
        for place, crop in self._clear(stored_pixels(rows, self._roots, self._max_pixels), proposed, encoder):
            places.append(place)
            prepared.append(crop)
            if len(prepared) == _BATCH:
                parts.append(_rounded(encoder.encode(prepared)))
                prepared = []
        x = np.concatenate([*parts, _rounded(encoder.encode(prepared))])
        at = np.array(places, dtype=np.int64).reshape(-1, 2)
        there = x.any(axis=1)  # zeros are what the network could not encode
        return at[there, 0], at[there, 1], x[there]

    def _clear(
        self, pictures: Iterator[Pixels | None], proposed: Sequence[I64], encoder: ImageEncoder
    ) -> Iterator[tuple[tuple[int, int], U8]]:
        for i, pixels in enumerate(pictures):
            if pixels is None:
                self.unread += 1
                continue
            for j, (x, y, w, h) in enumerate(proposed[i].tolist()):
                cut = np.ascontiguousarray(pixels[y : y + h, x : x + w])
                if not refusal(w, h, measure(cut), self._clean):
                    yield (i, j), encoder.prepare(cut)


def _rounded(x: F32) -> F32:
    return x.astype(np.float16).astype(np.float32)  # as a pool's embeddings are


def _proposed(source: PoolCandidates, images: I64, made: OptiDelPatches, seed: int) -> list[I64]:
    """Return the boxes (m, 4) int64 of every image, x, y, width, height in upright pixels."""
    table = source.table[images].select("uid", "width", "height")
    if made.proposer == "column":
        column = source.column(made.column)
        given = [column[i] for i in images.tolist()]
        rows = zip(table.iter_rows(), given, strict=True)
        return [_given(uid, width, height, value) for (uid, width, height), value in rows]
    if made.proposer == "grid":
        return [grid_boxes(width, height, tuple(made.scales)) for _, width, height in table.iter_rows()]
    boxes = []
    for uid, width, height in table.iter_rows():
        # Seeded by the image, so that its boxes do not depend on which others are cropped.
        own = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big")
        rng = np.random.default_rng([seed, own])
        boxes.append(random_boxes(width, height, tuple(made.scales), made.proposals, rng))
    return boxes


def _given(uid: str, width: int, height: int, value: Any) -> I64:
    """Return boxes that a row's metadata gives, whole pixels inside the image; a text is JSON, as in a CSV."""
    try:
        numbers = json.loads(value) if isinstance(value, str) else value
        box = np.asarray([] if numbers is None else numbers, dtype=np.float64).reshape(-1, 4)
    except (TypeError, ValueError):
        box = np.full((1, 4), np.nan)
    if not np.isfinite(box).all():
        raise UsageError(f"the boxes of {uid} are {value!r}; they must be [[x, y, width, height], …] in pixels")
    size = np.array([width, height])
    low = np.clip(np.floor(box[:, :2]), 0, size).astype(np.int64)
    high = np.clip(np.ceil(box[:, :2] + box[:, 2:]), 0, size).astype(np.int64)
    inside = np.concatenate([low, high - low], axis=1)
    return inside[(inside[:, 2:] > 0).all(axis=1)]
