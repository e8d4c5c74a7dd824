"""What the commands print: tables on stdout, talk and progress on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from curate.engine.grow import Progress

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]


def short(value: Any) -> str:
    """Return a value as text of at most 400 characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else text[:400] + " … (--json shows all)"


Roots = Annotated[
    list[str] | None, typer.Option(help="OLD=NEW: where a source, or a folder above it, lies now. Repeatable.")
]


def moved(roots: list[str] | None) -> dict[str, str]:
    """Return {old: new} of `--root OLD=NEW` options."""
    found = {}
    for text in roots or []:
        old, _, new = text.partition("=")
        if not old or not new:
            raise UsageError(f"--root {text!r} is not understood; write OLD=NEW")
        found[old] = new
    return found


def spark(counts: list[int]) -> str:
    """Return a histogram as a line of blocks; the smallest stands for anything above zero."""
    most = max([*counts, 1])
    return "".join(" " if not count else "▁▂▃▄▅▆▇█"[min(8 * count // most, 7)] for count in counts)


def draw(title: str, values: dict[str, Any]) -> Table:
    """Return a titled table of names and values."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for key, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        table.add_row(escape(str(key)), escape(visible(text)))
    return table


def visible(text: str) -> str:
    """Return text with control and direction characters spelled out: captions and file names are strangers' text."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)


def console(stderr: bool) -> Any:
    """Return a rich console."""
    from rich.console import Console

    return Console(stderr=stderr)


def answer(value: dict[str, Any], as_json: bool, tables: Any) -> None:
    """Print a value as one JSON object, or as the tables that `tables(value)` yields."""
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False, default=str))
        return
    for table in tables(value):
        console(False).print(table, soft_wrap=isinstance(table, str), highlight=False)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress | None]:
    """Yield a callback that draws a bar on stderr, or None where stderr is not a terminal."""
    if not sys.stderr.isatty() or os.environ.get("CI"):
        yield None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
