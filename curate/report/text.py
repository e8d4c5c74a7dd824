"""Text and numbers as a report prints them: nothing hidden, nothing endless."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | int | float | None

_JOINERS = frozenset("\u200c\u200d")  # joiners: invisible, but Indic scripts and emoji are wrong without them


@dataclass(frozen=True, slots=True)
class Table:
    """A table for a report. Numbers are aligned right, None is a dash; `note` is a sentence under it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def visible(text: str) -> str:
    """Return a text with everything that a reader could not see written as an escape, `\\u202e`.

    That is control and format characters (bidirectional overrides among them), line ends, private and unassigned code
    points, and lone surrogates, which no encoding could store. Spaces of any width stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) else _escape(c) for c in text)


def _is_shown(character: str) -> bool:
    is_space = unicodedata.category(character) == "Zs"
    return character.isprintable() or is_space or character in _JOINERS


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clipped(text: str, most: int) -> str:
    """Return a text on one line and no longer than `most` characters; an ellipsis says that it was longer."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def shown(cell: Cell) -> str:
    """Return a table's cell as text: integers with thousands, floats to three decimals, None as a dash."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.3f}"


def percent(part: float, whole: float) -> str:
    """Return a share as `12.3 %`; below one in a thousand as `< 0.1 %`."""
    share = 100.0 * part / whole if whole else 0.0
    return "< 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"


def stored(size: float) -> str:
    """Return a number of bytes in the decimal unit that fits: `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
