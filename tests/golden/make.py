"""Golden manifests: one of each version of the format, as the writer of its time wrote it.

    PYTHONPATH=.:kernels:selectors python tests/golden/make.py

writes those of today's version anew; do that only when the format changes, with a new version number, and keep the old
ones. The older ones were written by this file with an older `curate` on the path:

    git archive COMMIT | tar -x -C OLD; PYTHONPATH=OLD:OLD/kernels:OLD/selectors python tests/golden/make.py
"""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import polars as pl

from curate import manifest

GOLDEN = Path(__file__).parent
ROOT = "/golden/images"  # where the images lay, if one believes the manifests
_MADE = 4  # images
_EPOCHS = {"ht_weight": pl.Float32, "epoch_odd": pl.Float32, "epoch_even": pl.Float32}


def make_images() -> None:
    """Write three images into a tar and one beside it. Encoders change, so this was done once."""
    import io

    import numpy as np
    from PIL import Image

    data = []
    for number in range(_MADE):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8 + number, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        data.append(stream.getvalue())
    (GOLDEN / "images" / "loose").mkdir(parents=True, exist_ok=True)
    with tarfile.open(GOLDEN / "images" / "shard.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, value in enumerate(data[:-1]):
            member = tarfile.TarInfo(f"{number:03d}.png")
            member.size = len(value)
            tar.addfile(member, io.BytesIO(value))
    (GOLDEN / "images" / "loose" / "photo 3.png").write_bytes(data[-1])


def _places() -> list[dict[str, Any]]:
    """Where the images' bytes lie, best first."""
    loose = GOLDEN / "images" / "loose" / "photo 3.png"
    with tarfile.open(GOLDEN / "images" / "shard.tar") as tar:
        members = tar.getmembers()
    found = [("images/shard.tar", m.name[:-4], "shard.tar", m.offset_data, m.size) for m in members]
    found.append(("images/loose", loose.name, loose.name, 0, loose.stat().st_size))
    return [
        dict(zip(("source", "key", "path", "offset", "size"), place, strict=True))
        for place in [found[i] for i in (2, 0, 3, 1)]
    ]


def rows(minor: int, crops: bool = False) -> pl.DataFrame:
    """Rows as a pool of that time had them: captions, labels and groups missing here and there, nulls and umlauts."""
    roots = {"images/shard.tar": GOLDEN / "images", "images/loose": GOLDEN / "images" / "loose"}
    table = []
    for rank, place in enumerate(_places()):
        with (roots[place["source"]] / place["path"]).open("rb") as file:
            file.seek(place["offset"])
            sha256 = hashlib.sha256(file.read(place["size"])).hexdigest()
        chance = 1.0 if minor == 0 else 0.25 + rank / 8
        row = {
            **place,
            "uid": hashlib.sha256("\0".join((place["source"], place["key"], sha256)).encode()).hexdigest()[:32],
            "sha256": sha256,
            "width": int(place["key"][-1]) + 8 if place["key"].isdigit() else 11,
            "height": 8,
            "caption": [None, "two\nlines", "“Übung” 名", "a dog"][rank],
            "label": ["b", None, "a", "a"][rank],
            "group": [None, None, "p1", "p1"][rank],
            "weight": 1.0,
            "inclusion_probability": chance,
            "rank": rank,
            "reason": "admitted" if rank else "caption_mismatch",
            "gain": 1 / (rank + 1),
            "pvi": None if rank == 3 else 0.5 - rank,
        }
        if minor:
            row |= {"ht_weight": 1 / chance, "epoch_odd": 1 / (rank + 1), "epoch_even": max(0.1, 1 - 1 / (rank + 1))}
        table.append(row)
    if crops:
        table = [_crop(table[i // 2], i) for i in range(8)]
    extra = {**(_EPOCHS if minor and not crops else {}), "pvi": pl.Float32}
    kinds = {**manifest.COLUMNS, **(manifest.CROPS if crops else {}), **({"s0_crop": pl.Float32} if crops else extra)}
    return pl.DataFrame(table, schema=kinds)


def _crop(row: dict[str, Any], number: int) -> dict[str, Any]:
    box = {
        "crop_x": number % 2 * 4,
        "crop_y": 0,
        "crop_w": 4,
        "crop_h": 8,
        "tile": number // 4,
        "tile_slot": number % 4,
    }
    return {**row, **box, "rank": number, "s0_crop": number / 2, "inclusion_probability": None}


def info(minor: int, crops: bool = False) -> dict[str, Any]:
    """What `select_from_pool` of that time told about such rows. The program's version is not the format's."""
    method = "optidel-patches" if crops else "random" if minor == 0 else "infogrowth"
    choice: dict[str, Any] = {"method": method, "budget": "4", "seed": 0}
    if minor:
        choice["params"] = {"k": 4, "quantile": 0.99}
        choice["constraints"] = {
            "quotas": [{"column": "label", "value": None, "least": 1, "most": None}],
            "keep": {"rows": 0, "digest": "0" * 64},
            "drop": {"rows": 0, "digest": "0" * 64},
            "group": "",
            "group_rule": "whole",
        }
        choice |= {"nested": False, "select_digest": "1" * 64}
    told: dict[str, Any] = {"writer": {"name": "curate-engine", "version": "golden"}, **choice}
    told["candidates"] = {"kind": "all", "rows": 5, "digest": "2" * 64}
    if crops:
        counts = {"tile": 4, "tiles": 2, "images": 4, "unread": 0, "proposed": 20, "encoded": 16, "informative": 9}
        told["crops"] = counts
    of_source = {"candidates": 2, "digest": "3" * 64} if minor >= 3 else {}
    encoder = {"name": "builtin", "fingerprint": "4" * 64, "dim": 1280, "epsilon": 0.06}
    return {
        **told,
        "recipe_digest": "5" * 64,
        "encoders": {"image": encoder},
        "sources": [
            {"id": "images/loose", "root": f"{ROOT}/loose", "kind": "folder", **of_source},
            {"id": "images/shard.tar", "root": ROOT, "kind": "tar", **of_source},
        ],
    }


def write(folder: Path, crops: bool) -> None:
    """Write a manifest with the writer that is importable."""
    minor = manifest.FORMAT[1]
    manifest.write_manifest(folder, rows(minor, crops), info(minor, crops))


def main() -> None:
    """Write the manifests of the version that the importable writer writes, and tell what wrote their Parquet."""
    version = ".".join(map(str, manifest.FORMAT))
    for crops in (False, True) if hasattr(manifest, "CROPS") else (False,):
        write(GOLDEN / f"manifest-{version}{'-crops' if crops else ''}", crops)
    (GOLDEN / "polars.txt").write_text(pl.__version__ + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
