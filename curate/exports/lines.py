"""Tables of text with a line for each row: JSON lines, CSV, and file names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from curate.cells import PATTERN
from curate.exports.task import Task
from curate.remote import is_url, place

Refuse = Callable[[int, Mapping[str, Any], str], None]
_ABSOLUTE = r"^(/|[A-Za-z]:[\\/]|[A-Za-z][A-Za-z0-9+.-]+://)"


class JsonLines:
    """One JSON object a row with every column; `path` is absolute, or a URL. NaN becomes null, as JSON has none."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def write(self, path: Path, refuse: Refuse) -> int:
        """Write the file; return the number of rows."""
        return _write(self._task, path, lambda frame, file, _: frame.fill_nan(None).write_ndjson(file))


class Csv:
    """A header and one line a row with every column; `path` is absolute, or a URL. Null is empty."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def write(self, path: Path, refuse: Refuse) -> int:
        """Write the file; return the number of rows."""

        def save(frame: pl.DataFrame, file: BinaryIO, start: int) -> None:
            flat = frame.with_columns(
                pl.col(name).map_elements(lambda value: json.dumps(value.to_list(), ensure_ascii=False), pl.String)
                for name, kind in frame.schema.items()
                if isinstance(kind, pl.List)
            )
            flat.write_csv(file, include_header=start == 0)

        done = _write(self._task, path, save)
        if not done:
            path.write_text(",".join(self._task.subset.schema) + "\n", encoding="utf-8")
        return done


class Names:
    """One file name a line: the path relative to its source's root, or the key of what lies in an archive."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def write(self, path: Path, refuse: Refuse) -> int:
        """Write the file; return the number of names. A name with a line break in it cannot be listed."""
        path_of = pl.col("path").str
        in_archive = (pl.col("offset") > 0) | path_of.contains(r"(?i)\.(tar|parquet)$") | path_of.contains(PATTERN)
        columns = ["uid", "source", "key", "path", "offset"]
        written = start = 0
        with path.open("wb") as file:
            for frame in self._task.subset.frames(columns):
                chosen = pl.when(in_archive).then(pl.col("key")).otherwise(pl.coalesce("path", "key"))
                names = frame.select(name=chosen)["name"]
                broken = names.str.contains(r"[\r\n]").fill_null(True)
                for i in broken.arg_true().to_list():
                    refuse(start + i, frame.row(i, named=True), "line_break_in_name")
                good = names.filter(~broken).to_list()
                file.write("".join(f"{name}\n" for name in good).encode())
                written += len(good)
                start += frame.height
        return written


def _write(task: Task, path: Path, save: Callable[[pl.DataFrame, BinaryIO, int], Any]) -> int:
    start = 0
    with path.open("wb") as file:
        for frame in task.subset.frames(list(task.subset.schema)):
            save(_located(frame, task.subset.roots), file, start)
            start += frame.height
            if task.progress is not None:
                task.progress(start, task.subset.rows)
    return start


def _located(frame: pl.DataFrame, roots: Mapping[str, str]) -> pl.DataFrame:
    """Return rows whose paths are absolute, or URLs."""
    if any(is_url(root) for root in roots.values()):
        pairs = zip(frame["source"], frame["path"], strict=True)
        full = [path and str(place(roots[source], path)) if source in roots else path for source, path in pairs]
        return frame.with_columns(path=pl.Series(full, dtype=pl.String))
    bases = {source: str(Path(root).absolute()).rstrip("/") + "/" for source, root in roots.items()}
    base = pl.col("source").replace_strict(bases, default="", return_dtype=pl.String)
    path = pl.col("path")
    return frame.with_columns(path=pl.when(path.str.contains(_ABSOLUTE)).then(path).otherwise(base + path))
