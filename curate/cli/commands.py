"""Commands that make something: pools, scores, manifests, the demo."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.app import app
from curate.cli.show import AsJson, answer, draw, progress_bar
from curate.errors import UsageError
from curate.files import lines_of

if TYPE_CHECKING:
    from rich.table import Table

On = Annotated[str | None, typer.Option(help="A Ray cluster to work on: ray, or ray://HOST:PORT.")]


@app.command()
def grow(
    sources: Annotated[list[str], typer.Argument(help="Tars, image folders, tables: `curate sources`.")],
    pool: Annotated[str, typer.Option(help="The pool's folder; made if there is none.")],
    recipe: Annotated[Path | None, typer.Option(help="A TOML recipe.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Image encoder: builtin, open_clip:…, timm:…, onnx:…, precomputed:NAME.")
    ] = None,
    text_encoder: Annotated[str | None, typer.Option(help="Caption encoder: builtin, open_clip:…, st:…")] = None,
    source: Annotated[
        str | None, typer.Option(help="What the sources are; `curate sources` lists the kinds. By default, by a look.")
    ] = None,
    path: Annotated[str | None, typer.Option(help="Column with the image paths.")] = None,
    label: Annotated[str | None, typer.Option(help="Column with the labels.")] = None,
    caption: Annotated[str | None, typer.Option(help="Column with the captions.")] = None,
    alternatives: Annotated[str | None, typer.Option(help="Column with other captions.")] = None,
    group: Annotated[str | None, typer.Option(help="Column with the groups (patient, scene, site).")] = None,
    images: Annotated[str | None, typer.Option(help="Folder of the images that a COCO file describes.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows decided and committed together.")] = None,
    change_recipe: Annotated[bool, typer.Option(help="Allow a recipe that differs from the pool's.")] = False,
    guard: Annotated[
        list[str] | None, typer.Option(help="Evaluation set (images or a pool) to keep out from here on. Repeatable.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on: take in shards as they appear in a folder.")] = False,
    every: Annotated[float, typer.Option(help="With --follow: seconds between two looks.", min=0.1)] = 10.0,
    metrics_port: Annotated[
        int | None, typer.Option(help="With --follow: serve Prometheus metrics on 127.0.0.1.")
    ] = None,
    on: On = None,
    as_json: AsJson = False,
) -> None:
    """Stream sources into a pool: each sample is admitted, or refused with a reason. Run it again to resume."""
    from curate.engine.grow import grow as run

    columns = {"path": path, "label": label, "caption": caption, "alternatives": alternatives, "group": group}
    options = _given(
        source={"kind": source, "images": images, **columns},
        encode={"image": encoder, "text": text_encoder},
        limits={"batch_size": batch_size},
    )
    if not follow and (metrics_port is not None or every != 10.0):
        raise UsageError("--every and --metrics-port mean something with --follow only")
    if follow:
        settings: dict[str, Any] = {"recipe": recipe, "options": options, "guard": guard or ()}
        settings |= {"change_recipe": change_recipe, "on": on}
        _follow(sources, pool, settings, every, metrics_port, as_json)
        return
    with progress_bar("growing") as progress:
        done = run(
            list(sources),
            pool,
            recipe=recipe,
            options=options,
            change_recipe=change_recipe,
            guard=guard or (),
            progress=progress,
            on=on,
        )
    answer(dataclasses.asdict(done), as_json, _grown)


def _given(**tables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a recipe's tables with the keys that were given."""
    return {name: {key: value for key, value in table.items() if value is not None} for name, table in tables.items()}


def _follow(
    sources: list[str], pool: str, settings: dict[str, Any], every: float, port: int | None, as_json: bool
) -> None:
    """Grow until SIGINT or SIGTERM, which is how it is meant to end; print each round."""
    from curate.engine.follow import follow

    if len(sources) != 1:
        raise UsageError(f"--follow takes one folder, and {len(sources)} sources were given")
    rounds = 0

    def status(figures: dict[str, Any]) -> None:
        nonlocal rounds
        if figures["rounds"] > rounds:
            rounds = figures["rounds"]
            line = json.dumps(figures) if as_json else ", ".join(f"{k} {v}" for k, v in figures.items())
            typer.echo(line, err=not as_json)

    with contextlib.suppress(KeyboardInterrupt):
        follow(sources[0], pool, every=every, status=status, metrics_port=port, **settings)


def _grown(done: dict[str, Any]) -> Iterator[Table]:
    figures = {k: done[k] for k in ("pool", "version", "seen", "known", "admitted")}
    figures["refused"] = sum(done["refused"].values())
    figures["seconds"] = f"{done['seconds']} ({done['samples_per_second']} samples/s)"
    yield draw("grown", figures)
    if done["refused"]:
        yield draw("refused", done["refused"])


