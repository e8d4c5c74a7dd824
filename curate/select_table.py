"""The recipe's [select] table: method, parameters, budget and constraints of `curate select --recipe`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from curate.errors import RecipeError
from curate_selectors.errors import SelectorError
from curate_selectors.registry import make

VIEW = "view"  # among a method's parameters: the embeddings that it reads, no parameter of its own
_CONSTRAINT = {"column": str, "value": str, "min": int, "max": int}


def _told(text: str, low: float | None = None) -> dict[str, Any]:
    return {"help": text, "low": low, "high": None}


def _key(default: Any, text: str, low: float | None = None) -> Any:
    """Return a dataclass field with its documentation and its lower bound."""
    return field(default=default, metadata=_told(text, low))


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectTable:
    """Defaults of `curate select --recipe`; many selections come from one pool, which is gated and deduplicated."""

    method: str = _key("default", "selector; `curate methods` lists them")
    budget: str = _key("10%", "a share (5%), a count (500) or bytes (2GB)")
    seed: int = _key(0, "seed of the selector", 0)
    target: str = _key("", "samples like those that are wanted: a pool, or an .npy file of embeddings")
    keep: str = _key("", "file with a key, SOURCE:KEY or uid a line: rows that must be in")
    drop: str = _key("", "file with a key, SOURCE:KEY or uid a line: rows that must be out")
    group: str = _key("", "column or metadata field of what belongs together (patient, lesion)")
    group_rule: str = _key(
        "whole", "`whole`: all of a group's candidates or none; `at-most:3`: no group counts oftener"
    )
    params: dict[str, Any] = field(
        default_factory=dict, metadata=_told("`[select.params]`: the method's parameters; docs/methods.md")
    )
    constraint: list[dict[str, Any]] = field(
        default_factory=list,
        metadata=_told("`[[select.constraint]]`: `column`; `min`, `max` rows of each of its values, or of one `value`"),
    )


def check_select(table: SelectTable) -> None:
    """Raise RecipeError, naming the key, for a rule, a constraint or a parameter that makes no sense."""
    if not re.fullmatch(r"whole|at-most:[1-9]\d{0,8}", table.group_rule):
        raise RecipeError(f"select.group_rule is {table.group_rule!r}; it must be 'whole' or 'at-most:3' (any number)")
    for number, given in enumerate(table.constraint, 1):
        _check_constraint(f"select.constraint[{number}]", given)
    if table.params:
        _check_params(table.method, table.params)


def _check_constraint(name: str, given: Any) -> None:
    if not isinstance(given, dict):
        raise RecipeError(f"{name} is {given!r}; it must be a table: write [[select.constraint]]")
    for key, value in given.items():
        if key not in _CONSTRAINT:
            raise RecipeError(f"{name}.{key} is unknown; a constraint has: {', '.join(_CONSTRAINT)}")
        if type(value) is not _CONSTRAINT[key]:
            raise RecipeError(f"{name}.{key} is {value!r}; it must be of type {_CONSTRAINT[key].__name__}")
        if isinstance(value, int) and value < 0:
            raise RecipeError(f"{name}.{key} is {value!r}; it must be at least 0")
    if not given.get("column"):
        raise RecipeError(f"{name} names no column")
    if not given.get("min") and "max" not in given:
        raise RecipeError(f"{name} has neither min nor max")
    low = given.get("min", 0)
    high = given.get("max", low)
    if high < low:
        raise RecipeError(f"{name}.max is {given['max']}; it must be at least min, {low}")


def _check_params(method: str, params: dict[str, Any]) -> None:
    params = {key: value for key, value in params.items() if key != VIEW}
    try:
        make(method, **params)
    except SelectorError as error:
        for key in params:
            try:
                make(method, **{k: v for k, v in params.items() if k != key})
            except SelectorError:
                continue
            raise RecipeError(f"select.params.{key} does not fit: {error}") from error
        raise RecipeError(f"select.params do not fit: {error}") from error
