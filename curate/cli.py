"""The command line: it parses, calls one library function, and prints. Data on stdout, talk on stderr.

Exit codes: 0 done, 2 usage, 3 input, 4 pool locked or mismatched, 5 interrupted (1: anything unforeseen).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.errors import CurateError
from curate.version import __version__

if TYPE_CHECKING:
    from rich.table import Table

    from curate.engine.grow import Progress

app = typer.Typer(
    name="curate",
    help="Turn a scraped image collection into a small, clean, diverse training set.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
_INTERRUPTED = 5
_SIGINT = 130


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"curate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Turn a scraped image collection into a small, clean, diverse training set."""


@app.command()
def grow(
    sources: Annotated[list[str], typer.Argument(help="Tars, image folders, or tables of paths.")],
    pool: Annotated[Path, typer.Option(help="The pool's folder; made if there is none.")],
    recipe: Annotated[Path | None, typer.Option(help="A TOML recipe.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Image encoder: builtin, open_clip:ARCH/PRETRAINED.")] = None,
    text_encoder: Annotated[str | None, typer.Option(help="Caption encoder.")] = None,
    path: Annotated[str | None, typer.Option(help="Column with the image paths.")] = None,
    label: Annotated[str | None, typer.Option(help="Column with the labels.")] = None,
    caption: Annotated[str | None, typer.Option(help="Column with the captions.")] = None,
    group: Annotated[str | None, typer.Option(help="Column with the groups (patient, scene, site).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows decided and committed together.")] = None,
    change_recipe: Annotated[bool, typer.Option(help="Allow a recipe that differs from the pool's.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stream sources into a pool: each sample is admitted, or refused with a reason. Run it again to resume."""
    from curate.engine.grow import grow as run

    given: dict[str, dict[str, Any]] = {
        "source": {"path": path, "label": label, "caption": caption, "group": group},
        "encode": {"image": encoder, "text": text_encoder},
        "limits": {"batch_size": batch_size},
    }
    options = {t: {k: v for k, v in table.items() if v is not None} for t, table in given.items()}
    with _progress("growing") as progress:
        done = run(list(sources), pool, recipe=recipe, options=options, change_recipe=change_recipe, progress=progress)
    _answer(dataclasses.asdict(done), as_json, _grown)


def _grown(done: dict[str, Any]) -> Iterator[Table]:
    figures = {k: done[k] for k in ("pool", "version", "seen", "known", "admitted")}
    figures["refused"] = sum(done["refused"].values())
    figures["seconds"] = f"{done['seconds']} ({done['samples_per_second']} samples/s)"
    yield _table("grown", figures)
    if done["refused"]:
        yield _table("refused", done["refused"])


@app.command()
def select(
    pool: Annotated[Path, typer.Argument(help="The pool to choose from.")],
    out: Annotated[Path, typer.Option(help="Folder of the manifest.")],
    method: Annotated[str | None, typer.Option(help="Selector; `curate methods` lists them.")] = None,
    budget: Annotated[str | None, typer.Option(help="A share (5%), a count (500), or bytes (2GB).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the selector.", min=0)] = None,
    recipe: Annotated[Path | None, typer.Option(help="A TOML recipe; its [select] gives the defaults.")] = None,
    source: Annotated[
        str, typer.Option("--from", help="Choose among `admitted` rows or `all` decodable ones.")
    ] = "admitted",
    as_json: AsJson = False,
) -> None:
    """Choose a subset of a pool and write it as a manifest."""
    from curate.recipe import Recipe, load_recipe
    from curate.selection import select_from_pool

    given = {"method": method, "budget": budget, "seed": seed}
    chosen = (load_recipe(recipe) if recipe else Recipe()).replace(
        {"select": {key: value for key, value in given.items() if value is not None}}
    )
    done = select_from_pool(pool, out, candidates=source, **chosen.as_dict()["select"])
    _answer(dataclasses.asdict(done), as_json, lambda d: [_table("selected", d)])


@app.command()
def why(
    pool: Annotated[Path, typer.Argument(help="The pool.")],
    key_or_uid: Annotated[str, typer.Argument(help="A key, SOURCE:KEY, or uid.")],
    as_json: AsJson = False,
) -> None:
    """Tell what happened to a sample, against what, with every score and threshold."""
    from curate.engine.explain import why as explain

    _answer(explain(pool, key_or_uid), as_json, _explained)


def _explained(answer: dict[str, Any]) -> Iterator[Table]:
    nested = ("scores", "thresholds", "duplicate_of")
    yield _table("sample", {k: v for k, v in answer.items() if k not in (*nested, "history") and v is not None})
    for name in nested:
        if answer.get(name):
            yield _table(name, answer[name])
    for number, event in enumerate(answer["history"]):
        yield _table(f"decision {number + 1}", event)


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="A pool or a manifest.")],
    as_json: AsJson = False,
) -> None:
    """Show counts, versions, encoders and columns of a pool or a manifest."""
    from curate.engine.describe import describe

    _answer(describe(path), as_json, lambda d: [_table(d["kind"], {k: _short(v) for k, v in d.items() if k != "kind"})])


