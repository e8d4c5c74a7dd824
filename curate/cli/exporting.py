"""The command that writes a manifest in another format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.app import app
from curate.cli.show import AsJson, Roots, answer, draw, moved, progress_bar

if TYPE_CHECKING:
    from rich.table import Table


@app.command()
def export(
    manifest: Annotated[str, typer.Argument(help="A manifest's folder.")],
    to: Annotated[str, typer.Option(help="Format: datacomp, webdataset, wds-index, hf, mds, …; docs/exports.md.")],
    out: Annotated[str, typer.Option(help="The file or folder to write.")],
    root: Roots = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave out images that are gone or have changed.")
    ] = False,
    repeats: Annotated[
        bool, typer.Option("--repeats", help="webdataset: write a sample as often as its weight says.")
    ] = False,
    rounding: Annotated[
        str | None, typer.Option("--round", help="`stochastic`: fractional weights become repeats at random.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of --round stochastic.", min=0)] = None,
    shard_size: Annotated[str | None, typer.Option(help="Bytes of images in a shard, such as 256MB.")] = None,
    copy: Annotated[
        bool,
        typer.Option(
            " /--no-copy", show_default=False, help="Lists of files: refuse images in archives, write none out."
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Write a manifest in the format of a trainer or viewer. Run it again to go on where it was stopped."""
    from curate.exports import export as write

    with progress_bar("exporting") as progress:
        done = write(
            manifest,
            to,
            out,
            roots=moved(root),
            skip_missing=skip_missing,
            repeats=repeats,
            rounding=rounding or "",
            seed=seed,
            shard_size=shard_size,
            copy=copy,
            progress=progress,
        )
    answer(dataclasses.asdict(done), as_json, _exported)


def _exported(done: dict[str, Any]) -> Iterator[Table]:
    yield draw("exported", {key: value for key, value in done.items() if key != "refused" and value is not None})
    if done["refused"]:
        yield draw("left out", done["refused"])
