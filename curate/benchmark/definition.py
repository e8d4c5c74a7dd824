"""A benchmark is data: one TOML file that names collections, corruptions, selectors, budgets, seeds and tasks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.errors import RecipeError
from curate.files import digest
from curate.recipe_lines import load_toml

TASKS = ("probe", "network", "contrastive", "masked", "coverage", "detection")
SETS = ("synthetic", "digits", "photographs", "source")
STEPS = (
    "duplicate", "near-duplicate", "label-flip", "caption-shuffle", "blank", "blur", "long-tail", "order", "outliers",
    "leaks",
)  # fmt: skip
EVERYTHING = "everything"
ORACLE, CALIBRATED = "oracle", "calibrated"  # gates by name
LEAST_RANDOM = 5  # seeds of the baseline


class DefinitionError(RecipeError):
    """A benchmark's definition has an unknown key, a wrong type, or a value out of range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is compared.

    budgets: shares of the corrupted training rows; seeds: 0, 1, …, of split, corruption, selector and training
    random_seeds: those of `random`, five at least
    """

    name: str = ""
    budgets: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5)
    seeds: int = 5
    random_seeds: int = 5
    tasks: tuple[str, ...] = ("coverage",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """How the tasks train.

    probe_dims, image_dims, text_dims: principal components that the probe and the two heads read; 0: the embeddings
    neighbours: votes of the nearest; steps, batch, rate: of the contrastive heads
    side: of images that networks from scratch read, pixels; network_steps, masked_steps: of their training
    """

    probe_dims: int = 256
    neighbours: int = 10
    image_dims: int = 256
    text_dims: int = 128
    steps: int = 600
    batch: int = 256
    rate: float = 1e-3
    side: int = 32
    network_steps: int = 300
    masked_steps: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """One collection.

    kind: `synthetic`, `digits`, `photographs` or `source`, which path, label, caption and group describe as for `grow`
    test: share held out, groups never split; most: rows read; encoder: `builtin`, an open_clip name, or `pixels`
    rows, classes, dims, zipf, spread, captions: of a synthetic one; the rest are shares that it plants
    """

    kind: str
    test: float = 0.25
    most: int = 0
    encoder: str = "builtin"
    text_encoder: str = ""
    path: str = ""
    label: str = ""
    caption: str = ""
    group: str = ""
    rows: int = 2000
    classes: int = 10
    dims: int = 32
    zipf: float = 1.0
    spread: float = 0.3
    captions: bool = True
    near_duplicates: float = 0.0
    flipped: float = 0.0
    shuffled: float = 0.0
    outliers: float = 0.0
    leaks: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One corruption.

    share: of the rows that are there when it is applied; how: of label-flip `uniform` or `class`, of near-duplicate
    `reencode`, `resize`, `crop`, `flip` or, in turn, `all`; by: of order `class` or a metadata column
    ratio: of long-tail, smallest class to largest
    """

    kind: str
    share: float = 0.1
    how: str = ""
    by: str = "class"
    ratio: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Rows that may be chosen: those whose column is at least `least`, at most `most`, and not in a dropped share."""

    column: str
    least: float | None = None
    most: float | None = None
    drop_lowest: float = 0.0
    drop_highest: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """A method behind a gate.

    method: of `curate methods`, `everything`, or a peer, `peer:NAME`; params: its parameters
    gate: nothing, `oracle` (the rows that are not planted as bad), `calibrated` (as `curate grow` refuses captions and
        labels), or a Gate; scores: computed and given besides
    """

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    gate: str | Gate = ""
    scores: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A whole benchmark; `digest` is equal where everything in it is equal."""

    bench: Bench
    task: Task
    dataset: Mapping[str, Set]
    corruption: Mapping[str, tuple[Step, ...]]
    selector: Mapping[str, Chooser]
    detection: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return the SHA-256 of everything that was defined, defaults included."""
        return digest(as_json(self))

    def seeds_of(self, selector: str) -> range:
        """Return the seeds that a selector runs with."""
        one = self.selector[selector]
        random = one.method == "random" and not one.gate
        return range(self.bench.random_seeds if random else self.bench.seeds)

    def budgets_of(self, selector: str) -> tuple[float, ...]:
        """Return its budgets: everything has one, 1."""
        return (1.0,) if self.selector[selector].method == EVERYTHING else self.bench.budgets


def as_json(value: Any) -> Any:
    """Return a dataclass of this file as a JSON value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: as_json(one) for key, one in value.items()}
    return [as_json(one) for one in value] if isinstance(value, (list, tuple)) else value


