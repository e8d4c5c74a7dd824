"""The rows of a manifest, read in pieces: what an export needs of them at a time, and no more."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from curate.errors import ManifestError
from curate.files import digest
from curate.manifest import COLUMNS, manifest_info, manifest_roots
from curate.remote import Place, place

BLOCK = 1 << 18  # rows that are read together: what polars writes as one row group


class Subset:
    """A manifest opened for export. Each part's SHA-256 is checked before it is read first.

    `digest` changes with the rows and with what they require of a reader; where the sources lie is not in it.
    """

    def __init__(self, path: str | Path, moved: Mapping[str, str] | None = None) -> None:
        self.info = manifest_info(path)
        self.roots = manifest_roots(self.info, moved)
        at = place(path)
        self._folder = at if at.is_dir() else at.parent
        self._parts = self.info["parts"]
        self._counts = [_count(part) for part in self._parts]
        self._sources: dict[int, Path | bytes] = {}
        self._block: tuple[tuple[int, int, tuple[str, ...]], pl.DataFrame] | None = None
        self.rows = sum(self._counts)
        self.is_cropped = "crops" in self.info["required_features"]
        self.digest = digest([[part["sha256"] for part in self._parts], self.info["required_features"]])
        self.schema = self._read_schema()

    def frames(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows from ordinal `start` to before `stop`, in order, in frames of at most BLOCK rows."""
        stop = self.rows if stop is None else stop
        first = 0
        for number, count in enumerate(self._counts):
            for begin in range(0, count, BLOCK):
                low, high = max(start, first + begin), min(stop, first + min(begin + BLOCK, count))
                if low < high:
                    block = self._read_block(number, begin, tuple(columns))
                    yield block.slice(low - first - begin, high - low)
            first += count

    def records(self, columns: Sequence[str], start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield ordinal and values by name of each row from `start` to before `stop`."""
        for frame in self.frames(columns, start, stop):
            yield from enumerate(frame.iter_rows(named=True), start)
            start += frame.height

    def _read_block(self, number: int, begin: int, columns: tuple[str, ...]) -> pl.DataFrame:
        wanted = (number, begin, columns)
        if self._block is None or self._block[0] != wanted:
            count = min(BLOCK, self._counts[number] - begin)
            try:
                found = self._scan(number).select(columns).slice(begin, count).collect()
            except (OSError, PolarsError, PanicException) as error:
                raise ManifestError(f"{self._name(number)} cannot be read: {error}") from error
            if found.height != count:
                raise ManifestError(f"{self._name(number)} has fewer rows than manifest.json says")
            self._block = (wanted, found)
        return self._block[1]

    def _scan(self, number: int) -> pl.LazyFrame:
        """Return a part as it lies on disk; a remote one is fetched whole, and kept while its rows are read."""
        if number not in self._sources:
            file = self._name(number)
            try:
                if isinstance(file, Path):
                    with file.open("rb") as stream:
                        found = hashlib.file_digest(stream, "sha256").hexdigest()
                    source: Path | bytes = file
                else:
                    source = file.read_bytes()
                    found = hashlib.sha256(source).hexdigest()
            except OSError as error:
                raise ManifestError(f"a part of the manifest is missing: {error}") from error
            if found != self._parts[number]["sha256"]:
                raise ManifestError(f"{file} is damaged: its SHA-256 is not the one in manifest.json")
            self._sources = {key: kept for key, kept in self._sources.items() if isinstance(kept, Path)}
            self._sources[number] = source
        source = self._sources[number]
        return pl.scan_parquet(io.BytesIO(source) if isinstance(source, bytes) else source)

    def _read_schema(self) -> dict[str, Any]:
        try:
            schema = dict(self._scan(0).collect_schema())
        except (OSError, PolarsError, PanicException) as error:
            raise ManifestError(f"{self._name(0)} cannot be read: {error}") from error
        if lacking := [name for name in COLUMNS if name not in schema]:
            raise ManifestError(f"{self._name(0)} lacks columns of the format: {', '.join(lacking)}")
        return schema

    def _name(self, number: int) -> Place:
        return self._folder / Path(self._parts[number]["path"]).name


def _count(part: Mapping[str, Any]) -> int:
    rows = part.get("rows")
    if not isinstance(rows, int) or rows < 0:
        raise ManifestError(f"manifest.json does not say how many rows {part['path']} has")
    return rows
