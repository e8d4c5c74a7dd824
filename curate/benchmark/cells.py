"""One cell: one selector at one budget and seed, tested by every task. Its file is written once, and stands for it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.benchmark import choose, measures
from curate.benchmark.contrastive import contrastive
from curate.benchmark.definition import Definition, as_json
from curate.benchmark.masked import masked
from curate.benchmark.network import network
from curate.benchmark.peers import peer_version
from curate.benchmark.probes import probe
from curate.benchmark.world import World, build_world
from curate.errors import CurateError, UsageError
from curate.files import atomic_write, canonical_json, digest
from curate.version import __version__

_FORMAT = 1
_SCORED = "(scores)"


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a cell stands in the definition; its key is equal where everything that it depends on is equal.

    selector is `(scores)` for detection, which has one cell a world
    """

    dataset: str
    corruption: str
    selector: str
    budget: float
    seed: int
    key: str
    chosen_key: str

    @property
    def scored(self) -> bool:
        """Tell whether this is a cell of detection."""
        return self.selector == _SCORED

    def file(self, out: Path) -> Path:
        """Return where the cell is kept."""
        return out / "cells" / f"{self.key}.json"

    def chosen_file(self, out: Path) -> Path:
        """Return where its selection is kept."""
        return out / "selections" / f"{self.chosen_key}.json"


def cells_of(definition: Definition) -> list[Cell]:
    """Return all cells, those of one world together."""
    contents = {name: content_of(one) for name, one in definition.dataset.items()}
    made = []
    for dataset in definition.dataset:
        for corruption in definition.corruption:
            for seed in range(max(definition.bench.seeds, definition.bench.random_seeds)):
                where = (dataset, corruption, seed)
                if "detection" in definition.bench.tasks and seed < definition.bench.seeds:
                    made.append(_cell(definition, contents[dataset], where, _SCORED, 0.0))
                made += [
                    _cell(definition, contents[dataset], where, selector, budget)
                    for selector in definition.selector
                    if seed in definition.seeds_of(selector)
                    for budget in definition.budgets_of(selector)
                ]
    return made


def content_of(one: Any) -> Any:
    """Return what tells whether a collection is still the same: the listing of a source."""
    if one.kind != "source":
        return None
    from curate.benchmark.sets import expanded
    from curate.sources import open_sources

    return [[source.id, source.fingerprint] for source in open_sources([expanded(one.path)])]


def _cell(definition: Definition, content: Any, where: tuple[str, str, int], selector: str, budget: float) -> Cell:
    dataset, corruption, seed = where
    world = {"set": as_json(definition.dataset[dataset]), "steps": as_json(definition.corruption[corruption])}
    told = {"format": _FORMAT, "version": __version__, "world": world, "content": content, "seed": seed}
    if selector == _SCORED:
        told |= {"detection": as_json(definition.detection)}
        return Cell(*where[:2], selector, budget, seed, digest(told)[:32], "")
    chooser = definition.selector[selector]
    told |= {"selector": as_json(chooser), "budget": budget}
    if chooser.method.startswith("peer:"):
        told["peer"] = peer_version(chooser.method.removeprefix("peer:"))  # once it is installed, it gets its turn
    tasks = [task for task in definition.bench.tasks if task != "detection"]
    settings = {"tasks": tasks, "task": as_json(definition.task)}
    return Cell(*where[:2], selector, budget, seed, digest(told | settings)[:32], digest(told)[:32])


@functools.lru_cache(maxsize=1)
def _world(key: tuple[str, str, int, str], out: Path) -> tuple[World, choose.Scores]:
    definition = _DEFINITION[key[3]]
    world = build_world(definition, *key[:3], out / "embeddings")
    return world, choose.Scores(world, key[2], out / "scores")


_DEFINITION: dict[str, Definition] = {}


def _open(definition: Definition, cell: Cell, out: Path) -> tuple[World, choose.Scores]:
    told = definition.digest()
    _DEFINITION.clear()
    _DEFINITION[told] = definition
    return _world((cell.dataset, cell.corruption, cell.seed, told), out)


def select_cell(definition: Definition, cell: Cell, out: Path) -> None:
    """Let the cell's selector choose, unless it has, and keep what it chose with its time.

    For a cell of detection, compute its scores: here they are timed, and a selector may read them afterwards.
    """
    file = cell.chosen_file(out)
    if file.is_file():
        return
    world, scores = _open(definition, cell, out)
    if cell.scored:
        _columns(definition, scores)
        return
    made = choose.choose(world, definition.selector[cell.selector], cell.budget, cell.seed, scores)
    choose.save_chosen(file, made)


def score_cell(definition: Definition, cell: Cell, out: Path) -> None:
    """Compute every measure of a cell, unless it is there, from the rows alone; a task that cannot run says why."""
    file = cell.file(out)
    if file.is_file():
        return
    world, scores = _open(definition, cell, out)
    found = _detected(definition, world, scores) if cell.scored else _measured(definition, cell, world, out)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, canonical_json(found))


def _detected(definition: Definition, world: World, scores: choose.Scores) -> dict[str, Any]:
    columns, problems = _columns(definition, scores)
    wanted = tuple(name for name in definition.detection if name.removeprefix("-") in columns)
    try:
        return {"measures": {"detection": measures.detection(world, columns, wanted)}, "problems": problems}
    except UsageError as error:
        return {"measures": {}, "problems": problems | {"detection": str(error)}}


def _columns(definition: Definition, scores: choose.Scores) -> tuple[choose.Columns, dict[str, str]]:
    """Return the columns that detection is asked for, and why some cannot be had."""
    from curate.selection.needs import score_of

    columns: choose.Columns = {}
    problems = {}
    for name in definition.detection:
        try:
            columns |= scores.of(score_of(name.removeprefix("-")))[0]
        except CurateError as error:
            problems[f"detection, {name}"] = str(error)
    return columns, problems


def _measured(definition: Definition, cell: Cell, world: World, out: Path) -> dict[str, Any]:
    chosen = choose.load_chosen(cell.chosen_file(out))
    try:
        rows = choose.checked(chosen, world.n, cell.budget)
    except UsageError as error:
        return {"measures": {}, "problems": {"selector": str(error)}}
    tasks: dict[str, Callable[[], dict[str, float]]] = {
        "probe": lambda: probe(world, rows, definition.task, cell.seed),
        "network": lambda: network(world, rows, definition.task, cell.seed),
        "contrastive": lambda: contrastive(world, rows, definition.task, cell.seed),
        "masked": lambda: masked(world, rows, definition.task, cell.seed),
        "coverage": lambda: measures.coverage(world, rows),
    }
    found: dict[str, Any] = {"composition": measures.composition(world, rows)}
    problems = {}
    for name, run in tasks.items():
        if name in definition.bench.tasks:
            try:
                found[name] = run()
            except CurateError as error:
                problems[name] = str(error)
    told = {"rows": int(rows.size), "of": world.n, "ids": digest(rows.tolist()), "world": world.digest}
    return {**told, "measures": _finite(found), "classes": measures.class_counts(world, rows), "problems": problems}


def _finite(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return measures without those that are no number: a radius where nothing covers."""
    return {task: {k: v for k, v in one.items() if np.isfinite(v)} for task, one in found.items()}


def load_cell(cell: Cell, out: Path) -> dict[str, Any]:
    """Return a cell's file with where it stands."""
    found: dict[str, Any] = json.loads(cell.file(out).read_bytes())
    where = {"dataset": cell.dataset, "corruption": cell.corruption, "seed": cell.seed}
    return where | ({} if cell.scored else {"selector": cell.selector, "budget": cell.budget}) | found