def load_definition(path: str | Path) -> Definition:
    """Read a definition. Raises DefinitionError with the line for anything unknown, mistyped or out of range."""
    return load_toml(path, "definition", lambda value: definition_from(value, Path(path).stem), DefinitionError)


def definition_from(tables: Mapping[str, Any], name: str = "bench") -> Definition:
    """Return the definition of {table: …}; missing keys take their defaults. Raises DefinitionError."""
    from curate.benchmark.check import check

    known = ("bench", "task", "dataset", "corruption", "selector", "detection")
    for table in tables:
        if table not in known:
            raise DefinitionError(f"unknown table [{table}]; there are: {', '.join(known)}")
        if not isinstance(tables[table], dict):
            raise DefinitionError(f"{table} must be a table: write [{table}]")
    sets = {key: _made(Set, f"dataset.{key}", value) for key, value in _named(tables, "dataset").items()}
    steps = {key: _steps(key, value) for key, value in (tables.get("corruption") or {"clean": []}).items()}
    detection = tables.get("detection", {})
    made = Definition(
        bench=_made(Bench, "bench", {"name": name} | tables.get("bench", {})),
        task=_made(Task, "task", tables.get("task", {})),
        dataset=sets,
        corruption=steps,
        selector={key: _chooser(key, value) for key, value in _named(tables, "selector").items()},
        detection=_value("detection.columns", detection.get("columns", []), "tuple[str, ...]"),
    )
    if unknown := sorted(set(detection) - {"columns"}):
        raise DefinitionError(f"unknown key detection.{unknown[0]}; [detection] has: columns")
    check(made)
    return made


def _named(tables: Mapping[str, Any], table: str) -> dict[str, Any]:
    found = tables.get(table, {})
    if not found:
        raise DefinitionError(f"[{table}] is missing; it must name one {table} at least")
    return dict(found)


def _steps(name: str, value: Any) -> tuple[Step, ...]:
    where = f"corruption.{name}"
    if not isinstance(value, list):
        raise DefinitionError(f"{where} is {value!r}; it must be a list of tables, as [{{kind = 'label-flip'}}]")
    return tuple(_made(Step, f"{where}[{i}]", step) for i, step in enumerate(value, 1))


def _chooser(name: str, value: Any) -> Chooser:
    where = f"selector.{name}"
    if not isinstance(value, dict):
        raise DefinitionError(f"{where} is {value!r}; it must be a table, as {{method = 'kcenter'}}")
    gate = value.get("gate", "")
    rest = {key: one for key, one in value.items() if key != "gate"}
    made: Chooser = _made(Chooser, where, rest)
    if isinstance(gate, dict):
        return dataclasses.replace(made, gate=_made(Gate, where, gate))
    if gate not in ("", ORACLE, CALIBRATED):
        raise DefinitionError(f"{where}.gate is {gate!r}; it must be 'oracle', 'calibrated', or a table with a column")
    return dataclasses.replace(made, gate=gate)


def _made(kind: Any, where: str, values: Any) -> Any:
    """Return a dataclass of a table's values, each of its field's type."""
    if not isinstance(values, dict):
        raise DefinitionError(f"{where} is {values!r}; it must be a table")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in values:
        if key not in fields:
            raise DefinitionError(f"unknown key {where}.{key}; there are: {', '.join(fields)}")
    for key, one in fields.items():
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if required and key not in values:
            raise DefinitionError(f"{where} lacks {key!r}")
    return kind(**{key: _value(f"{where}.{key}", value, str(fields[key].type)) for key, value in values.items()})


def _value(where: str, value: Any, kind: str) -> Any:
    """Return a value as its field's type says; a whole number will do for a float."""
    if kind.startswith("tuple["):
        if not isinstance(value, list):
            raise DefinitionError(f"{where} is {value!r}; it must be a list")
        return tuple(_value(where, one, kind[6:].partition(",")[0]) for one in value)
    if kind.startswith("Mapping"):
        if not isinstance(value, dict):
            raise DefinitionError(f"{where} is {value!r}; it must be a table")
        return dict(value)
    name = kind.partition(" | ")[0]
    if name == "float" and type(value) is int:
        value = float(value)
    if type(value).__name__ != name or (name == "float" and not math.isfinite(value)):
        raise DefinitionError(f"{where} is {value!r}; it must be of type {name}")
    return value
