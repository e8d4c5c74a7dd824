"""A whole benchmark: selections one after the other in a process of their own, then the tasks in several at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.benchmark.cells import Cell, cells_of, load_cell, score_cell, select_cell
from curate.benchmark.choose import load_chosen
from curate.benchmark.definition import Definition, load_definition
from curate.benchmark.environment import environment
from curate.benchmark.summary import summarise
from curate.errors import UsageError
from curate.files import atomic_write, canonical_json

Progress = Callable[[int, int | None], None]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Benched:
    """What a run made: cells in all, and those that were computed now; the paths of what it wrote."""

    name: str
    digest: str
    cells: int
    computed: int
    problems: int
    results: str
    table: str
    page: str


def run_benchmark(
    definition: str | Path | Definition,
    out: str | Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Benched:
    """Run a definition, or what is missing of it, and write results.json, timing.json, table.md and page.html.

    Every finished cell is a file under `out`, so a run that was killed goes on where it stood, and a changed definition
    computes what changed. Each process that is spawned works with one thread, so results do not depend on their number.

    workers: processes for the tasks, one for each core by default; 0: everything in this process, nothing spawned, with
        as many threads as it has (start it with OMP_NUM_THREADS=1 and NUMBA_NUM_THREADS=1 for the same last bits)

    Raises:
        UsageError: a collection does not fit its corruptions, `out` cannot be written, or a worker was killed.
    """
    made = definition if isinstance(definition, Definition) else load_definition(definition)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the results cannot be written to {folder}: {error}") from error
    cells = cells_of(made)
    todo = [cell for cell in cells if not cell.file(folder).is_file()]
    choosing = [cell for cell in todo if cell.scored or not cell.chosen_file(folder).is_file()]
    told = _Counter(progress, len(choosing) + len(todo))
    count = (os.cpu_count() or 1) if workers is None else workers
    _each(select_cell, made, choosing, folder, min(count, 1), told)
    _each(score_cell, made, todo, folder, count, told)
    return _written(made, cells, folder, len(todo))


class _Counter:
    """Counts what is done, for a progress bar."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def _each(work: Any, made: Definition, cells: Sequence[Cell], out: Path, workers: int, told: _Counter) -> None:
    """Do some work on every cell, in this process or in spawned ones."""
    if not workers or not cells:
        for cell in cells:
            work(made, cell, out)
            told()
        return
    with _one_thread():
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_with_parent)
        try:
            waiting: set[Future[None]] = set()
            for cell in cells:
                waiting.add(pool.submit(work, made, cell, out))
                if len(waiting) > 2 * workers:
                    waiting = _finished(waiting, told)
            while waiting:
                waiting = _finished(waiting, told)
        except BrokenProcessPool as error:
            raise UsageError(
                "a worker was killed, perhaps for want of memory: what is finished stays, the same command goes on;"
                " --workers 1 takes the least memory"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(waiting: set[Future[None]], told: _Counter) -> set[Future[None]]:
    done, left = wait(waiting, return_when=FIRST_COMPLETED)
    for one in done:
        one.result()
        told()
    return left


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Have processes that are spawned meanwhile compute with one thread each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _leave_with_parent() -> None:
    """End this process when the one that spawned it is gone: a killed run leaves nothing behind."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _written(made: Definition, cells: Sequence[Cell], out: Path, computed: int) -> Benched:
    """Gather all cells into the tables and the page."""
    from curate.benchmark.page import write_page
    from curate.benchmark.tables import markdown

    found = [load_cell(cell, out) for cell in cells]
    times = [_timed(cell, out) for cell in cells if not cell.scored]
    results = summarise(made, found) | {"environment": environment()}
    atomic_write(out / "results.json", canonical_json(results))
    atomic_write(out / "timing.json", canonical_json({"digest": made.digest(), "cells": times}))
    atomic_write(out / "table.md", markdown(results, times).encode())
    write_page(out / "page.html", results, times)
    return Benched(
        made.bench.name,
        made.digest(),
        len(cells),
        computed,
        sum(bool(one["problems"]) for one in found),
        str(out / "results.json"),
        str(out / "table.md"),
        str(out / "page.html"),
    )


def _timed(cell: Cell, out: Path) -> dict[str, Any]:
    chosen = load_chosen(cell.chosen_file(out))
    where = {"dataset": cell.dataset, "corruption": cell.corruption, "selector": cell.selector}
    told = {"budget": cell.budget, "seed": cell.seed, "score_seconds": chosen.score_seconds}
    return where | told | {"seconds": chosen.seconds}
