"""The manifest's columns as formats that know text and numbers only, and no nulls, hold them."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import polars as pl

from curate.exports.task import Task

KINDS = ("str", "int", "float")


def typed(task: Task) -> dict[str, str]:
    """Return {column: kind} of what is written beside an image: "str", "int" or "float"."""
    kinds = {}
    for name in task.columns:
        kind = task.subset.schema[name]
        kinds[name] = "int" if kind.is_integer() else "float" if kind.is_float() else "str"
    return kinds


def packed(value: Any, kind: str) -> bytes:
    """Return a value as UTF-8, int64 or float64, little-endian. Null is empty text, -1, or NaN."""
    if kind == "int":
        return struct.pack("<q", -1 if value is None else value)
    if kind == "float":
        return struct.pack("<d", math.nan if value is None else value)
    if value is None:
        return b""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)
    return text.encode()


def _plain(value: Any) -> Any:
    return value.to_list() if isinstance(value, pl.Series) else str(value)
