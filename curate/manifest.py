"""The manifest: the chosen subset as a trainer reads it. Parquet parts and one manifest.json; docs/manifest-format.md.

Equal input, recipe and versions give equal bytes: no clock, no host, no pool path in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from curate import cells
from curate.errors import ManifestError
from curate.files import atomic_write
from curate.parts import check_columns, named, part_bytes, read_part, write_part
from curate.remote import Place, Remote, place
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


def write_manifest(out: str | Path, rows: pl.DataFrame | Iterable[pl.DataFrame], info: dict[str, Any]) -> Place:
    """Write rows (in rank order, COLUMNS first) and info under a folder; return the path of manifest.json.

    rows: one frame, or frames of equal columns that follow each other: no more than a part of 1,000,000 rows is held.

    The parts are written first and manifest.json last, each atomically, so a reader sees the old manifest or the new.
    Raises ManifestError when the folder cannot be written.
    """
    folder = place(out)
    earlier = _earlier_parts(folder)
    written: list[dict[str, Any]] = []
    features: set[str] = set()
    done = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in _in_parts([rows] if isinstance(rows, pl.DataFrame) else rows):
            written.append(write_part(folder, len(written), part, _kinds(_features(part))))
            columns, features = part.columns, features | _features(part)
        value = {
            "format": FORMAT,
            "required_features": sorted(features),
            "writer": {"name": "curate-engine", "version": __version__},
            **info,
            "rows": sum(part["rows"] for part in written),
            "columns": columns,
            "parts": written,
        }
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        done = True  # from here on the parts may be named
        atomic_write(folder / _INFO, text.encode())
        _unlink(folder, earlier - {part["path"] for part in written})
    except OSError as error:
        raise ManifestError(f"the manifest cannot be written to {folder}: {error}") from error
    finally:
        if not done:
            _unlink(folder, {part["path"] for part in written} - earlier)
    return folder / _INFO


def _features(rows: pl.DataFrame) -> set[str]:
    """Return what a reader must know to take these rows for what they are."""
    found = {"crops"} if CROPS.keys() <= set(rows.columns) else set()
    return found | {"rows"} if rows["path"].cast(pl.String).str.contains(cells.PATTERN).any() else found


def _unlink(folder: Place, names: Iterable[str]) -> None:
    """Delete parts; one that cannot be deleted is left: no manifest names it."""
    for name in names:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def _in_parts(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the rows of frames in parts of one size, the last one smaller; one empty part where there are no rows."""
    held: pl.DataFrame | None = None
    first = True
    for frame in frames:
        held = frame if held is None else pl.concat([held, frame])
        while held.height >= _PART_ROWS:
            yield held.head(_PART_ROWS)
            held, first = held.slice(_PART_ROWS), False
    if held is None:
        raise ManifestError("a manifest needs at least one frame of rows, which may be empty")
    if held.height or first:
        yield held


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
        json.dumps(info, ensure_ascii=False).encode()  # JSON can escape what is no text
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"there is no readable manifest at {path}: {error}") from error
    if not isinstance(info, dict) or not isinstance(info.get("parts"), list):
        raise ManifestError(f"{file} is not a manifest of curate")
    _check_version(file, info)
    if wrong := _wrong(info):
        raise ManifestError(f"{file} is damaged: {wrong}")
    return info


def _check_version(file: Place, info: dict[str, Any]) -> None:
    """Raise ManifestError for a major version, or a required feature, that this reader does not know."""
    version, features = info.get("format"), info.get("required_features")
    if not (isinstance(version, list) and len(version) > 1 and all(type(number) is int for number in version)):
        raise ManifestError(f"{file} is damaged: its format is {version!r}, which is no [major, minor]")
    if version[0] != FORMAT[0]:
        raise ManifestError(f"{file} has format {version}, and this reader knows {FORMAT[0]}.x; upgrade curate")
    if not isinstance(features, list):
        raise ManifestError(f"{file} is damaged: its required_features are {features!r}, which is no list")
    unknown = [str(name) for name in features if not isinstance(name, str) or name not in FEATURES]
    if unknown:
        raise ManifestError(f"{file} needs features that this reader does not know: {', '.join(unknown)}")


def _wrong(info: dict[str, Any]) -> str:
    """Return what is wrong with the entries that readers use, "" if nothing is."""
    parts, sources = info["parts"], info.get("sources", [])
    if not parts:
        return "it has no parts"
    kinds = {"path": str, "sha256": str, "rows": int}
    for number, part in enumerate(parts):
        if not isinstance(part, dict) or any(type(part.get(name)) is not kind for name, kind in kinds.items()):
            return f"parts[{number}] has no {', '.join(kinds)}"
    if info.get("rows") != sum(part["rows"] for part in parts):
        return f"its parts have {sum(part['rows'] for part in parts)} rows together, and it tells {info.get('rows')!r}"
    for number, source in enumerate(sources if isinstance(sources, list) else [sources]):
        if not isinstance(source, dict) or not all(isinstance(source.get(name), str) for name in ("id", "root")):
            return f"sources[{number}] has no id and root"
    return ""


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

    Of parts that lie here only the columns' names and types are read and checked, nothing else: `read_manifest` and
    `read_parts` check every part's SHA-256. Parts in a store are fetched and checked, and held as they are stored.

    Raises ManifestError when it is missing, damaged, or of an unknown format.
    """
    info, folder = manifest_info(path), _folder(path)
    if isinstance(folder, Remote):
        frame = pl.scan_parquet([part_bytes(folder, part) for part in info["parts"]])
    else:
        frame = pl.scan_parquet([str(folder / Path(part["path"]).name) for part in info["parts"]], glob=False)
    with named(folder):
        check_columns(folder, _kinds(info["required_features"]), frame.collect_schema())
    return frame


def read_manifest(path: str | Path) -> pl.DataFrame:
    """Return the rows of a manifest in rank order; every part's SHA-256 is checked first. Rows may be crops: CROPS.

    Raises ManifestError when it is missing, damaged, or of an unknown format.
    """
    with named(place(path)):  # parts of different columns
        return pl.concat(read_parts(path))


def read_parts(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
    """Yield the rows of a manifest in rank order, a part at a time, checked as `read_manifest` does.

    columns: those that are wanted; all by default.
    """
    info, folder = manifest_info(path), _folder(path)
    kinds = _kinds(info["required_features"])
    wanted = kinds if columns is None else {name: kinds[name] for name in columns if name in kinds}
    for part in info["parts"]:
        yield read_part(folder, part, columns, wanted)  # not held here while the next one is read


def _folder(path: str | Path) -> Place:
    at = place(path)
    return at if at.is_dir() else at.parent


def _kinds(features: Iterable[str]) -> dict[str, Any]:
    return {**COLUMNS, **(CROPS if "crops" in features else {})}
