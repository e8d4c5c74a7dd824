"""Every method by name. A literal table: nothing is imported until a method is made."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from typing import Any, Literal

from curate_selectors.errors import SelectorError, UnknownSelectorError


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table: where the class is, what it needs (`embeddings`, `labels`, `gain`), and who wrote it."""

    target: str
    kind: tuple[Literal["stream", "subset"], ...]
    needs: tuple[str, ...]
    paper: str
    summary: str


METHODS: dict[str, Entry] = {
    "infogrowth": Entry(
        "curate_selectors.infogrowth:InfoGrowth",
        ("stream", "subset"),
        ("gain or embeddings",),
        "Qin et al., Dataset Growth, ECCV 2024, arXiv:2405.18347",
        "Sampling without replacement by information gain: mean distance to the k nearest kept, drift corrected.",
    ),
    "infogrowth-reference": Entry(
        "curate_selectors.infogrowth:InfoGrowthReference",
        ("subset",),
        ("gain or embeddings",),
        "Qin et al., Dataset Growth, ECCV 2024, arXiv:2405.18347",
        "As published: sampling by the gain that each sample had when it arrived.",
    ),
    "kcenter": Entry(
        "curate_selectors.kcenter:KCenter",
        ("subset",),
        ("embeddings",),
        "Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5; Sener & Savarese, ICLR 2018, arXiv:1708.00489",
        "Farthest-point traversal: each pick is the candidate farthest from all earlier picks.",
    ),
    "random": Entry(
        "curate_selectors.uniform:Random",
        ("subset",),
        (),
        "baseline",
        "Uniform sampling without replacement: the baseline that every method must beat.",
    ),
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
