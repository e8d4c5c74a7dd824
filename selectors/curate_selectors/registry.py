"""Every method by name. Each family keeps its own table; other packages add to it by entry points.

A package names its methods in the entry point group `curate.selectors`: the name is the method's, the value
(`module:NAME`) an `Entry`. docs/methods.md is generated from this file (`python -m curate_selectors.registry`).
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from dataclasses import MISSING, Field, fields
from importlib.metadata import EntryPoint, entry_points
from numbers import Integral, Real
from typing import Any

from curate_selectors.entry import Entry
from curate_selectors.errors import SelectorError, UnknownSelectorError

FAMILIES = ("streaming", "information", "quality", "pairs", "coverage", "training", "balance")
METHODS: dict[str, Entry] = {
    name: row
    for family in FAMILIES
    for name, row in importlib.import_module(f"curate_selectors.{family}").METHODS.items()
}
_GROUP = "curate.selectors"


def entry(name: str) -> Entry:
    """Return the table's row of a method, ours or another package's.

    Raises:
        UnknownSelectorError: there is no such method; the message lists those that exist.
        SelectorError: another package offers it, and it cannot be loaded.
    """
    if name in METHODS:
        return METHODS[name]
    offered = _offered()
    if name not in offered:
        known = sorted({*METHODS, *offered})
        raise UnknownSelectorError(f"no method is called {name!r}; there are: {', '.join(known)}")
    return _loaded(offered[name])


def _offered() -> dict[str, EntryPoint]:
    """Return the methods of other packages; ours go first, so no package changes what a name means."""
    return {point.name: point for point in sorted(entry_points(group=_GROUP)) if point.name not in METHODS}


def _loaded(point: EntryPoint) -> Entry:
    try:
        row = point.load()
    except (ImportError, AttributeError) as error:
        raise SelectorError(f"method {point.name!r} ({point.value}) cannot be loaded: {error}") from error
    if not isinstance(row, Entry):
        raise SelectorError(f"method {point.name!r}: {point.value} is no curate_selectors.entry.Entry")
    return row


def names() -> list[str]:
    """Return the names of all methods, sorted."""
    return sorted({*METHODS, *_offered()})


def methods() -> list[dict[str, Any]]:
    """Return every method by name: {"name", "kind", "nested", "paper", "needs", "summary"}."""
    listed = []
    for name in names():
        row = entry(name)
        told = {"kind": list(row.kind), "nested": row.nested, "paper": row.paper, "needs": list(row.needs)}
        listed.append({"name": name, **told, "summary": row.summary})
    return listed


def kind_of(row: Entry) -> Any:
    """Return the class of a method."""
    module, _, cls = row.target.partition(":")
    return getattr(importlib.import_module(module), cls)


def parameters(kind: Any) -> dict[str, Field[Any]]:
    """Return the parameters of a method's class, which a user may set: fields whose metadata has no `internal`."""
    return {f.name: f for f in fields(kind) if f.init and not f.metadata.get("internal")}


def make(name: str, **params: Any) -> Any:
    """Return a method with its parameters (`parameters` of its dataclass), defaults where none are given.

    Raises:
        UnknownSelectorError: there is no such method.
        SelectorError: it has no such parameter, needs one that is missing, or takes another type.
    """
    kind = kind_of(entry(name))
    known = parameters(kind)
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise SelectorError(f"{name!r} has no parameter {', '.join(unknown)}; it has: {', '.join(known) or 'none'}")
    missing = [k for k, f in known.items() if f.default is MISSING and f.default_factory is MISSING and k not in params]
    if missing:
        raise SelectorError(f"{name!r} needs a value for {', '.join(missing)}")
    return kind(**{k: _typed(f"{k} of {name!r}", known[k].type, value) for k, value in params.items()})


def _typed(what: str, kind: Any, value: Any) -> Any:
    """Return a parameter's value as its field's type says: int, float, bool, str, or a tuple of any number of these.

    Raises SelectorError otherwise.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    fits = {
        "int": number and isinstance(value, Integral),
        "float": number and math.isfinite(float(value) if number else 0.0),
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
    }
    kind = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    if several := re.fullmatch(r"tuple\[(\w+), \.\.\.\]", kind):
        if not isinstance(value, (list, tuple)):
            raise SelectorError(f"{what} is {value!r}; it must be a list, such as [10, 3]")
        return tuple(_typed(f"{what}, entry {i},", several[1], part) for i, part in enumerate(value, 1))
    if kind not in fits:
        return value
    if not fits[kind]:
        wanted = {"int": "a whole number", "float": "a finite number", "bool": "true or false", "str": "text"}[kind]
        raise SelectorError(f"{what} is {value!r}; it must be {wanted}")
    return {"int": int, "float": float, "bool": bool, "str": str}[kind](value)


def methods_reference() -> str:
    """Return docs/methods.md: every method of ours with what it needs, its parameters and its paper, by family."""
    lines = [
        "# Methods",
        "",
        "Generated by `python -m curate_selectors.registry`. `curate select POOL --out DIR --method NAME --budget B`",
        "chooses from a pool, `curate.select(x, method=NAME, budget=B, …)` from arrays. What a method needs is read",
        "from the pool, or computed when the pool does not hold it. *Nested*: with one seed a smaller selection is a",
        "prefix of a larger one, so every prefix of a manifest is a selection; the others choose anew for each budget.",
        "Parameters go in `[select.params]` of a recipe, or as `--set KEY=VALUE`. Other packages' methods join by the",
        "entry point group `curate.selectors` and pass the same suite (`curate_selectors.checks`).",
    ]
    for family in FAMILIES:
        module = importlib.import_module(f"curate_selectors.{family}")
        if module.METHODS:
            lines += ["", f"## {(module.__doc__ or family).partition('.')[0]}"]
        for name, row in sorted(module.METHODS.items()):
            lines += _described(name, row)
    return "\n".join(lines) + "\n"


def _described(name: str, row: Entry) -> list[str]:
    """Return the lines of one method."""
    kind = kind_of(row)
    needs = ", ".join(f"`{need}`" for need in row.needs) or "nothing"
    known = parameters(kind).values()
    given = [f"`{f.name}`" + ("" if f.default is MISSING else f" = {f.default!r}") for f in known]
    forms = {
        ("stream",): "Decides online. ",
        ("stream", "subset"): "Decides online, and chooses. ",
        ("pool",): "Chooses from a pool only. ",
    }.get(row.kind, "")
    nested = "" if row.kind == ("stream",) else "Nested. " if row.nested else "Not nested. "
    drawn = ("Draws at random. " if row.draws else "") + ("Reads by tiles. " if row.tiled else "")
    drawn += (
        "Runs on a cluster (`--on ray`). "
        if row.spread
        else "In parts, runs on a cluster (`--on ray`). "
        if hasattr(kind, "spread")
        else ""
    )
    told = "\n".join(line.strip() for line in (kind.__doc__ or "").strip().splitlines())
    lines = ["", f"### {name}", "", row.summary, "", f"{forms}{nested}{drawn}Needs {needs}. {row.paper}."]
    chooses = inspect.getdoc(kind.select) if hasattr(kind, "select") else ""
    lines += ["", f"Parameters: {', '.join(given) or 'none'}.", "", told]
    return [*lines, "", chooses] if chooses else lines


if __name__ == "__main__":
    print(methods_reference(), end="")  # noqa: T201
