"""Scores of a collection in parts: sums of each part are added, a model is fitted on them, each part is scored by it.

What is computed where is the caller's: `Over` runs a function on each part, in order, anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from curate.scores.rows import Rows
from curate.scoring.statistics import Statistics
from curate_kernels.arrays import B1, F32, I64

Extra = Mapping[str, Any]  # what a function is told of one part: arrays, and what JSON can say
PartFunction = Callable[[Rows, Extra], Mapping[str, Any]]
_TILE = 4096


class Over(Protocol):
    """A collection in parts. `whole` is its `Rows` without any rows: dimensions, classes, target."""

    whole: Rows

    def each(self, function: PartFunction, extra: Sequence[Extra] | None = None) -> Iterator[dict[str, Any]]:
        """Yield what a function of a module (or a `partial` of one) gives of each part, in order."""
        ...

    def take(self, masks: Sequence[B1], chosen: I64) -> Rows:
        """Return rows by their numbers, ascending, among the marked rows of all parts, one mask (n,) a part."""
        ...


@dataclass(frozen=True)
class InParts:
    """A fitted score. score: gives columns (n,) of a part; extra: what it is told of each; columns: their names."""

    score: Callable[[Rows, Extra], Mapping[str, F32]]
    extra: Sequence[Extra] | None
    columns: Sequence[str]


class SummedScore(Protocol):
    """A score whose model is made of sums."""

    def in_parts(self, over: Over) -> InParts:
        """Return the score fitted over all parts."""
        ...


def summed(image: F32, seen: B1, text: F32 | None = None, label: I64 | None = None) -> Statistics:
    """Return the sums of the rows `seen`, a tile at a time: of pairs, or of labelled rows, or of rows alone."""
    keep = "rows" if text is None and label is None else "labels" if text is None else "pairs"
    out = Statistics(keep=(keep,))
    classes = 0 if label is None else int(label.max(initial=-1)) + 1
    places = np.flatnonzero(seen)
    for low in range(0, places.size, _TILE):
        at = places[low : low + _TILE]
        out.update(image[at], None if text is None else text[at], None, None if label is None else label[at], classes)
    return out


def pair_sums(rows: Rows, _: Extra) -> dict[str, Any]:
    """Return the sums of a part's counted pairs, and which they are."""
    if rows.text is None:
        return {"seen": np.zeros(rows.n, dtype=np.bool_)}
    image, text, at = rows.pairs()
    seen = at & rows.counted
    return {"seen": seen, **summed(image, seen, text=text).arrays()}


def merged(found: Iterator[Mapping[str, Any]]) -> tuple[Statistics, list[B1]]:
    """Return the sums of all parts, added in their order, and each part's mask (n,) of the rows in them (`seen`)."""
    total, masks = Statistics(), []
    for part in found:
        masks.append(part["seen"].astype(np.bool_))
        total.merge(Statistics.from_arrays({name: value for name, value in part.items() if "." in name}))
    return total, masks


def counted_in(masks: Sequence[B1]) -> int:
    """Return how many rows are marked in all parts."""
    return sum(int(mask.sum()) for mask in masks)


def joined(fitted: Sequence[InParts]) -> InParts:
    """Return several fitted scores as one."""
    sizes = {len(one.extra) for one in fitted if one.extra is not None}
    extra = [
        {f"{i}/{k}": v for i, one in enumerate(fitted) if one.extra is not None for k, v in one.extra[part].items()}
        for part in range(max(sizes, default=0))
    ]
    functions = tuple(one.score for one in fitted)
    return InParts(partial(_all, functions), extra or None, [name for one in fitted for name in one.columns])


def _all(functions: Sequence[Callable[[Rows, Extra], Mapping[str, F32]]], rows: Rows, extra: Extra) -> dict[str, F32]:
    columns: dict[str, F32] = {}
    for i, function in enumerate(functions):
        own = {name.partition("/")[2]: value for name, value in extra.items() if name.startswith(f"{i}/")}
        columns |= function(rows, own)
    return columns
