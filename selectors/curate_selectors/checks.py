"""The conformance suite: what every subset selector must satisfy, whoever wrote it.

    for check in subset_checks():
        check(lambda: MyMethod(), ENTRY)

Each check makes the method anew and raises AssertionError where it fails. The data hold all that the entry's needs
name, and more: embeddings, captions and theirs, labels, groups, a target set, scores.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from curate_kernels.arrays import F32
from curate_selectors.entry import Entry
from curate_selectors.errors import SelectorError
from curate_selectors.protocols import SubsetSelector
from curate_selectors.synthetic import candidates, made_rows
from curate_selectors.types import Candidates, Selection, among

Make = Callable[[], SubsetSelector]
Check = Callable[[Make, Entry], None]

_LARGE, _LARGE_COUNT = 5000, 40
_MEMORY = 64 << 20  # bytes; a dense similarity of _LARGE rows takes 100 MB


def _data(make: Make, entry: Entry, x: F32) -> Candidates:
    return candidates(x, make(), entry)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _valid(chosen: Selection, n: int, count: int) -> None:
    _require(chosen.index.dtype == np.int64, "index is int64")
    _require(chosen.index.shape == (count,), "exactly `count` rows are chosen")
    _require(np.unique(chosen.index).size == count, "no row is chosen twice")
    _require(count == 0 or (chosen.index.min() >= 0 and chosen.index.max() < n), "every index is a candidate")
    for column in (chosen.gain, chosen.weight, chosen.probability):
        _require(column.dtype == np.float32, "columns are float32")
        _require(column.shape == (count,) and bool(np.isfinite(column).all()), "columns are finite, one per pick")
    _require(bool((chosen.weight >= 0).all()), "weights are not negative")
    _require(bool(((chosen.probability > 0) & (chosen.probability <= 1)).all()), "probabilities lie in (0, 1]")


def _same(one: Selection, other: Selection, what: str) -> None:
    _require(bool(np.array_equal(one.index, other.index)), what)


def check_counts(make: Make, entry: Entry) -> None:
    """Every count from none to all is met exactly, on no row, on one and on many."""
    for n in (0, 1, 2, 37):
        for count in sorted({0, n // 2, n}):
            _valid(make().select(_data(make, entry, made_rows(n)), count, 0), n, count)


def check_degenerate_rows(make: Make, entry: Entry) -> None:
    """All rows equal, a row of zeros among them, and all scores and labels equal are ordinary input."""
    same = np.tile(made_rows(1), (20, 1))
    data = _data(make, entry, same)
    _valid(make().select(data, 7, 0), 20, 7)
    with_zero = made_rows(20)
    with_zero[3] = 0
    _valid(make().select(_data(make, entry, with_zero), 20, 0), 20, 20)
    for value in (0.0, 0.5):
        scores = {name: np.full(20, value, dtype=np.float32) for name in data.scores}
        alike = replace(data, label=np.zeros(20, dtype=np.int64), scores=scores)
        _valid(make().select(alike, 7, 0), 20, 7)
    nothing = replace(data, label=np.full(20, -1, dtype=np.int64), captions=[None] * 20, text=np.zeros_like(same))
    with suppress(SelectorError):  # none of the samples has what the method needs, and it may say so
        _valid(make().select(nothing, 7, 0), 20, 7)


def check_ties(make: Make, entry: Entry) -> None:
    """Of rows that are alike in everything, a method that draws nothing takes the lowest first."""
    half = _data(make, entry, made_rows(12))
    twice = among(half, np.repeat(np.arange(12), 2))
    runs = [make().select(twice, 24, seed).index.tolist() for seed in range(3)]
    if runs[0] == runs[1] == runs[2] and entry.nested_as(make()):
        place = np.argsort(runs[0])
        _require(bool((place[0::2] < place[1::2]).all()), "of equal rows the lowest comes first")


def check_purity(make: Make, entry: Entry) -> None:
    """Inputs are not changed, and nothing of them is handed out."""
    data = _data(make, entry, made_rows(50))
    arrays = _arrays(data)
    before = [values.copy() for values in arrays]
    chosen = make().select(data, 10, 0)
    _require(all(np.array_equal(old, new) for old, new in zip(before, arrays, strict=True)), "inputs are not changed")
    for column in (chosen.index, chosen.gain, chosen.weight, chosen.probability):
        _require(not any(np.shares_memory(column, values) for values in arrays), "no aliasing")


def _arrays(data: Candidates) -> list[Any]:
    named = (data.x, data.text, data.target, data.target_label, data.label, data.group)
    return [values for values in (*named, *data.scores.values()) if values is not None]


def check_repeatable(make: Make, entry: Entry) -> None:
    """The same seed gives the same picks, from a new object, whatever the state of numpy's global generator."""
    data = _data(make, entry, made_rows(200))
    state = np.random.get_state()  # noqa: NPY002
    runs = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        runs.append(make().select(data, 40, 3))
    np.random.set_state(state)  # noqa: NPY002
    _same(runs[0], runs[1], "same seed, same picks")
    _require(bool(np.array_equal(runs[0].gain, runs[1].gain)), "same seed, same gains")


def check_nested(make: Make, entry: Entry) -> None:
    """A smaller selection is a prefix of a larger one, weights too, where entry or method says that it is nested."""
    if not entry.nested_as(make()):
        return
    data = _data(make, entry, made_rows(300, seed=1))
    large = make().select(data, 120, 5)
    for count in (1, 10, 119):
        small = make().select(data, count, 5)
        _require(bool(np.array_equal(small.index, large.index[:count])), f"{count} picks are a prefix")
        _require(bool(np.array_equal(small.weight, large.weight[:count])), f"weights of {count} picks are a prefix")


