"""Two-dimensional maps of a pool: every dot a place in the embedding space, drawn as a picture of fixed size."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from curate.pool import vectors
from curate_kernels.arrays import B1, F32, F64, I64, U8

if TYPE_CHECKING:
    import polars as pl

    from curate.pool import Pool

_MOST, _FIT = 100_000, 20_000  # rows that are drawn, and rows that the axes are fitted on
_SIDE = 480
_KEPT, _REFUSED = (91, 125, 146), (201, 142, 84)
_LOW, _HIGH = (190, 96, 60), (58, 120, 160)
_TAIL = 0.002  # share of the rows on each side that lies on the edge


@dataclass(frozen=True, slots=True)
class Map:
    """A picture as a data URI, what it shows, and its two ends: what they mean, and the class that has their colour."""

    title: str
    words: str
    picture: str
    ends: tuple[tuple[str, str], tuple[str, str]]


def pool_maps(pool: Pool, rows: pl.DataFrame) -> list[Map]:
    """Return maps of a pool by its first two principal components, coloured by decision and by score.

    rows: every row of the pool in order of arrival, with `decision` and scores
    Of more than 100,000 rows, that many are drawn, evenly spread over their order of arrival.
    """
    row, place = _places(pool, rows.height)
    if row.size < 3:
        return []
    words = f"{row.size:,} samples by the first two principal components of their image embeddings."
    refused = (rows["decision"] != "admit").to_numpy()[row]
    share = _cells(place, refused.astype(np.float64))
    maps = [
        Map(
            "By decision",
            words,
            _drawn(*share, _KEPT, _REFUSED),
            (("admitted", "map-kept"), ("refused", "map-refused")),
        )
    ]
    for name, low, high in (
        ("pvi", "image and caption do not fit", "they fit"),
        ("gain", "much like others", "unlike others"),
    ):
        if name not in rows.columns:
            continue
        values = rows[name].fill_null(float("nan")).to_numpy().astype(np.float64)[row]
        known = np.isfinite(values)
        if known.sum() >= 3:
            rank = np.argsort(np.argsort(values[known], kind="stable"), kind="stable") / max(known.sum() - 1, 1)
            picture = _drawn(*_cells(place[known], rank), _LOW, _HIGH)
            maps.append(Map(f"By {name}", "The same places, by rank.", picture, ((low, "map-low"), (high, "map-high"))))
            break
    return maps


def _places(pool: Pool, n: int) -> tuple[I64, F64]:
    """Return ordinals (m,) of embedded rows and their places (m, 2) along the first two principal components."""
    dim = pool.dataset.schema.field("image").type.list_size
    step = max(-(-n // _MOST), 1)
    numbers: list[I64] = []
    parts: list[F32] = []
    start = 0
    for batch in pool.scan(["image"], size=8192):
        at = np.arange(-start % step, batch.num_rows, step)
        x = vectors(batch.column(0), dim)[at]
        there: B1 = np.asarray(x.any(axis=1))
        numbers.append(start + at[there])
        parts.append(x[there])
        start += batch.num_rows
    row = np.concatenate([*numbers, np.zeros(0, dtype=np.int64)]).astype(np.int64)
    x = np.concatenate([*parts, np.zeros((0, dim), dtype=np.float32)])
    if row.size < 3:
        return row, np.zeros((row.size, 2))
    fit = x[:: max(-(-row.size // _FIT), 1)].astype(np.float64)
    centre = fit.mean(axis=0)
    axes = np.linalg.eigh((fit - centre).T @ (fit - centre))[1][:, :-3:-1]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])  # an axis has no direction of its own
    place: F64 = (x - centre.astype(np.float32)).astype(np.float64) @ axes
    return row, place


def _cells(place: F64, value: F64) -> tuple[F64, F64]:
    """Return how many rows each cell of a grid holds (s, s), and their mean value."""
    side = int(np.clip(2 * np.sqrt(place.shape[0]), 48, _SIDE))
    low, high = np.quantile(place, _TAIL, axis=0), np.quantile(place, 1 - _TAIL, axis=0)
    unit = np.clip((place - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    column, line = (unit * (side - 1)).round().astype(np.int64).T
    at = (side - 1 - line) * side + column
    count = np.bincount(at, minlength=side * side).astype(np.float64)
    total = np.bincount(at, weights=value, minlength=side * side)
    return count.reshape(side, side), (total / np.maximum(count, 1)).reshape(side, side)


def _drawn(count: F64, mean: F64, low: tuple[int, int, int], high: tuple[int, int, int]) -> str:
    """Return a PNG as a data URI: colour from low to high by the mean, opacity by the logarithm of the count."""
    from PIL import Image

    share = mean[:, :, None]
    colour = (1 - share) * np.array(low) + share * np.array(high)
    opaque = np.where(count > 0, 0.35 + 0.65 * np.log1p(count) / np.log1p(max(count.max(), 1)), 0.0)
    pixels: U8 = np.concatenate([colour, 255 * opaque[:, :, None]], axis=2).round().astype(np.uint8)
    image = Image.fromarray(pixels, "RGBA").resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.quantize(64, method=Image.Quantize.FASTOCTREE).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
