"""Sources and paths of rows as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import ManifestError
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
        out[stored] = self._numbered(owner, paths.take(path_at))[code]
        return out

    def _numbered(self, owner: np.ndarray[Any, Any], paths: Any) -> np.ndarray[Any, Any]:
        if len(self._known) + len(paths) > _DISTINCT:
            number = np.arange(self._count, self._count + len(paths), dtype=np.int32)
            fresh = np.arange(len(paths))
        else:
            size = len(self._known)
            keys = zip(owner.tolist(), paths.to_pylist(), strict=True)
            base = self._count - size  # numbers that were given without a name
            number = np.array([self._known.setdefault(key, base + len(self._known)) for key in keys], dtype=np.int32)
            fresh = np.flatnonzero(number >= self._count)
        self._found.append((owner[fresh], paths.take(fresh)))
        self._count += len(fresh)
        return number

    def table(self) -> Any:
        """Return source (int32) and path (string) of every file."""
        import pyarrow as pa

        source = np.concatenate([owner for owner, _ in self._found] or [np.zeros(0, np.int32)])
        path = pa.chunked_array([paths for _, paths in self._found], pa.large_string())
        return pa.table({"source": source, "path": path})


def _codes(column: Any, name: str) -> tuple[np.ndarray[Any, Any], Any]:
    """Return (m,) int32 codes, -1 for null, and what they stand for, of a column of texts."""
    import pyarrow as pa

    whole = column.combine_chunks()
    kind = whole.type.value_type if pa.types.is_dictionary(whole.type) else whole.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise ManifestError(f"column {name!r} of the manifest must hold texts, and holds {kind}")
    whole = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    names = whole.dictionary.cast(pa.large_string())
    codes = whole.indices.fill_null(_ABSENT) if whole.null_count else whole.indices
    return codes.to_numpy(zero_copy_only=False), names


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
        whole = column.cast(pa.int64())
        return (whole.fill_null(0) if whole.null_count else whole).to_numpy()
    except pa.ArrowException as error:
        raise ManifestError(f"column {name!r} of the manifest must hold whole numbers: {error}") from error
