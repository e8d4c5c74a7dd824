"""Every method by name. Each family keeps its own table."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any

from curate_selectors.entry import Entry
from curate_selectors.errors import SelectorError, UnknownSelectorError

FAMILIES = ("streaming", "information", "quality", "pairs", "coverage", "training", "balance")
METHODS: dict[str, Entry] = {
    name: row
    for family in FAMILIES
    for name, row in importlib.import_module(f"curate_selectors.{family}").METHODS.items()
}


def entry(name: str) -> Entry:
    """Return the table's row of a method.

    Raises:
        UnknownSelectorError: there is no such method; the message lists those that exist.
    """
    if name not in METHODS:
        raise UnknownSelectorError(f"no method is called {name!r}; there are: {', '.join(sorted(METHODS))}")
    return METHODS[name]


def methods() -> list[dict[str, Any]]:
    """Return every method by name: {"name", "kind", "paper", "needs", "summary"}."""
    return [
        {"name": name, "kind": list(m.kind), "paper": m.paper, "needs": list(m.needs), "summary": m.summary}
        for name, m in sorted(METHODS.items())
    ]


def make(name: str, **params: Any) -> Any:
    """Return a method with its parameters (the fields of its dataclass), defaults where none are given.

    Raises:
        UnknownSelectorError: there is no such method. SelectorError: it has no such parameter.
    """
    module, _, cls = entry(name).target.partition(":")
    kind = getattr(importlib.import_module(module), cls)
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise SelectorError(f"{name!r} has no parameter {', '.join(unknown)}; it has: {', '.join(known) or 'none'}")
    return kind(**params)
