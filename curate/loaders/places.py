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
        pair = source_code.astype(np.int64) * len(paths) + path_code
        stored = path_code >= 0
        distinct, code = _distinct(pair[stored], len(sources) * len(paths))
        owner = np.array([self._source[name] for name in names], dtype=np.int32)[distinct // max(len(paths), 1)]
        number = self._numbered(owner, paths.take(distinct % max(len(paths), 1)))
        out = np.full(pair.size, _ABSENT, dtype=np.int32)
        out[stored] = number[code]
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
    return whole.indices.fill_null(_ABSENT).to_numpy(zero_copy_only=False), names


def _distinct(pair: I64, most: int) -> tuple[I64, I64]:
    """Return the distinct numbers below `most`, and for each of `pair` which one it is."""
    if most > 4 * pair.size + 1024:
        found, code = np.unique(pair, return_inverse=True)
        return found, code
    seen = np.zeros(most, dtype=bool)
    seen[pair] = True
    place_of = np.cumsum(seen) - 1
    return np.flatnonzero(seen), place_of[pair]


def integers(column: Any, name: str) -> Any:
    """Return (m,) int64, 0 for null as `curate.stored` reads it."""
    import pyarrow as pa

    try:
        return column.cast(pa.int64()).fill_null(0).to_numpy()
    except pa.ArrowException as error:
        raise ManifestError(f"column {name!r} of the manifest must hold whole numbers: {error}") from error
