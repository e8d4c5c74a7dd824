"""The conformance suite: what every subset selector must satisfy, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from curate_kernels.arrays import F32, unit_rows
from curate_selectors.errors import SelectorError
from curate_selectors.protocols import SubsetSelector
from curate_selectors.types import Candidates, Selection

Make = Callable[[], SubsetSelector]


def _rows(n: int, d: int = 8, seed: int = 0) -> F32:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def _data(x: F32) -> Candidates:
    return Candidates(n=x.shape[0], x=x, label=np.arange(x.shape[0], dtype=np.int64) % 3)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _valid(chosen: Selection, n: int, count: int) -> None:
    _require(chosen.index.dtype == np.int64, "index is int64")
    _require(chosen.index.shape == (count,), "exactly `count` rows are chosen")
    _require(np.unique(chosen.index).size == count, "no row is chosen twice")
    _require(count == 0 or (chosen.index.min() >= 0 and chosen.index.max() < n), "every index is a candidate")
    for column in (chosen.gain, chosen.weight, chosen.probability):
        _require(column.shape == (count,) and bool(np.isfinite(column).all()), "columns are finite, one per pick")


def check_counts(make: Make) -> None:
    """Every count from none to all is met exactly, on one row and on many."""
    for n in (0, 1, 2, 37):
        for count in sorted({0, n // 2, n}):
            _valid(make().select(_data(_rows(n)), count, 0), n, count)


def check_degenerate_rows(make: Make) -> None:
    """All rows equal, and a row of zeros among them, are ordinary input."""
    same = np.tile(_rows(1), (20, 1))
    _valid(make().select(_data(same), 7, 0), 20, 7)
    with_zero = _rows(20)
    with_zero[3] = 0
    _valid(make().select(_data(with_zero), 20, 0), 20, 20)


def check_purity(make: Make) -> None:
    """Inputs are not changed, and nothing of them is handed out."""
    x = _rows(50)
    before = x.copy()
    data = _data(x)
    chosen = make().select(data, 10, 0)
    _require(bool((x == before).all()), "x is not changed")
    _require(data.label is not None and not np.shares_memory(chosen.index, data.label), "no aliasing")


def check_repeatable(make: Make) -> None:
    """The same seed gives the same picks, from a new object too."""
    first = make().select(_data(_rows(200)), 40, 3)
    again = make().select(_data(_rows(200)), 40, 3)
    _require(bool((first.index == again.index).all() and (first.gain == again.gain).all()), "same seed, same picks")


def check_nested(make: Make) -> None:
    """A smaller selection is a prefix of a larger one."""
    data = _data(_rows(300, seed=1))
    large = make().select(data, 120, 5).index
    for count in (1, 10, 119):
        _require(bool((make().select(data, count, 5).index == large[:count]).all()), f"{count} picks are a prefix")


def check_refusals(make: Make) -> None:
    """A count out of range is a SelectorError; so is NaN, for a method that reads embeddings."""
    for count in (-1, 11):
        try:
            make().select(_data(_rows(10)), count, 0)
        except SelectorError:
            continue
        raise AssertionError(f"a count of {count} out of 10 was accepted")
    bad = _rows(10)
    bad[4, 2] = np.nan
    try:
        chosen = make().select(_data(bad), 3, 0)
    except SelectorError:
        return
    clean = make().select(_data(_rows(10)), 3, 0)
    _require(bool((chosen.index == clean.index).all()), "NaN is refused unless embeddings are not read")


def subset_checks() -> Iterator[Callable[[Make], None]]:
    """Yield every check of the suite; each takes a function that makes the selector and raises AssertionError."""
    yield from (check_counts, check_degenerate_rows, check_purity, check_repeatable, check_nested, check_refusals)