@app.command()
def score(
    pool: Annotated[Path, typer.Argument(help="The pool.")],
    name: Annotated[
        list[str] | None, typer.Option(help="Score; `curate methods --scores` lists them. May be repeated.")
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Samples like those that are wanted: a pool, or an .npy file of embeddings.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="The metadata column of `--name column`.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the score, KEY=VALUE. May be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute scores of every row of a pool, admitted or refused, and keep them as columns."""
    from curate.scores.pools import score_pool

    params = dict(_setting(text) for text in settings or [])
    if column is not None:
        params["column"] = column
    done = score_pool(pool, name or ["vinfo"], target=target, params=params)
    _answer(dataclasses.asdict(done), as_json, _scored)


def _setting(text: str) -> tuple[str, Any]:
    """Return KEY and VALUE of KEY=VALUE; numbers and true/false are what they look like, all else is text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        from curate.errors import UsageError

        raise UsageError(f"--set {text!r} is not understood; write KEY=VALUE")
    try:
        parsed = json.loads(value)
    except ValueError:
        return key, value
    return key, value if isinstance(parsed, (dict, list)) or parsed is None else parsed


def _scored(done: dict[str, Any]) -> Iterator[Table]:
    yield _table("scored", {k: done[k] for k in ("pool", "version", "rows", "seconds")})
    shown = {name: f"{v['rows']} rows, mean {v['mean']:g}" for name, v in done["columns"].items()}
    yield _table("columns", shown)


@app.command()
def methods(
    scores: Annotated[bool, typer.Option("--scores", help="List every score instead of every selector.")] = False,
    as_json: AsJson = False,
) -> None:
    """List every selector, or every score."""
    if scores:
        _list_scores(as_json)
        return
    from curate_selectors.registry import methods as listed

    rows = listed()
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.table import Table

    table = Table("method", "kind", "needs", "summary", "paper", box=None, header_style="bold")
    for row in rows:
        needs = ", ".join(row["needs"]) or "nothing"
        table.add_row(row["name"], ", ".join(row["kind"]), needs, row["summary"], row["paper"])
    _console(False).print(table)


def _list_scores(as_json: bool) -> None:
    from curate.scores.registry import scores as listed

    if as_json:
        typer.echo(json.dumps(listed()))
        return
    from rich.table import Table

    table = Table("score", "column", "unit", "higher means", "needs", box=None, header_style="bold")
    for row in listed():
        for i, column in enumerate(row["columns"]):
            name, needs = ("", "") if i else (row["name"], ", ".join(row["needs"]))
            table.add_row(name, column["name"], column["unit"], column["higher"], needs)
    _console(False).print(table)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where to write images, pool, manifest and report.")] = Path("curate-demo"),
    as_json: AsJson = False,
) -> None:
    """Run the main job on real images from installed packages, with planted errors, and show what was found."""
    from curate.demo import run_demo

    with _progress("demo") as bar:
        done = run_demo(out, None if bar is None else lambda what, count, total: bar(count, total))
    _answer(dataclasses.asdict(done), as_json, _demonstrated)


def _demonstrated(done: dict[str, Any]) -> Iterator[Table | str]:
    from rich.table import Table

    rows = done["truth"]
    table = Table(*rows[0], box=None, header_style="bold", title="planted and found", title_justify="left")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else "" if v is None else str(v) for v in row.values()))
    yield table
    for made in done["collections"]:
        grown, selected = made["grown"], made["selected"]
        yield f"\n{made['name']}: {grown['seen']} seen, {grown['admitted']} admitted, {selected['selected']} selected"
        yield f"  manifest {made['manifest']}\n  report   {made['report']}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else text[:400] + " … (--json shows all)"


def _table(title: str, values: dict[str, Any]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for key, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        table.add_row(escape(str(key)), escape(_visible(text)))
    return table


def _visible(text: str) -> str:
    """Return text with control and direction characters spelled out: captions and file names are strangers' text."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)


def _console(stderr: bool) -> Any:
    from rich.console import Console

    return Console(stderr=stderr)


def _answer(value: dict[str, Any], as_json: bool, tables: Any) -> None:
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False, default=str))
        return
    for table in tables(value):
        _console(False).print(table, soft_wrap=isinstance(table, str), highlight=False)


@contextmanager
def _progress(title: str) -> Iterator[Progress | None]:
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
    with Progress(*columns, console=_console(True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; named errors become one line on stderr and their exit code."""
    from curate_selectors.errors import SelectorError

    logging.basicConfig(format="curate: %(message)s", level=logging.WARNING, stream=sys.stderr)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)
    except (CurateError, SelectorError) as error:
        typer.echo(f"curate: {_visible(str(error))}", err=True)
        sys.exit(getattr(error, "exit_code", 2))
    except (KeyboardInterrupt, typer.Abort):
        code = _SIGINT
    except Exception as error:
        # click's own errors (a missing option, a bad value) know how to show themselves
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    if code == _SIGINT:  # typer turns KeyboardInterrupt into this status
        typer.echo("curate: interrupted; what was committed stays, the same command resumes", err=True)
        sys.exit(_INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)
