"""Commands that tell what is there, what happened, and why; and that go back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.app import app
from curate.cli.show import AsJson, answer, console, draw, short, spark

if TYPE_CHECKING:
    from rich.table import Table


@app.command()
def why(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    key_or_uid: Annotated[str, typer.Argument(help="A key, SOURCE:KEY, or uid.")],
    as_json: AsJson = False,
) -> None:
    """Tell what happened to a sample, against what, with every score and threshold."""
    from curate.engine.explain import why as explain

    answer(explain(pool, key_or_uid), as_json, _explained)


def _explained(answer: dict[str, Any]) -> Iterator[Table]:
    nested = ("scores", "thresholds", "duplicate_of")
    yield draw("sample", {k: v for k, v in answer.items() if k not in (*nested, "history") and v is not None})
    for name in nested:
        if answer.get(name):
            yield draw(name, answer[name])
    for number, event in enumerate(answer["history"]):
        yield draw(f"decision {number + 1}", event)


@app.command()
def info(
    path: Annotated[str, typer.Argument(help="A pool or a manifest.")],
    plot: Annotated[bool, typer.Option("--plot", help="Draw how the scores of a pool are spread.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show counts, versions, encoders and columns of a pool or a manifest."""
    from curate.engine.describe import describe, spread_of_scores

    told = describe(path)
    if plot and told["kind"] == "pool":
        told["spread"] = spread_of_scores(path)

    def drawn(d: dict[str, Any]) -> Iterator[Table]:
        yield draw(d["kind"], {k: short(v) for k, v in d.items() if k not in ("kind", "spread")})
        if "spread" in d:
            lines = {n: f"{s['low']:>9.3g} {spark(s['counts'])} {s['high']:<9.3g}" for n, s in d["spread"].items()}
            yield draw("scores, from the 0.5 % to the 99.5 % quantile", lines)

    answer(told, as_json, drawn)


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

    table = Table("method", "kind", "nested", "needs", "summary", "paper", box=None, header_style="bold")
    for row in rows:
        needs = ", ".join(row["needs"]) or "nothing"
        nested = "yes" if row["nested"] else "no"
        table.add_row(row["name"], ", ".join(row["kind"]), nested, needs, row["summary"], row["paper"])
    console(False).print(table)


def _list_scores(as_json: bool) -> None:
    from curate.scores.registry import list_scores as listed

    if as_json:
        typer.echo(json.dumps(listed()))
        return
    from rich.table import Table

    table = Table("score", "column", "unit", "higher means", "needs", box=None, header_style="bold")
    for row in listed():
        for i, column in enumerate(row["columns"]):
            name, needs = ("", "") if i else (row["name"], ", ".join(row["needs"]))
            table.add_row(name, column["name"], column["unit"], column["higher"], needs)
    console(False).print(table)


@app.command()
def sources(as_json: AsJson = False) -> None:
    """List every kind of source that `grow` reads, in the order in which a path is tried."""
    from curate.sources import list_kinds

    rows = list_kinds()
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.table import Table

    table = Table("source", "summary", "told by", box=None, header_style="bold")
    for row in rows:
        table.add_row(*row.values())
    console(False).print(table)


@app.command()
def log(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    every: Annotated[bool, typer.Option("--all", help="Also versions that only rearranged files or columns.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what each version of a pool did, newest first."""
    from curate.engine.timeline import log as listed

    entries = [entry for entry in listed(pool) if every or entry["what"] != "layout" or "tags" in entry]
    if as_json:
        typer.echo(json.dumps(entries, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("version", "when", "what", "figures", "tags", box=None, header_style="bold")
    for entry in entries:
        figures = {k: v for k, v in entry.items() if k not in ("version", "timestamp", "what", "tags")}
        told = ", ".join(f"{key} {value}" for key, value in figures.items())
        when, tags = entry["timestamp"][:19], ", ".join(entry.get("tags", []))
        table.add_row(str(entry["version"]), when, entry["what"], escape(told), escape(tags))
    console(False).print(table)


@app.command()
def diff(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    first: Annotated[str, typer.Argument(help="A version or tag.")],
    second: Annotated[str, typer.Argument(help="A later version or tag.")],
    as_json: AsJson = False,
) -> None:
    """Show how two versions of a pool differ: rows, decisions, columns, recipe."""
    from curate.engine.timeline import diff as differences

    answer(differences(pool, first, second), as_json, _differed)


def _differed(answer: dict[str, Any]) -> Iterator[Table]:
    nested = ("added", "changed", "examples")
    yield draw("difference", {k: v for k, v in answer.items() if k not in nested})
    yield draw("added", answer["added"])
    if answer["changed"]:
        yield draw("decided anew", answer["changed"])
        yield draw("for instance", {f"{e['source']}:{e['key']}": e["change"] for e in answer["examples"]})


@app.command()
def rollback(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    version: Annotated[str, typer.Argument(help="The version or tag to go back to.")],
    as_json: AsJson = False,
) -> None:
    """Make a new version that equals an old one. Nothing is lost: a rollback can be rolled back."""
    from curate.engine.timeline import rollback as back

    answer(back(pool, version), as_json, lambda d: [draw("rolled back", d)])


@app.command()
def tag(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    name: Annotated[str, typer.Argument(help="The tag.")],
    version: Annotated[str | None, typer.Option(help="The version that it names; by default the newest.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take the tag away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give a version of a pool a name."""
    from curate.engine.timeline import tag as name_version

    answer(name_version(pool, name, version, delete), as_json, lambda d: [draw("tag", d)])


@app.command()
def replay(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    order: Annotated[str, typer.Option(help="arrival: everything must come out the same. shuffle: another order.")] = (
        "arrival"
    ),
    seed: Annotated[int, typer.Option(help="Of the shuffle.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Decide every row of a pool once more, without its images, and compare. Changes nothing."""
    from curate.engine.replay import replay as decide_again

    answer(decide_again(pool, order=order, seed=seed), as_json, _replayed)


def _replayed(answer: dict[str, Any]) -> Iterator[Table]:
    nested = ("changed", "first")
    yield draw("replayed", {k: v for k, v in answer.items() if k not in nested})
    if answer["changed"]:
        yield draw("decided otherwise", answer["changed"])
    if "first" in answer:
        yield draw("first difference", answer["first"])
