"""Manifests of small pictures in tars, written with the tars' real offsets, for the tests of the readers."""

from __future__ import annotations

import hashlib
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pictures import jpeg, picture, write_tar

from curate.manifest import COLUMNS, CROPS, write_manifest


@cache
def image_bytes(seed: int) -> bytes:
    """Return a picture as JPEG."""
    return jpeg(picture(seed)[0])


def tar_rows(folder: Path, n: int, shards: int = 3) -> list[dict[str, Any]]:
    """Write n pictures in tars, and return a row for each, in the tars' order; each third has no caption."""
    rows = []
    for shard, seeds in enumerate(np.array_split(np.arange(n), shards)):
        members = [(f"{seed:05d}.jpg", image_bytes(int(seed))) for seed in seeds]
        path = write_tar(folder / f"{shard:05d}.tar", members)
        with tarfile.open(path) as tar:
            for seed, member in zip(seeds.tolist(), tar.getmembers(), strict=True):
                row = {
                    "uid": f"{seed:032x}",
                    "key": f"{seed:05d}",
                    "source": path.name,
                    "path": path.name,
                    "offset": member.offset_data,
                    "size": member.size,
                    "sha256": hashlib.sha256(image_bytes(seed)).hexdigest(),
                    "width": 96,
                    "height": 96,
                    "caption": None if seed % 3 == 2 else f"picture {seed}",
                    "label": picture(seed)[2],
                    "weight": 1.0,
                    "inclusion_probability": 1.0,
                    "reason": "admitted",
                }
                rows.append(row)
    return rows


def write_rows(out: Path, rows: list[dict[str, Any]], root: str | Path, **info: Any) -> Path:
    """Write rows as a manifest in their order, and return its folder. root: of all sources"""
    extra = {name for row in rows for name in row} - set(COLUMNS)
    kinds = {**COLUMNS, **{name: CROPS.get(name, pl.Float32) for name in [*CROPS, *sorted(extra)] if name in extra}}
    table = pl.DataFrame([{"rank": i} | row for i, row in enumerate(rows)], schema=kinds)
    sources = [{"id": name, "kind": "tar", "root": str(root)} for name in sorted({row["source"] for row in rows})]
    given = {"method": "random", "budget": "100%", "seed": 0, "nested": True, "sources": sources}
    return Path(str(write_manifest(out, table, given | info).parent))


def make_subset(folder: Path, n: int = 60, **columns: Any) -> Path:
    """Write tars and a manifest of their pictures in random order; return its folder. columns: values of all rows."""
    rows = [row | columns for row in tar_rows(folder / "shards", n)]
    order = np.random.default_rng(5).permutation(n)
    return write_rows(folder / "subset", [rows[i] for i in order], folder / "shards")


def seeds_of(uids: Any) -> list[int]:
    """Return the pictures behind uids."""
    return [int(uid, 16) for uid in uids]
