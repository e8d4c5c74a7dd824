"""The application that every command belongs to."""

from __future__ import annotations

from typing import Annotated

import typer

from curate.version import __version__

app = typer.Typer(
    name="curate",
    help="Turn a scraped image collection into a small, clean, diverse training set.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


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
