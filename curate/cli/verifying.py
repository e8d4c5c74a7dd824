"""`curate verify`: are a manifest's samples still what they were?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.app import app
from curate.cli.show import AsJson, Roots, answer, draw, moved, progress_bar
from curate.errors import ManifestError

if TYPE_CHECKING:
    from rich.table import Table


@app.command()
def verify(
    manifest: Annotated[str, typer.Argument(help="The manifest: its folder, or manifest.json.")],
    root: Roots = None,
    sample: Annotated[int | None, typer.Option(help="Read this many samples only, drawn at random.")] = None,
    fraction: Annotated[float | None, typer.Option(help="Read this share of the samples only, in (0, 1].")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Read every sample of a manifest again and compare its bytes with what was chosen. Exit code 3 if any differ."""
    from curate.verification import verify as run

    roots = moved(root)
    with progress_bar("verifying") as progress:
        done = run(manifest, roots=roots, sample=sample, fraction=fraction, seed=seed, progress=progress)
    answer(dataclasses.asdict(done) | {"passed": done.passed}, as_json, _verified)
    if not done.passed:
        raise typer.Exit(ManifestError.exit_code)


def _verified(done: dict[str, Any]) -> Iterator[Table]:
    yield draw("verified", {k: v for k, v in done.items() if k not in ("broken", "examples")})
    if done["broken"]:
        yield draw("rows against a rule", done["broken"])
    for kind, rows in done["examples"].items():
        yield draw(f"{kind}, for instance", {f"{row['source']}:{row['path']}": row["problem"] for row in rows})
