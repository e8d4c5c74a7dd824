"""Commands to see a pool by: a report to share, a page to decide on, and what was decided."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from curate.cli.app import app
from curate.cli.show import AsJson, Roots, answer, draw, moved
from curate.errors import UsageError


@app.command()
def report(
    path: Annotated[str, typer.Argument(help="A pool, or a manifest.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    manifest: Annotated[str | None, typer.Option(help="A manifest of this pool, to show what was selected.")] = None,
    since: Annotated[str | None, typer.Option(help="Two versions or tags of the pool: what differs")] = None,
    until: Annotated[str | None, typer.Option(help="from the first to this one.")] = None,
    root: Roots = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML file that shows what was decided or selected, with pictures. It needs no network and no script."""
    from curate.remote import place
    from curate.report import report_diff, report_manifest, write_report

    is_manifest = (place(path) / "manifest.json").is_file() or path.endswith("manifest.json")
    differs = since is not None or until is not None
    if is_manifest and (manifest is not None or differs):
        raise UsageError(f"{path} is a manifest; --manifest, --since and --until belong to the report of a pool")
    if root and not is_manifest:
        raise UsageError(f"--root belongs to the report of a manifest; {path} is none")
    if manifest is not None and differs:
        raise UsageError("a report of what differs shows no selection; leave out --manifest, or --since and --until")
    if is_manifest:
        written = report_manifest(path, out, moved=moved(root))
    elif differs:
        if since is None or until is None:
            raise UsageError("a report of what differs needs --since and --until")
        written = report_diff(path, since, until, out)
    else:
        written = write_report(path, out, manifest=manifest)
    answer({"report": str(written), "bytes": written.stat().st_size}, as_json, lambda d: [draw("report", d)])


def _browse(link: str, folder: Path) -> None:
    """Open a link by way of a file that only this user may read: command lines are there for all to see."""
    import webbrowser

    file = folder / "view.html"
    file.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={link}">', encoding="utf-8")
    webbrowser.open(file.as_uri())


@app.command()
def view(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    port: Annotated[int, typer.Option(help="Of 127.0.0.1; 0 takes a free one.", min=0, max=65535)] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Look at a pool on a local page, and decide: keep, drop, relabel. Serves this machine only, until interrupted."""
    import tempfile

    from curate.view import serve

    with tempfile.TemporaryDirectory(prefix="curate-") as folder:  # nobody else may look into it

        def ready(link: str) -> None:
            typer.echo(link)
            if open_browser:
                _browse(link, Path(folder))

        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            serve(pool, port=port, ready=ready)


@app.command()
def review(
    pool: Annotated[str, typer.Argument(help="The pool.")],
    decisions: Annotated[str, typer.Argument(help="A CSV, TSV, JSON lines or Parquet file: key, action, label.")],
    as_json: AsJson = False,
) -> None:
    """Write people's decisions to a pool: keep, drop, relabel or clear, one sample a row. What follows obeys them."""
    from dataclasses import asdict

    from curate.engine.review import review as decide
    from curate.remote import place
    from curate.sources.records import read_table

    done = decide(pool, read_table(place(decisions)).rows())
    answer(asdict(done), as_json, lambda d: [draw("reviewed", d)])
