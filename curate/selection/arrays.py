"""`curate.select`: a subset of plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from curate.budgets import Budget, parse_budget
from curate.errors import UsageError
from curate.scores.arrays import same_labels
from curate.selection.choose import choose
from curate.selection.constraints import Constraints, limits_of, text_of
from curate.selection.lazy import of_map
from curate.selection.needs import fill, named, needs_of, score_name, score_of
from curate_kernels.arrays import B1, F32, I64, as_rows, unit_rows
from curate_selectors.registry import entry, make
from curate_selectors.types import Candidates, Selection, among


def select(
    x: Any = None,
    *,
    method: str = "default",
    budget: Budget,
    text: Any = None,
    captions: Sequence[str | None] | None = None,
    labels: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    target: Any = None,
    target_labels: Sequence[Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    sizes: Sequence[int] | None = None,
    constraints: Constraints | None = None,
    seed: int = 0,
    **params: Any,
) -> Selection:
    """Choose a subset of plain arrays.

    Args:
        x: (n, d) embeddings; rows are scaled to norm 1. None for methods that need none. A memory map (`numpy.load`
            with mmap_mode="r"), float16 too, is read by tiles where the method can: docs/methods.md says which.
        method: a name of `curate.methods()`; params are the fields of its dataclass.
        budget: int = count, float in (0, 1] = share, str as on the command line; bytes need sizes.
        text: (n, t) embeddings of captions. captions, labels, groups: n each, None where there is none.
        target: (m, d) embeddings of samples like those that are wanted; target_labels: m labels of theirs.
        scores: named columns of n numbers; what a method needs and is not here is computed. A sample whose needed score
            is NaN or infinite is no candidate; they are compared as float32.
        sizes: n stored sizes in bytes.
        constraints: what the selection must keep to; its columns are those of `columns`, `label` and `group`.
        seed: the same input and seed give the same selection.

    Returns:
        Selection: index (m,) int64 in pick order, gain, weight and probability (m,) float32. Under constraints the
        probability of a drawn row is NaN, as no formula gives it; weight and gain of a kept one may be 1 and NaN.

    Raises:
        UsageError: the budget makes no sense, the constraints cannot be met, or something that is needed is missing.
        ValueError: an array has NaN or the wrong shape. UnknownSelectorError: no such method.
    """
    labels, target_labels = same_labels(labels, target_labels)
    rows = None if x is None else _rows(x, method, params)
    given = {name: np.asarray(values, dtype=np.float32) for name, values in (scores or {}).items()}
    n = _length(rows, text, captions, labels, groups, sizes, *given.values(), *(columns or {}).values())
    names = _names([*(labels if labels is not None else ()), *(target_labels if target_labels is not None else ())])
    data = Candidates(
        n=n,
        x=rows,
        text=None if text is None else unit_rows(as_rows(text, "text")),
        target=None if target is None else unit_rows(as_rows(target, "target")),
        target_label=None if target_labels is None else codes(target_labels, names),
        label=None if labels is None else codes(labels, names),
        group=None if groups is None else codes(groups, _names(groups)),
        captions=captions,
        scores=given,
    )
    data, lacking = _filled(data, method, params, labels=labels, target_labels=target_labels)
    more = {k: list(v) for k, v in (("label", labels), ("group", groups)) if v is not None} | dict(columns or {})
    stored = None if sizes is None else np.asarray(sizes, dtype=np.int64)
    return select_among(data, lacking, method, budget, stored, seed, params, constraints or Constraints(), more)


def _rows(x: Any, method: str, params: dict[str, Any]) -> Any:
    """Return the unit rows, unread where they are a memory map and the method reads by tiles."""
    if isinstance(x, np.memmap) and x.ndim == 2 and entry(method).tiled_as(make(method, **params)):
        return of_map(x)
    return unit_rows(as_rows(x))


def _length(*given: Any) -> int:
    """Return the length that all have that are not None; UsageError where there is no such length."""
    lengths = [len(values) for values in given if values is not None]
    if len(set(lengths)) != 1:
        raise UsageError(f"x, labels, scores and sizes must have one length; they have {lengths or 'none'}")
    return lengths[0]


def select_among(
    data: Candidates,
    lacking: B1,
    method: str,
    budget: Budget,
    sizes: I64 | None,
    seed: int,
    params: Mapping[str, Any],
    constraints: Constraints,
    columns: Mapping[str, Sequence[Any]],
) -> Selection:
    """Choose among those of n candidates that lack nothing and need not be dropped; row numbers are of all n.

    constraints: keep and drop are row numbers; columns: those that the constraints name, n values each
    """
    keep, drop = (
        _places(rows, data.n, word) for rows, word in ((constraints.keep, "kept"), (constraints.drop, "dropped"))
    )
    if np.intersect1d(keep, drop).size:
        raise UsageError(f"row {np.intersect1d(keep, drop)[0]} must be kept and must be dropped")
    if lacking[keep].any():
        raise UsageError(f"row {keep[lacking[keep]][0]} must be kept and lacks a score that {method!r} needs")
    unknown = sorted(constraints.columns() - set(columns))
    if unknown:
        raise UsageError(
            f"a constraint names the column {unknown[0]!r}; there are: {', '.join(sorted(columns)) or 'none'}"
        )
    barred = lacking.copy()
    barred[drop] = True
    allowed = np.flatnonzero(~barred).astype(np.int64)
    here = {name: [columns[name][i] for i in allowed.tolist()] for name in constraints.columns()}
    bound = bool(keep.size or here)
    limits = limits_of(constraints, here, allowed.size, np.searchsorted(allowed, keep)) if bound else None
    amount = parse_budget(budget, allowed.size)
    part = data if allowed.size == data.n else among(data, allowed)
    chosen = choose(part, method, amount, None if sizes is None else sizes[allowed], seed, params, limits)
    return replace(chosen, index=allowed[chosen.index])


def _places(rows: Sequence[Any], n: int, word: str) -> I64:
    places = np.asarray(rows if len(rows) else np.zeros(0), dtype=np.float64)
    found = places.astype(np.int64)
    if (found != places).any() or (found < 0).any() or (found >= n).any():
        raise UsageError(f"rows to be {word} must be numbers from 0 to {n - 1}")
    return found


def _filled(
    data: Candidates, method: str, params: dict[str, Any], labels: Any, target_labels: Any
) -> tuple[Candidates, B1]:
    """Return the candidates with the scores that the method needs, and which of them lack one."""
    scores: dict[str, F32] = dict(data.scores)
    there = {
        "embeddings": data.x, "text": data.text, "captions": data.captions, "labels": data.label,
        "groups": data.group, "target": data.target,
    }  # fmt: skip

    def at_hand(word: str) -> bool:
        if word == "gain" and "gain_arrival" in scores:  # as published
            return True
        return there[word] is not None if word in there else score_name(word) in scores

    def compute(word: str) -> None:
        from curate.scores.arrays import score

        name = score_name(word)
        given = {"text": data.text, "captions": data.captions, "labels": labels}
        found = score(data.x, score_of(name), target=data.target, target_labels=target_labels, **given)
        scores.update({k: v for k, v in named(name, found).items() if k not in scores})

    words, _ = fill(method, needs_of(method, params), at_hand, compute, welcome=True)
    lacking = np.zeros(data.n, dtype=np.bool_)
    for word in words - set(there):
        if score_name(word) in scores:
            lacking |= ~np.isfinite(scores[score_name(word)])
    return replace(data, scores=scores), lacking


def _names(values: Sequence[Any]) -> dict[str, int]:
    """Return a number for every value that there is, in order of its text."""
    texts = {text_of(value) for value in values}
    return {name: i for i, name in enumerate(sorted(text for text in texts if text is not None))}


def codes(values: Sequence[Any], names: Mapping[str, int] | None = None) -> I64:
    """Return the numbers of values, -1 where there is none; numbered in order of their text unless `names` is given."""
    names = _names(values) if names is None else names
    return np.array(
        [names.get(text_of(value) or "", -1) if text_of(value) is not None else -1 for value in values], dtype=np.int64
    )
