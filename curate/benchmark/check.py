"""What a definition must hold beyond the types of its values."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from curate.benchmark.definition import EVERYTHING, LEAST_RANDOM, SETS, STEPS, TASKS, DefinitionError, Gate

if TYPE_CHECKING:
    from curate.benchmark.definition import Bench, Chooser, Definition, Set, Step, Task

_HOW = {
    "label-flip": ("", "uniform", "class"),
    "near-duplicate": ("", "all", "reencode", "resize", "crop", "flip"),
}


def check(definition: Definition) -> None:
    """Raise DefinitionError, naming the key, where a value is out of range or names nothing that there is."""
    _check_bench(definition.bench)
    _check_task(definition.task)
    for name, one in definition.dataset.items():
        _check_set(f"dataset.{name}", one)
    for name, steps in definition.corruption.items():
        for i, step in enumerate(steps, 1):
            _check_step(f"corruption.{name}[{i}]", step)
    for name, chooser in definition.selector.items():
        _check_chooser(f"selector.{name}", chooser)
    for name in definition.detection:
        _check_column("detection.columns", name.removeprefix("-"))
    if not any(one.method == "random" and not one.gate for one in definition.selector.values()):
        raise DefinitionError("[selector] lacks the baseline: write random = {method = 'random'}")


def _check_bench(bench: Bench) -> None:
    if not bench.budgets or not all(0 < budget <= 1 for budget in bench.budgets):
        raise DefinitionError(f"bench.budgets is {list(bench.budgets)}; it must hold shares above 0 and at most 1")
    if len(set(bench.budgets)) < len(bench.budgets):
        raise DefinitionError(f"bench.budgets is {list(bench.budgets)}; it names a share twice")
    if bench.seeds < 1:
        raise DefinitionError(f"bench.seeds is {bench.seeds}; it must be 1 at least")
    if bench.random_seeds < max(LEAST_RANDOM, bench.seeds):
        raise DefinitionError(
            f"bench.random_seeds is {bench.random_seeds}; the baseline needs {max(LEAST_RANDOM, bench.seeds)} at least"
        )
    _one_of("bench.tasks", bench.tasks, TASKS)


def _check_task(task: Task) -> None:
    if min(task.steps, task.batch, task.neighbours, task.network_steps, task.masked_steps) < 1 or task.rate <= 0:
        raise DefinitionError("[task] steps, batch, neighbours, rate, network_steps and masked_steps must be above 0")
    if min(task.probe_dims, task.image_dims, task.text_dims) < 0 or not 8 <= task.side <= 256:
        raise DefinitionError("[task] dims must not be negative, and side must lie between 8 and 256")


def _one_of(where: str, values: Any, known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise DefinitionError(f"{where} is {value!r}; there are: {', '.join(known)}")


def _check_set(where: str, one: Set) -> None:
    _one_of(f"{where}.kind", [one.kind], SETS)
    if one.kind == "source" and not one.path:
        raise DefinitionError(f"{where}.path is empty; a source needs its path")
    if not 0 < one.test < 1:
        raise DefinitionError(f"{where}.test is {one.test}; it must lie between 0 and 1")
    for key in ("near_duplicates", "flipped", "shuffled", "outliers", "leaks"):
        if not 0 <= getattr(one, key) < 1:
            raise DefinitionError(f"{where}.{key} is {getattr(one, key)}; a share below 1 is needed")
    if one.rows < 20 or one.classes < 2 or one.dims < 2 or one.spread <= 0:
        raise DefinitionError(f"{where}.rows is {one.rows}; 20 rows, 2 classes, 2 dims and a spread > 0 are the least")


def _check_step(where: str, step: Step) -> None:
    _one_of(f"{where}.kind", [step.kind], STEPS)
    if not 0 <= step.share < 1:
        raise DefinitionError(f"{where}.share is {step.share}; it must be at least 0 and below 1")
    if not 0 < step.ratio <= 1:
        raise DefinitionError(f"{where}.ratio is {step.ratio}; it must lie in (0, 1]")
    _one_of(f"{where}.how", [step.how], _HOW.get(step.kind, ("",)))


def _check_column(where: str, name: str) -> None:
    from curate.scores.table import SCORES

    if not any(column == name for row in SCORES.values() for column, _, _ in row.columns):
        raise DefinitionError(f"{where} is {name!r}; no score has such a column")


def _check_chooser(where: str, chooser: Chooser) -> None:
    from curate.scores.table import SCORES
    from curate_selectors.errors import SelectorError
    from curate_selectors.registry import entry, make

    _one_of(f"{where}.scores", chooser.scores, tuple(SCORES))
    if isinstance(chooser.gate, Gate):
        _check_column(f"{where}.column", chooser.gate.column)
        if not (0 <= chooser.gate.drop_lowest < 1 and 0 <= chooser.gate.drop_highest < 1):
            raise DefinitionError(f"{where}.drop_lowest and drop_highest must be shares below 1")
    if chooser.method == EVERYTHING:
        return
    if chooser.method.startswith("peer:"):
        peers = importlib.import_module("curate.benchmark.peers").PEERS
        _one_of(f"{where}.method", [chooser.method.removeprefix("peer:")], tuple(peers))
        return
    try:
        make(chooser.method, **chooser.params)
        known = "subset" in entry(chooser.method).kind
    except SelectorError as error:
        raise DefinitionError(f"{where}.method: {error}") from error
    if not known:
        raise DefinitionError(f"{where}.method is {chooser.method!r}, which does not choose from arrays")
