"""Where in a recipe's text the table or key stands that an error names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from curate.errors import CurateError

T = TypeVar("T")

_NAMED = re.compile(r"\[([\w-]+)\]|([\w-]+)\.([\w-]+)(?:\[(\d+)\])?(?:\.([\w-]+))?")
_HEADER = re.compile(r"\s*\[+\s*[\"']?([\w-]+)[\"']?\s*(?:\.\s*[\"']?([\w-]+))?")


def load_toml(path: str | Path, what: str, build: Callable[[dict[str, Any]], T], error: type[CurateError]) -> T:
    """Return what `build` makes of a TOML file; `error` with the file, and the line that its message names."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{what} {path} cannot be read: {problem}") from problem
    try:
        return build(tomllib.loads(text))
    except tomllib.TOMLDecodeError as problem:
        raise error(f"{what} {path} is not TOML: {problem}") from problem
    except error as problem:
        raise error(f"{what} {path}{line_of(text, str(problem))}: {problem}") from problem


def line_of(text: str, message: str) -> str:
    """Return `, line N` of what a message names first, or nothing.

    It names `[table]`, `table.key`, or inside a table of its own `table.key.inner`, `table.key[2].inner`.
    """
    match = _NAMED.search(message)
    if match is None:
        return ""
    table, key = match[1] or match[2], match[3]
    if message.startswith("unknown table"):
        key = None
    found = 0
    if key and (match[4] or match[5]):
        found = _nested(text, table, key, int(match[4] or 1), match[5])
    found = found or _plain(text, table, key)
    return f", line {found}" if found else ""


def _nested(text: str, table: str, key: str, which: int, inner: str | None) -> int:
    """Return the line of `inner` in the `which`-th [table.key], or of its header; 0 where there is none."""
    seen = start = 0
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            if start:
                break
            if header[1] == table and header[2] == key:
                seen += 1
                start = number if seen == which else 0
        elif start and inner and re.match(rf"\s*[\"']?{inner}[\"']?\s*=", line):
            return number
    return start


def _plain(text: str, table: str, key: str | None) -> int:
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            inside = header[1] == table
            if inside and header[2] == key:
                return number
        elif (inside and key and re.match(rf"\s*[\"']?{key}[\"']?\s*=", line)) or re.match(rf"\s*{table}\b", line):
            return number
    return 0
