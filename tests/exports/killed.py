"""Exports that are killed at the n-th thing they do to the disk, or find it full, and are run again; tells in JSON.

`python killed.py MANIFEST BASE format:kind:n …`. Every run is a process of its own, forked before any thread begins.
Kind `count` says how many such things there are; `kill` sends SIGKILL at the n-th; `full` lets no file grow beyond n
bytes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import polars as pl  # noqa: F401  imported before forking, used by none but the children

import curate.exports.run
from curate.errors import CurateError
from curate.exports.formats import FORMATS

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink"}
SMALL = 12_000


def export(manifest: str, form: str, out: Path) -> str:
    """Export and return "done", or the named error."""
    sized = {"shard_size": SMALL} if "shard_size" in FORMATS[form].options else {}
    try:
        curate.exports.run.export(manifest, form, out, **sized)
    except CurateError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def child(kind: str, number: int, manifest: str, form: str, out: Path) -> None:
    """Run one export under a fault and write what came of it."""
    seen = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in EVENTS and str(out.parent) in str(arguments[0]):
            seen += 1
            if kind == "kill" and seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    if kind == "full":
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, most))
    told = export(manifest, form, out)
    if kind == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    print(json.dumps({"told": told, "events": seen}), flush=True)


def run(kind: str, number: int, manifest: str, form: str, out: Path) -> None:
    """Fork, run, and wait."""
    pid = os.fork()
    if pid == 0:
        try:
            child(kind, number, manifest, form, out)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        print(json.dumps({"told": "killed", "events": 0}), flush=True)


if __name__ == "__main__":
    source, base, *plans = sys.argv[1:]
    for plan in plans:
        form, kind, number = plan.split(":")
        folder = Path(base) / plan.replace(":", "-")
        folder.mkdir()
        run(kind, int(number), source, form, folder / "out")
        if kind != "count":
            run("again", 0, source, form, folder / "out")