@app.command()
def embed(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    name: Annotated[str, typer.Option(help="Column that holds the embeddings.")],
    encoder: Annotated[str, typer.Option(help="Image encoder; empty for a column that is there.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, or several: cuda:0,cuda:1.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    cache: Annotated[str, typer.Option(help="Folder of embeddings by content that other pools share.")] = "",
    on: On = None,
    as_json: AsJson = False,
) -> None:
    """Embed a pool's images by one more encoder, and keep the rows as a column. Run it again to resume."""
    from curate.engine.embed import embed as run

    with progress_bar("embedding") as progress:
        settings = {"device": device, "precision": precision, "cache": cache}
        done = run(pool, name, encoder, run=settings, on=on, progress=progress)
    answer(dataclasses.asdict(done), as_json, lambda d: [draw("embedded", d)])


@app.command()
def score(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    name: Annotated[
        list[str] | None, typer.Option(help="Score; `curate methods --scores` lists them. May be repeated.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Samples like those that are wanted: a pool, or an .npy file of embeddings.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="The metadata column of `--name column`.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the score, KEY=VALUE. May be repeated.")
    ] = None,
    on: On = None,
    as_json: AsJson = False,
) -> None:
    """Compute scores of every row of a pool, admitted or refused, and keep them as columns."""
    from curate.scores.pools import score_pool

    params = dict(_setting(text) for text in settings or [])
    if column is not None:
        params["column"] = column
    done = score_pool(pool, name or ["vinfo"], target=target, params=params, on=on)
    answer(dataclasses.asdict(done), as_json, _scored)


def _setting(text: str, lists: bool = False) -> tuple[str, Any]:
    """Return KEY and VALUE of KEY=VALUE; numbers, true/false and, if so asked, lists are what they look like in JSON.

    All else is text.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--set {text!r} is not understood; write KEY=VALUE")
    try:
        parsed = json.loads(value)
    except ValueError:
        return key, value
    read = isinstance(parsed, (str, int, float)) or (lists and isinstance(parsed, list))
    return key, parsed if read else value


def _scored(done: dict[str, Any]) -> Iterator[Table]:
    yield draw("scored", {k: done[k] for k in ("pool", "version", "rows", "seconds")})
    figures = {k: f"{v['rows']} rows, mean {v['mean']}" for k, v in done["columns"].items()}
    yield draw("columns", figures)


@app.command()
def select(
    pool: Annotated[str, typer.Argument(help="The pool to choose from.")],
    out: Annotated[str, typer.Option(help="Folder of the manifest.")],
    method: Annotated[str | None, typer.Option(help="Selector; `curate methods` lists them.")] = None,
    budget: Annotated[str | None, typer.Option(help="A share (5%), a count (500), or bytes (2GB).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the selector.", min=0)] = None,
    recipe: Annotated[Path | None, typer.Option(help="A TOML recipe; its table `select` gives the defaults.")] = None,
    source: Annotated[
        str, typer.Option("--from", help="`admitted` rows, or `all` with an embedding; evaluation leaks never.")
    ] = "admitted",
    params: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the method, KEY=VALUE, or KEY=[1,2]. Repeatable.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Samples like those that are wanted: a pool, or an .npy file of embeddings.")
    ] = None,
    least: Annotated[
        list[str] | None,
        typer.Option("--min", help="COLUMN=N, COLUMN:VALUE=N: at least N rows of a value. Repeatable."),
    ] = None,
    most: Annotated[
        list[str] | None, typer.Option("--max", help="COLUMN=N, COLUMN:VALUE=N: at most N rows of a value. Repeatable.")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="A file of keys or uids: rows that must be in.")] = None,
    drop: Annotated[str | None, typer.Option(help="A file of keys or uids: rows that must be out.")] = None,
    group: Annotated[str | None, typer.Option(help="Column of what belongs together (patient, lesion).")] = None,
    group_rule: Annotated[
        str | None, typer.Option(help="`whole`: never split a group; `at-most:3`: none counts oftener.")
    ] = None,
    on: On = None,
    as_json: AsJson = False,
) -> None:
    """Choose a subset of a pool and write it as a manifest."""
    from curate.recipe import Recipe, load_recipe
    from curate.selection import select_from_pool
    from curate.selection.settings import quota_tables, settings

    base = load_recipe(recipe) if recipe else Recipe()
    given: dict[str, Any] = {"method": method, "budget": budget, "seed": seed, "target": target}
    given |= {"keep": keep, "drop": drop, "group": group, "group_rule": group_rule}
    if least or most:
        given["constraint"] = [*base.select.constraint, *quota_tables(least or [], most or [])]
    other = method not in (None, base.select.method)  # a recipe's parameters are those of its own method
    given["params"] = ({} if other else base.select.params) | dict(_setting(text, lists=True) for text in params or [])
    chosen = base.replace({"select": {key: value for key, value in given.items() if value is not None}})
    done = select_from_pool(pool, out, candidates=source, on=on, **settings(chosen.select))
    answer(dataclasses.asdict(done), as_json, lambda d: [draw("selected", d)])


@app.command()
def forget(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    keys: Annotated[Path | None, typer.Option(help="A file with a key, SOURCE:KEY or uid a line.")] = None,
    url_domain: Annotated[list[str] | None, typer.Option(help="Rows whose url is of this domain. Repeatable.")] = None,
    sha256: Annotated[Path | None, typer.Option(help="A file with a SHA-256 of original bytes a line.")] = None,
    refill: Annotated[bool, typer.Option(help="Let duplicates of forgotten rows take their place.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take rows out of data, index, statistics and history for good, and bar them from coming back."""
    from curate.engine.forget import forget as take_down

    with progress_bar("forgetting"):
        done = take_down(pool, keys=_listed(keys), url_domains=url_domain or (), sha256=_listed(sha256), refill=refill)
    answer(dataclasses.asdict(done), as_json, lambda d: [draw("forgotten", d)])


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where to write images, pool, manifest and report.")] = Path("curate-demo"),
    as_json: AsJson = False,
) -> None:
    """Run the main job on real images from installed packages, with planted errors, and show what was found."""
    from curate.demo import run_demo

    with progress_bar("demo") as bar:
        done = run_demo(out, None if bar is None else lambda what, count, total: bar(count, total))
    answer(dataclasses.asdict(done), as_json, _demonstrated)


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


def _listed(path: Path | None) -> list[str]:
    return [] if path is None else lines_of(path)
