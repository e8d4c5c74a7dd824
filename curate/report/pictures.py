"""Rows of a pool as tiles: a picture, what it is called, and the number that decided."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.report.survey import label_thresholds, spread
from curate.report.text import clipped
from curate_kernels.arrays import F32

if TYPE_CHECKING:
    import polars as pl

    from curate.pool import Pool
    from curate.report.thumbnails import Thumbnails

_MOST_CAPTION, _MOST_KEY, _MOST_LABEL = 160, 80, 60
_DETAILS = (
    "row", "uid", "source", "key", "path", "offset", "size", "sha256", "width", "height", "caption", "label",
    "decision", "reason", "detail", "duplicate_of", "pvi", "s1_label", "gain", "quality_contrast", "quality_sharpness",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tile:
    """One sample as the template shows it; `problem` stands in for a picture that cannot be shown."""

    picture: str
    problem: str
    key: str
    caption: str
    label: str
    note: str


@dataclass(frozen=True, slots=True)
class Group:
    """A kept sample and up to a few of its `total` duplicates."""

    kept: Tile
    duplicates: list[Tile]
    total: int


def tiles(rows: Sequence[Mapping[str, Any]], thumbnails: Thumbnails, state: Mapping[str, Any]) -> list[Tile]:
    """Return the tiles of detailed rows, each with the score that its decision hung on."""
    limits = label_thresholds(state)
    return [_tile(row, thumbnails, _note(row, limits)) for row in rows]


def detailed(pool: Pool, column: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return everything a tile needs of the rows whose `row` or `uid` is given, in that order, without the unknown."""
    if not values:
        return []
    listed = ", ".join(f"'{value}'" if isinstance(value, str) else str(value) for value in values)
    found = pool.frame(_DETAILS, where=f"{column} IN ({listed})")
    by_value = {row[column]: row for row in found.iter_rows(named=True)}
    return [by_value[value] for value in values if value in by_value]


@dataclass(frozen=True, slots=True)
class Mended:
    """A sample whose caption or label was replaced: the tile, what it said before, and by what it was mended."""

    tile: Tile
    what: str
    before: str
    after: str
    by: str


def mended(pool: Pool, thumbnails: Thumbnails, most: int) -> tuple[list[Mended], int]:
    """Return up to `most` samples that were given another caption or label, evenly spread, and how many there are."""
    where = "caption_original IS NOT NULL OR label_original IS NOT NULL"
    numbers = pool.frame(["row"], where=where)["row"].to_list()
    shown = spread(numbers, most)
    if not shown:
        return [], 0
    names = ["row", "caption", "caption_original", "label", "label_original", "history"]
    listed = ", ".join(map(str, shown))
    texts = {row["row"]: row for row in pool.frame(names, where=f"row IN ({listed})").iter_rows(named=True)}
    out = []
    for row in detailed(pool, "row", shown):
        text = texts[row["row"]]
        what = "caption" if text["caption_original"] is not None else "label"
        entries = json.loads(text["history"])
        by = [e["reason"] for e in entries if e["decision"] == "mend"]
        by += ["a reviewer" for e in entries if e["decision"] == "review" and "label" in e]
        before, after = (clipped(text[name] or "", _MOST_CAPTION) for name in (f"{what}_original", what))
        tile = _tile({**row, "caption": None, "label": None}, thumbnails, "")
        out.append(Mended(tile, what, before, after, ", ".join(by)))
    return out, len(numbers)


def duplicate_groups(pool: Pool, thumbnails: Thumbnails, most: int = 12, shown: int = 5) -> list[Group]:
    """Return the largest groups of duplicates, those with near duplicates first: they are the ones to check by eye."""
    found = pool.frame(["row", "reason", "duplicate_of"], where="duplicate_of IS NOT NULL AND decision <> 'admit'")
    chosen = _largest(found, most)
    kept = {row["uid"]: row for row in detailed(pool, "uid", [uid for uid, _, _ in chosen])}
    copies = {
        row["row"]: row for row in detailed(pool, "row", [i for _, members, _ in chosen for i in members[:shown]])
    }
    vectors = _vectors(pool, [*(row["row"] for row in kept.values()), *copies])
    groups = []
    for uid, members, total in chosen:
        if uid not in kept:
            continue
        first = _tile(kept[uid], thumbnails, "kept" if kept[uid]["decision"] == "admit" else kept[uid]["reason"])
        duplicates = []
        for row in (copies[i] for i in members[:shown]):
            far = max(0.0, 1.0 - float(vectors[row["row"]] @ vectors[kept[uid]["row"]]))
            duplicates.append(_tile(row, thumbnails, f"{row['reason'].partition('_')[0]} · distance {far:.4f}"))
        groups.append(Group(first, duplicates, total))
    return groups


def _largest(found: pl.DataFrame, most: int) -> list[tuple[str, list[int], int]]:
    """Return (uid of the kept, rows of its duplicates with near ones first, their number) of the largest groups."""
    import polars as pl

    near = (pl.col("reason") == "near_duplicate").alias("near")
    groups = (
        found.with_columns(near)
        .sort(["near", "row"], descending=[True, False])
        .group_by("duplicate_of", maintain_order=True)
        .agg(pl.col("row"), pl.len().alias("total"), pl.col("near").any())
        .sort(["near", "total", "duplicate_of"], descending=[True, True, False])
    )
    return [(line["duplicate_of"], line["row"], line["total"]) for line in groups.head(most).iter_rows(named=True)]


def _vectors(pool: Pool, rows: Sequence[int]) -> dict[int, F32]:
    """Return {row: its image embedding, a unit row}."""
    if not rows:
        return {}
    listed = ", ".join(map(str, rows))
    frame = pool.frame(["row", "image"], where=f"row IN ({listed})")
    return {row: np.asarray(vector, dtype=np.float32) for row, vector in frame.iter_rows()}


def _tile(row: Mapping[str, Any], thumbnails: Thumbnails, note: str) -> Tile:
    picture, problem = thumbnails.picture(row)
    return Tile(
        picture,
        problem,
        clipped(row["key"] or row["uid"], _MOST_KEY),
        clipped(row["caption"] or "", _MOST_CAPTION),
        clipped(row["label"] or "", _MOST_LABEL),
        clipped(note, _MOST_CAPTION),
    )


def _note(row: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    """Return the number that decided about a row, in words."""
    match row["reason"]:
        case "caption_mismatch" if row["pvi"] is not None:
            return f"{row['pvi']:.1f} bits".replace("-", "−")
        case "label_noise" if row["s1_label"] is not None:
            allowed = f", allowed {limits[row['label']]:.1f}" if row["label"] in limits else ""
            return f"{row['s1_label']:.1f} bits{allowed}"
        case "too_small" | "too_many_pixels" if row["width"]:
            return f"{row['width']:,} × {row['height']:,} pixels"
        case "low_quality" if row["quality_contrast"] is not None:
            return f"contrast {row['quality_contrast']:.1f}, sharpness {row['quality_sharpness']:.1f}"
        case "admitted" if row["gain"] is not None:
            return f"gain {row['gain']:.3f}"
    return ""
