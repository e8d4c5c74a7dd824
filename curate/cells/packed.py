"""Shards of MDS (mosaicml-streaming) and LitData: where each field of each sample lies.

Both begin with the number of samples n and n + 1 offsets, all 32 bits, little-endian. A sample begins with the sizes of
its fields, likewise, and the fields follow one after the other; MDS writes no size where an encoding has a fixed one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import unpack
from typing import Any, BinaryIO

IMAGE_ENCODINGS = ("jpeg", "png")


@dataclass(frozen=True, slots=True)
class Column:
    """A field of every sample: its encoding, and its size in bytes where that is fixed."""

    name: str
    encoding: str
    size: int | None = None


def read_offsets(file: BinaryIO, end: int) -> list[int]:
    """Return the n + 1 offsets of a shard of `end` bytes. Raises ValueError if they are not there, or no offsets."""
    (count,) = unpack("<I", _exactly(file, 0, 4))
    if 8 + 4 * count > end:
        raise ValueError(f"it is said to hold {count} samples, for which it is too small")
    offsets = list(unpack(f"<{count + 1}I", _exactly(file, 4, 4 * count + 4)))
    if offsets[0] < 8 + 4 * count or offsets[-1] > end or any(a > b for a, b in pairwise(offsets)):
        raise ValueError("its offsets lead nowhere: it is cut off or damaged")
    return offsets


def place_fields(file: BinaryIO, start: int, stop: int, columns: Sequence[Column]) -> dict[str, tuple[int, int]]:
    """Return offset and size of each field of the sample between two offsets. Raises ValueError if they overrun it."""
    told = [column for column in columns if column.size is None]
    if start + 4 * len(told) > stop:
        raise ValueError("a sample is too short for its fields")
    sizes = iter(unpack(f"<{len(told)}I", _exactly(file, start, 4 * len(told))))
    at, out = start + 4 * len(told), {}
    for column in columns:
        size = next(sizes) if column.size is None else column.size
        out[column.name] = (at, size)
        at += size
    if at > stop:
        raise ValueError("the fields of a sample are longer than it")
    return out


def mds_columns(info: Any) -> list[Column]:
    """Return the columns that the JSON of an MDS shard describes. Raises ValueError if it does not."""
    try:
        names, encodings, sizes = (info[f"column_{what}"] for what in ("names", "encodings", "sizes"))
        columns = [Column(*each) for each in zip(names, encodings, sizes, strict=True)]
    except (KeyError, TypeError, ValueError):
        raise ValueError("it does not describe the columns of an MDS shard") from None
    for column in columns:
        is_size = column.size is None or (type(column.size) is int and 0 <= column.size < 1 << 32)
        if not isinstance(column.name, str) or not isinstance(column.encoding, str) or not is_size:
            raise ValueError(f"it describes a column as {column}")
    return columns


def read_mds_columns(file: BinaryIO, offsets: Sequence[int]) -> list[Column]:
    """Return the columns of an MDS shard as it describes itself, between the offsets and the first sample."""
    start = 4 + 4 * len(offsets)
    return mds_columns(json.loads(_exactly(file, start, offsets[0] - start)))


def _exactly(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    data = file.read(size)
    if len(data) < size:
        raise ValueError(f"it ends {size - len(data)} bytes too early")
    return data
