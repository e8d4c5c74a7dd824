"""The manifest: the chosen subset as a trainer reads it. Parquet parts and one manifest.json; docs/manifest-format.md.

Equal input, recipe and versions give equal bytes: no clock, no host, no pool path in it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from curate import cells
from curate.errors import ManifestError
from curate.files import atomic_write
from curate.remote import Place, place
from curate.version import __version__

FORMAT = [1, 3]
FEATURES = frozenset({"crops", "rows"})  # that this reader knows, of those that a manifest may require
_PART_ROWS = 1_000_000
_INFO = "manifest.json"

COLUMNS: dict[str, Any] = {
    "uid": pl.String,
    "key": pl.String,
    "source": pl.String,
    "path": pl.String,
    "offset": pl.Int64,
    "size": pl.Int64,
    "sha256": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    "caption": pl.String,
    "label": pl.String,
    "group": pl.String,
    "weight": pl.Float32,
    "inclusion_probability": pl.Float32,
    "rank": pl.Int64,
    "reason": pl.String,
    "gain": pl.Float32,
}
"""Columns that every manifest has, in order; score columns follow."""

CROPS: dict[str, Any] = {
    "crop_x": pl.Int32,
    "crop_y": pl.Int32,
    "crop_w": pl.Int32,
    "crop_h": pl.Int32,
    "tile": pl.Int64,
    "tile_slot": pl.Int32,
}
"""Columns of a manifest whose rows are crops: a reader that takes them for whole images must refuse it."""


def write_manifest(out: str | Path, rows: pl.DataFrame, info: dict[str, Any]) -> Place:
    """Write rows (in rank order, COLUMNS first) and info under a folder; return the path of manifest.json.

    The parts are written first and manifest.json last, each atomically, so a reader sees the old manifest or the new.
    Raises ManifestError when the folder cannot be written.
    """
    folder = place(out)
    earlier = _earlier_parts(folder)
    cropped = CROPS.keys() <= set(rows.columns)
    kinds = {**COLUMNS, **(CROPS if cropped else {})}
    table = rows.with_columns(pl.col(name).cast(kind) for name, kind in kinds.items())
    features = {"crops": cropped, "rows": bool(table["path"].str.contains(cells.PATTERN).any())}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts = []
        for number, start in enumerate(range(0, max(table.height, 1), _PART_ROWS)):
            stream = io.BytesIO()
            part = table.slice(start, _PART_ROWS)
            part.write_parquet(stream, compression="zstd", statistics=True)
            data = stream.getvalue()
            digest = hashlib.sha256(data).hexdigest()
            # Named by content, so that an old manifest keeps its parts until it is replaced.
            name = f"part-{number:05d}-{digest[:8]}.parquet"
            atomic_write(folder / name, data)
            parts.append({"path": name, "rows": part.height, "bytes": len(data), "sha256": digest})
        value = {
            "format": FORMAT,
            "required_features": [name for name, is_needed in features.items() if is_needed],
            "writer": {"name": "curate-engine", "version": __version__},
            **info,
            "rows": table.height,
            "columns": table.columns,
            "parts": parts,
        }
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        atomic_write(folder / _INFO, text.encode())
        for stale in earlier - {part["path"] for part in parts}:
            (folder / stale).unlink(missing_ok=True)
    except OSError as error:
        raise ManifestError(f"the manifest cannot be written to {folder}: {error}") from error
    return folder / _INFO


def _earlier_parts(folder: Place) -> set[str]:
    """Return the names of the parts of the manifest that is about to be replaced; ManifestError if it is not ours."""
    if not (folder / _INFO).exists():
        return set()
    try:
        return {Path(part["path"]).name for part in manifest_info(folder)["parts"]}
    except ManifestError as error:
        raise ManifestError(f"{folder} holds a {_INFO} that is not replaced: {error}") from error


def manifest_info(path: str | Place) -> dict[str, Any]:
    """Return manifest.json of a manifest, given its folder or the file itself.

    Raises ManifestError when there is none, it is damaged, or its format is one that this reader does not know.
    """
    path = place(path)
    file = path / _INFO if path.is_dir() else path
    try:
        info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"there is no readable manifest at {path}: {error}") from error
    if not _is_manifest(info):
        raise ManifestError(f"{file} is not a manifest of curate")
    if info["format"][0] != FORMAT[0]:
        raise ManifestError(f"{file} has format {info['format']}, and this reader knows {FORMAT[0]}.x; upgrade curate")
    unknown = [name for name in info["required_features"] if name not in FEATURES]
    if unknown:
        raise ManifestError(f"{file} needs features that this reader does not know: {', '.join(map(str, unknown))}")
    return info


def _is_manifest(info: Any) -> bool:
    """Tell whether the entries that a reader needs are there, with parts and a format that are not empty."""
    if not isinstance(info, dict) or not isinstance(info.get("required_features"), list):
        return False
    lists = all(isinstance(info.get(name), list) and info[name] for name in ("format", "parts"))
    return lists and all(isinstance(part, dict) and {"path", "sha256"} <= part.keys() for part in info["parts"])


def manifest_roots(info: dict[str, Any], moved: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return {source id: root} of manifest.json: what each source's paths are relative to.

    moved: {old: new}, where an old root, or a folder above it, lies now; the longest that fits is taken.

    Raises ManifestError when a folder named in `moved` is in no root: it is misspelt, or belongs to another manifest.
    """
    moved = {old.rstrip("/") or "/": new.rstrip("/") or "/" for old, new in (moved or {}).items()}
    roots, used = {}, set()
    for source in info.get("sources", []):
        root = str(source["root"])
        fits = [old for old in moved if root == old or root.startswith(old.rstrip("/") + "/")]
        if fits:
            old = max(fits, key=len)
            used.add(old)
            root = moved[old] + root[len(old.rstrip("/")) :]
        roots[str(source["id"])] = root
    if unused := sorted(moved.keys() - used):
        known = ", ".join(sorted({str(source["root"]) for source in info.get("sources", [])})) or "none"
        raise ManifestError(f"no source of the manifest lies under {', '.join(unused)}; its roots are: {known}")
    return roots


def scan_manifest(path: str | Path) -> pl.LazyFrame:
    """Return the rows of a manifest in rank order as a lazy frame: only the columns and rows asked for are read.

    Nothing but manifest.json is read and checked here; `read_manifest` checks every part's SHA-256.

    Raises ManifestError when it is missing, damaged, or of an unknown format.
    """
    info = manifest_info(path)
    at = place(path)
    folder = at if at.is_dir() else at.parent
    return pl.scan_parquet([str(folder / Path(part["path"]).name) for part in info["parts"]])


def read_manifest(path: str | Path) -> pl.DataFrame:
    """Return the rows of a manifest in rank order; every part's SHA-256 is checked first. Rows may be crops: CROPS.

    Raises ManifestError when it is missing, damaged, or of an unknown format.
    """
    info = manifest_info(path)
    at = place(path)
    folder = at if at.is_dir() else at.parent
    frames = []
    for part in info["parts"]:
        file = folder / Path(part["path"]).name
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ManifestError(f"a part of the manifest is missing: {error}") from error
        if hashlib.sha256(data).hexdigest() != part["sha256"]:
            raise ManifestError(f"{file} is damaged: its SHA-256 is not the one in {_INFO}")
        frames.append(pl.read_parquet(io.BytesIO(data)))
    return pl.concat(frames)
