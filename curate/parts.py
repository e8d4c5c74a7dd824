"""One Parquet part of a manifest: written, and read with suspicion."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from curate.errors import ManifestError
from curate.files import atomic_write
from curate.remote import Place

# Raised on bytes that are no Parquet; Rust's panics are no Exception.
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, OverflowError)


def write_part(folder: Place, number: int, rows: pl.DataFrame, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Write one part, its columns cast to `kinds`, and return its entry in manifest.json."""
    stream = io.BytesIO()
    # One chunk: else the bytes would tell how the rows came together.
    part = rows.with_columns(pl.col(name).cast(kind) for name, kind in kinds.items()).rechunk()
    part.write_parquet(stream, compression="zstd", statistics=True)
    data = stream.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    # Named by content, so that an old manifest keeps its parts until it is replaced.
    name = f"part-{number:05d}-{digest[:8]}.parquet"
    atomic_write(folder / name, data)
    return {"path": name, "rows": part.height, "bytes": len(data), "sha256": digest}


def read_part(
    folder: Place, part: Mapping[str, Any], columns: Sequence[str] | None, kinds: Mapping[str, Any]
) -> pl.DataFrame:
    """Return a part's rows, all columns or those given; `kinds` are the types that some must have.

    Raises ManifestError when it is missing or damaged.
    """
    data, name = part_bytes(folder, part), folder / Path(part["path"]).name
    with named(name):
        frame = _decoded(data, columns)
        check_columns(name, kinds, frame.schema)
    if frame.height != part["rows"]:
        raise ManifestError(f"{name} is damaged: it has {frame.height} rows, and manifest.json tells {part['rows']}")
    return frame


def _decoded(data: bytes, columns: Sequence[str] | None) -> pl.DataFrame:
    """Return the rows of a part. By Arrow: polars takes the process down over some bytes that are no good Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            table = file.read(None if columns is None else list(columns), use_threads=False)
        table.validate(full=True)  # texts are UTF-8, for one: polars takes that for granted
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    return pl.DataFrame(table)


@contextmanager
def named(at: Place) -> Iterator[None]:
    """Turn what is raised on damaged files into ManifestError."""
    try:
        yield
    except ManifestError:
        raise
    except _UNREADABLE as error:
        raise ManifestError(f"{at} cannot be read: {error}") from error


def part_bytes(folder: Place, part: Mapping[str, Any]) -> bytes:
    """Return a part's bytes, checked. Raises ManifestError when they are gone or are others."""
    file = folder / Path(part["path"]).name
    try:
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        raise ManifestError(f"a part of the manifest is missing: {error}") from error
    if hashlib.sha256(data).hexdigest() != part["sha256"]:
        raise ManifestError(f"{file} is damaged: its SHA-256 is not the one in manifest.json")
    return data


def check_columns(at: Place, kinds: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise ManifestError, naming it, for a column of the format that is missing or has another type."""
    for name, kind in kinds.items():
        if found.get(name) != kind:
            raise ManifestError(f"{at} is damaged: column {name!r} is {found.get(name, 'missing')}, not {kind}")
