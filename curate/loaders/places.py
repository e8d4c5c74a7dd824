"""Sources and paths of rows as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import ManifestError
from curate.loaders.buffers import joined, numbers_array, texts_array, view
from curate_kernels.arrays import I64

if TYPE_CHECKING:
    import pyarrow as pa

_DISTINCT = 200_000  # files that are looked up by name; more are images of their own, each in one row
_ABSENT = -1


class Files:
    """Numbers for files, told apart by source and path."""

    def __init__(self, sources: list[str]) -> None:
        self._source = {name: number for number, name in enumerate(sources)}
        self._known: dict[tuple[int, str], int] = {}
        self._count = 0
        self._found: list[tuple[np.ndarray[Any, Any], pa.Array]] = []  # source numbers and paths, in order of number

    def numbers(self, source: Any, path: Any) -> np.ndarray[Any, Any]:
        """Return (m,) the number of each row's file; -1 where there is no path."""
        source_code, sources = _codes(source, "source")
        path_code, paths = _codes(path, "path")
        names = sources.to_pylist()
        if source_code.size and (int(source_code.min()) < 0 or not self._source.keys() >= set(names)):
            raise ManifestError("rows name sources that manifest.json does not list; the manifest is damaged")
        stored = path_code >= 0
        source_at, path_at, code = _pairs(source_code[stored], path_code[stored], len(paths))
        owner = np.array([self._source[name] for name in names], dtype=np.int32)[source_at]
        out = np.full(path_code.size, _ABSENT, dtype=np.int32)
        out[stored] = self._numbered(owner, paths, path_at)[code]
        return out

    def _numbered(self, owner: np.ndarray[Any, Any], paths: Any, path_at: I64) -> np.ndarray[Any, Any]:
        """Return numbers of files: source `owner` and the path at `path_at` in `paths`."""
        import pyarrow as pa

        if len(self._known) + owner.size > _DISTINCT:
            number = np.arange(self._count, self._count + owner.size, dtype=np.int32)
            self._found.append((owner, paths.take(numbers_array(path_at)).cast(pa.large_string())))
            self._count += owner.size
            return number
        texts = paths.to_pylist()
        base = self._count - len(self._known)  # numbers that were given without a name
        keys = [(source, texts[at]) for source, at in zip(owner.tolist(), path_at.tolist(), strict=True)]
        number = np.array([self._known.setdefault(key, base + len(self._known)) for key in keys], dtype=np.int32)
        fresh = np.flatnonzero(number >= self._count)
        self._found.append((owner[fresh], texts_array([keys[at][1] for at in fresh])))
        self._count += fresh.size
        return number

    def table(self) -> Any:
        """Return source (int32) and path (string) of every file."""
        import pyarrow as pa

        source = np.concatenate([owner for owner, _ in self._found] or [np.zeros(0, np.int32)])
        path = pa.chunked_array([paths for _, paths in self._found], pa.large_string())
        return pa.Table.from_arrays([numbers_array(source), path], ["source", "path"])


def _codes(column: Any, name: str) -> tuple[np.ndarray[Any, Any], Any]:
    """Return (m,) int32 codes, -1 for null, and what they stand for, of a column of texts."""
    import pyarrow as pa

    whole = joined(column)
    kind = whole.type.value_type if pa.types.is_dictionary(whole.type) else whole.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise ManifestError(f"column {name!r} of the manifest must hold texts, and holds {kind}")
    whole = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    return view(whole.indices.fill_null(_ABSENT) if whole.null_count else whole.indices), whole.dictionary


def _pairs(source: I64, path: I64, paths: int) -> tuple[I64, I64, I64]:
    """Return source and path of each distinct pair of codes, and for each row which pair it is. path: below `paths`"""
    source_of = np.full(paths, _ABSENT, dtype=np.int64)
    source_of[path] = source
    if (source_of[path] == source).all():  # each path is in one source, as it is with tars
        used = source_of >= 0
        return source_of[used], np.flatnonzero(used), (np.cumsum(used) - 1)[path]
    pair, code = np.unique(source.astype(np.int64) * paths + path, return_inverse=True)
    return pair // paths, pair % paths, code


def integers(column: Any, name: str) -> Any:
    """Return (m,) int64, 0 for null as `curate.stored` reads it."""
    import pyarrow as pa

    try:
        whole = column if column.type == pa.int64() else column.cast(pa.int64())
        return view(joined(whole.fill_null(0) if whole.null_count else whole))
    except pa.ArrowException as error:
        raise ManifestError(f"column {name!r} of the manifest must hold whole numbers: {error}") from error