def check_draws(make: Make, entry: Entry) -> None:
    """What is not certain is told by a method that is known to draw: entry or method says so."""
    data = _data(make, entry, made_rows(60, seed=4))
    certain = all(bool((make().select(data, count, 2).probability == 1).all()) for count in (10, 30, 50))
    _require(certain or entry.draws_as(make()), "only a method that draws has probabilities below 1")


def check_refusals(make: Make, entry: Entry) -> None:
    """A count out of range is a SelectorError; so is NaN or infinity in what the method reads."""
    for count in (-1, 11):
        try:
            make().select(_data(make, entry, made_rows(10)), count, 0)
        except SelectorError:
            continue
        raise AssertionError(f"a count of {count} out of 10 was accepted")
    clean = _data(make, entry, made_rows(10))
    usual = make().select(clean, 3, 0)
    for value in (np.nan, np.inf):
        for bad in _spoilt(clean, value):
            try:
                chosen = make().select(bad, 3, 0)
            except SelectorError:
                continue
            _same(chosen, usual, "NaN and infinity are refused unless they are not read")


def check_layout(make: Make, entry: Entry) -> None:
    """Rows that are not contiguous, or lie column by column, give the same picks; so do those of float16."""
    x = made_rows(120, seed=8).astype(np.float16).astype(np.float32)
    data = _data(make, entry, x)
    usual = make().select(data, 30, 2)
    strided = np.empty((240, 2 * x.shape[1]), dtype=np.float32)[::2, ::2]
    strided[:] = x
    for other in (strided, np.asfortranarray(x), x.astype(np.float16)):
        spread: Any = other
        _same(make().select(replace(data, x=spread), 30, 2), usual, "the layout of the rows does not matter")


class _Sliced:
    """Rows of float16 that can only be sliced."""

    ndim = 2

    def __init__(self, x: F32) -> None:
        self._x, self.shape = x.astype(np.float16), x.shape

    def __getitem__(self, at: slice) -> Any:
        _require(isinstance(at, slice), "a method that reads by tiles takes slices of the embeddings only")
        return self._x[at].copy()


def check_tiles(make: Make, entry: Entry) -> None:
    """Where entry or method says that it reads by tiles, rows that can only be sliced give the same picks."""
    if not entry.tiled_as(make()):
        return
    x = made_rows(700, seed=6).astype(np.float16).astype(np.float32)
    data = _data(make, entry, x)
    sliced: Any = _Sliced(x)
    _same(make().select(replace(data, x=sliced), 90, 1), make().select(data, 90, 1), "slices give the same picks")


def _spoilt(data: Candidates, value: float) -> Iterator[Candidates]:
    """Yield the candidates with one array spoilt at a time."""
    for name in ("x", "text", "target"):
        rows = getattr(data, name).copy()
        rows[4, 2] = value
        yield replace(data, **{name: rows})
    for name, column in data.scores.items():
        spoilt = column.copy()
        spoilt[4] = value
        yield replace(data, scores={**data.scores, name: spoilt})


def check_threads(make: Make, entry: Entry) -> None:
    """One thread and two give the same picks. Without threadpoolctl only one number of threads is tried."""
    data = _data(make, entry, made_rows(400, 32, seed=2))
    runs = []
    for threads in (1, 2):
        with _threads(threads):
            runs.append(make().select(data, 30, 1))
    _same(runs[0], runs[1], "1 thread and 2 threads give the same picks")


def _threads(number: int) -> Any:
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(number)


def check_memory(make: Make, entry: Entry) -> None:
    """Of 5,000 rows a method takes less than 64 MB, which no dense matrix of similarities fits into."""
    data = _data(make, entry, made_rows(_LARGE, 16))
    if "numba" in sys.modules:  # compiled before it is measured
        make().select(among(data, np.arange(60)), 5, 0)
    tracemalloc.start()
    try:
        _valid(make().select(data, _LARGE_COUNT, 0), _LARGE, _LARGE_COUNT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    _require(peak < _MEMORY, f"{peak / 2**20:.0f} MB were taken; at most {_MEMORY / 2**20:.0f} are allowed")


def check_batches(make: Make, entry: Entry) -> None:
    """Rows that arrive in batches of any size give the picks of all at once, at any moment and for any count."""
    begin = getattr(make(), "begin", None)
    if begin is None:
        return
    x = made_rows(5000)
    data = Candidates(n=5000, x=x)
    for most in (None, 40):
        run, start = begin(most, 3), 0
        for size in (1, 255, 2, 4500, 0, 242):
            run.add(x[start : start + size].copy())
            start += size
            if start in (258, 4758):
                _alike(run.chosen(30), make().select(among(data, np.arange(start)), 30, 3))
        for count in (40, 7):
            _alike(run.chosen(count), make().select(data, count, 3))


def _alike(one: Selection, other: Selection) -> None:
    _same(one, other, "batches give the picks of all rows at once")
    for name in ("gain", "weight", "probability"):
        _require(bool(np.array_equal(getattr(one, name), getattr(other, name))), f"batches give the same {name}")


def subset_checks() -> Iterator[Check]:
    """Yield every check; each takes a function that makes the selector, and its entry, and raises AssertionError."""
    yield from (check_counts, check_degenerate_rows, check_ties, check_purity, check_repeatable, check_nested)
    yield from (check_draws, check_refusals, check_layout, check_tiles, check_threads, check_memory, check_batches)
