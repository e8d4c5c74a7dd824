"""DataComp's subset: a sorted array of uids, each as often as its weight says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.errors import ExportError
from curate.exports.task import Task
from curate.exports.weights import repeats

DTYPE = np.dtype("<u8,<u8")  # high and low 64 bits
_AT_ONCE = 1 << 20  # uids that are written together


class DataComp:
    """Writes the array. Holds 40 bytes a row (48 where weights differ from 1), 400 MB for ten million."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def write(self, path: Path, refuse: Callable[[int, Mapping[str, Any], str], None]) -> int:
        """Write the file; return the number of uids in it, repeats included."""
        task = self._task
        high, low = (np.empty(task.subset.rows, dtype=np.uint64) for _ in range(2))
        copies = np.empty(0, dtype=np.int64)
        at = 0
        for frame in task.subset.frames(["uid", "weight"]):
            part = slice(at, at + frame.height)
            high[part], low[part] = halves(frame["uid"], at)
            count = repeats(frame["weight"].to_numpy(), at, task.options)
            if not copies.size and (count != 1).any():
                copies = np.ones(task.subset.rows, dtype=np.int64)
            if copies.size:
                copies[part] = count
            at += frame.height
            if task.progress is not None:
                task.progress(at, task.subset.rows)
        order = _sort(high, low)
        return _save(path, high, low, copies[order] if copies.size else None)


def halves(uid: pl.Series, start: int = 0) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the high and the low 64 bits of uids. Raises ExportError for one that is not 32 lower-case hex digits."""
    wrong = (uid.str.len_bytes() != 32).fill_null(True)
    if not wrong.any():
        array = uid.to_arrow()
        offsets, data = (array.buffers()[i] for i in (1, 2))
        first = np.frombuffer(offsets, dtype=np.int64)[array.offset] if len(uid) else 0
        text = np.frombuffer(data or b"", dtype=np.uint8)[first : first + 32 * len(uid)].reshape(-1, 32)
        # Bytes wrap, so one comparison tells a range. An ASCII letter has bit 6, a digit has not.
        known = (text - ord("0") < 10) | (text - ord("a") < 6)
        if not known.all():
            wrong = pl.Series(~known.all(axis=1))
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise ExportError(f"row {start + row} has the uid {uid[row]!r}, which is not 32 lower-case hex digits")
    digits = (text & 15) + 9 * (text >> 6)
    packed = (digits[:, 0::2] << 4) | digits[:, 1::2]
    words = packed.view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]


def _sort(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Sort both halves in place, by the high one first; return the order.

    Hashes hardly ever agree in 64 bits, so one half is sorted and the few runs of equals are put in order afterwards.
    """
    order = np.argsort(high)
    high[:] = high[order]
    low[:] = low[order]
    equal = high[1:] == high[:-1]
    if equal.any():
        tied = np.zeros(len(high), dtype=bool)
        tied[1:] |= equal
        tied[:-1] |= equal
        at = np.flatnonzero(tied)
        inside = np.lexsort((low[at], high[at]))
        low[at] = low[at][inside]
        order[at] = order[at][inside]
    return order


def _save(path: Path, high: NDArray[np.uint64], low: NDArray[np.uint64], copies: NDArray[np.int64] | None) -> int:
    total = len(high) if copies is None else int(copies.sum())
    header = {"descr": np.lib.format.dtype_to_descr(DTYPE), "fortran_order": False, "shape": (total,)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(high), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            rows = np.empty(len(high[part]), dtype=DTYPE)
            rows["f0"], rows["f1"] = high[part], low[part]
            for more in [rows] if copies is None else _repeated(rows, copies[part]):
                file.write(more.tobytes())
    return total


def _repeated(rows: NDArray[Any], copies: NDArray[np.int64]) -> Any:
    """Yield rows repeated, in pieces whose size does not grow with the weights."""
    ends = copies.cumsum()
    for low in range(0, int(ends[-1]) if len(ends) else 0, _AT_ONCE):
        high = min(low + _AT_ONCE, int(ends[-1]))
        yield rows[np.searchsorted(ends, np.arange(low, high), side="right")]
