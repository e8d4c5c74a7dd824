"""Manifests over small tars and folders, written without a pool."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
from pictures import jpeg, picture, write_folder, write_tar

from curate.manifest import COLUMNS, CROPS, write_manifest
from curate.samples import sample_uid


def row(source: str, key: str, path: str, offset: int, data: bytes, **more: Any) -> dict[str, Any]:
    """Return a manifest row of an image; `more` replaces and adds columns."""
    sha256 = hashlib.sha256(data).hexdigest()
    plain: dict[str, Any] = {
        "uid": sample_uid(source, key, sha256),
        "key": key,
        "source": source,
        "path": path,
        "offset": offset,
        "size": len(data),
        "sha256": sha256,
        "width": 96,
        "height": 96,
        "caption": None,
        "label": None,
        "group": None,
        "weight": 1.0,
        "inclusion_probability": 1.0,
        "reason": "admitted",
        "gain": 0.5,
    }
    return plain | more


def folder_rows(folder: Path, seeds: range, source: str = "photos") -> list[dict[str, Any]]:
    """Write pictures as `shape/00001.jpg` and return their rows, with captions and labels."""
    rows = []
    for seed in seeds:
        image, caption, label = picture(seed)
        name, data = f"{label}/{seed:05d}.jpg", jpeg(image)
        write_folder(folder, {name: data})
        rows.append(row(source, name, name, 0, data, caption=caption, label=label))
    return rows


def tar_rows(folder: Path, name: str, seeds: range, source: str | None = None) -> list[dict[str, Any]]:
    """Write pictures with captions as a WebDataset tar and return their rows."""
    members, told = [], {}
    for seed in seeds:
        image, caption, label = picture(seed)
        key = f"{seed:09d}"
        told[f"{key}.jpg"] = (key, caption, label, jpeg(image))
        members += [(f"{key}.jpg", told[f"{key}.jpg"][3]), (f"{key}.txt", caption.encode()), (f"{key}.json", b"{}")]
    path = write_tar(folder / name, members)
    rows = []
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name in told:
                key, caption, label, data = told[member.name]
                at = member.offset_data
                rows.append(row(source or name, key, name, at, data, caption=caption, label=label))
    return rows


def manifest(to: Path, rows: list[dict[str, Any]], roots: dict[str, Path], crops: bool = False) -> Path:
    """Write rows as a manifest, ranked as they come, and return its folder."""
    rows = [one | {"rank": i} for i, one in enumerate(rows)]
    kinds = COLUMNS | (CROPS if crops else {}) | {"pvi": pl.Float32}
    frame = pl.DataFrame([one | {"pvi": one.get("pvi", i / 4)} for i, one in enumerate(rows)], schema=kinds)
    sources = [{"id": name, "root": str(root), "kind": "tar"} for name, root in sorted(roots.items())]
    return write_manifest(to, frame, {"method": "random", "sources": sources}).parent


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by relative name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
