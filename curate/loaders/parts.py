"""The Parquet files of a manifest, read by row group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from curate.errors import ManifestError
from curate.remote import Place, Remote


class Part:
    """One Parquet file of a manifest. Raises ManifestError when it is missing or damaged."""

    def __init__(self, path: Place) -> None:
        self._path = path
        with self._open([]) as file:
            self.rows = int(file.metadata.num_rows)
            self.names: list[str] = file.schema_arrow.names

    @contextmanager
    def _open(self, coded: list[str]) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            at = self._path.open("rb") if isinstance(self._path, Remote) else str(self._path)
            with pq.ParquetFile(at, read_dictionary=coded, memory_map=True) as file:
                yield file
        except ManifestError:
            raise
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:  # ValueError: names that are no UTF-8
            raise ManifestError(f"a part of the manifest is missing or damaged: {self._path}: {error}") from error

    def tables(self, names: list[str], most: int, coded: bool) -> Iterator[Any]:
        """Yield columns of the first `most` rows, a row group at a time; `coded`: texts as dictionaries."""
        if absent := [name for name in names if name not in self.names]:
            raise ManifestError(f"{self._path} has no column {', '.join(absent)}")
        with self._open(names if coded else []) as file:
            for group in range(file.metadata.num_row_groups):
                if most <= 0:
                    return
                table = file.read_row_group(group, columns=names).slice(0, most)
                table.validate(full=True)  # texts that are no UTF-8, too
                most -= len(table)
                yield table

    def empty(self, names: list[str]) -> Any:
        """Return columns without rows."""
        with self._open([]) as file:
            return file.schema_arrow.empty_table().select(names)
