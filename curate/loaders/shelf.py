"""Columns of a manifest in Arrow files that every process on a machine maps, so that none holds a copy of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.files import cache_folder

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger("curate")


class Shelf:
    """Tables by name, each made once: kept in memory, or in files of the cache folder where `name` is given.

    name: tells these tables from all others; equal names have equal tables. A file that cannot be written or read costs
    time and memory, no more. Only pyarrow touches the tables, as polars' threads do not outlive a fork.
    """

    def __init__(self, name: str | None) -> None:
        self._folder: Path | None = cache_folder() / "manifests" / name if name else None
        self._tables: dict[str, Any] = {}

    def table(self, name: str, make: Callable[[], Iterator[pa.Table]]) -> Any:
        """Return a table, made by joining what `make()` yields, one record batch each, if it is not here already."""
        if name not in self._tables:
            self._tables[name] = self._found(name, make) if self._folder else _joined(make())
        return self._tables[name]

    def _found(self, name: str, make: Callable[[], Iterator[pa.Table]]) -> Any:
        from filelock import FileLock

        assert self._folder is not None
        file = self._folder / f"{name}.arrow"
        try:
            if (table := _mapped(file)) is not None:
                return table
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / f"{name}.lock"):  # many processes begin at once; one makes it
                if _mapped(file) is None:
                    _write(file, make())
                return _mapped(file)
        except OSError as error:
            _LOG.warning("columns of the manifest are held in memory, in every process: %s", error)
            self._folder = None
            return _joined(make())


def _joined(tables: Iterator[pa.Table]) -> Any:
    import pyarrow as pa

    return pa.concat_tables(tables)


def _mapped(file: Path) -> Any:
    """Return the table in a file, its columns in the file's own pages; None if there is none, or only part of one."""
    import pyarrow as pa

    if not file.exists():
        return None
    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except pa.ArrowInvalid:
        return None


def _write(file: Path, tables: Iterator[pa.Table]) -> None:
    import pyarrow as pa

    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream, contextlib.ExitStack() as stack:
            writer = None
            for table in tables:
                writer = writer or stack.enter_context(pa.ipc.new_file(stream, table.schema))
                whole = all(column.num_chunks == 1 for column in table.columns)
                writer.write_table(table if whole else table.combine_chunks())  # one record batch, so one chunk
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
