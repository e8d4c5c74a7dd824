"""`curate bench`: selectors against each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from curate.cli.app import app
from curate.cli.show import AsJson, answer, draw, progress_bar


@app.command()
def bench(
    definition: Annotated[Path, typer.Argument(help="A TOML definition; benchmarks/definitions/ has some.")],
    out: Annotated[Path, typer.Option(help="Where cells, tables and the page go; run it again to resume.")],
    workers: Annotated[
        int | None, typer.Option(help="Processes for the tasks; one for each core by default.", min=0)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare selectors: corrupt collections, select, train on what was selected, and test on held-out rows."""
    from curate.benchmark import run_benchmark

    with progress_bar("benchmark") as progress:
        done = run_benchmark(definition, out, workers=workers, progress=progress)
    answer(dataclasses.asdict(done), as_json, lambda d: [draw("benchmark", d)])
