"""V-information of any column of metadata given the image: age, site, scanner, a second label.

Numbers are predicted by the linear-Gaussian family with one target, categories by discriminant classes (`labels.py`).
In both, s1 is the surprise of a value given its image: high where a value was swapped or mistyped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from curate.errors import UsageError
from curate.recipe import ScoreTable
from curate.scoring.gaussian import LinearGaussian, best_ridge, pair_sums, principal_components
from curate.scoring.labels import LabelModel
from curate.scoring.moments import class_sums
from curate_kernels.arrays import B1, F32, F64, I64, as_rows

Kind = Literal["auto", "numeric", "categorical"]
MAX_CLASSES = 10_000
_FEW = 10  # numbers with at most so many distinct values are categories: flags, grades, skin types


def column_information(
    features: F32, values: Sequence[Any], name: str, table: ScoreTable | None = None, kind: Kind = "auto"
) -> dict[str, F32]:
    """Return `s0_<name>`, `s1_<name>` and `pvi_<name>`, (n,) float32 bits; low `pvi`, high `s1`: the value is unlikely.

    features: (n, p) float32; values: n of them, a list or an array. A missing one (None, NaN, "") gets NaN and teaches
    nothing. Scores are exact leave-one-out. Numbers: densities of the standardised value, which may be negative bits;
    a constant column is 0 bits throughout. kind: "auto" takes strings, flags and numbers of at most 10 distinct values
    as categories, other numbers as numbers.

    Raises:
        UsageError: lengths differ, a number is infinite, a value that is no number in a numeric column, or more than
            10,000 classes.
    """
    x = as_rows(features, "features")
    column = np.array(list(values), dtype=object)
    if column.shape != (x.shape[0],):
        raise UsageError(f"column {name!r} has {column.shape[0]} values, the features {x.shape[0]} rows")
    table = ScoreTable() if table is None else table
    present = np.array([not _is_missing(value) for value in column], dtype=np.bool_)
    known = list(column[present])
    if kind == "numeric" or (kind == "auto" and _are_numbers(known)):
        s0, s1 = _numeric(x[present], _as_numbers(known, name), table)
    else:
        s0, s1 = _categorical(x[present], known, name, table)
    out = {}
    for key, bits in ((f"s0_{name}", s0), (f"s1_{name}", s1), (f"pvi_{name}", s0 - s1)):
        out[key] = np.full(x.shape[0], np.nan, dtype=np.float32)
        out[key][present] = bits
    return out


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or bool(value != value)  # noqa: PLR0124


def _are_numbers(values: list[Any]) -> bool:
    flags = (bool, np.bool_, str)
    if any(isinstance(v, flags) or not isinstance(v, int | float | np.integer | np.floating) for v in values):
        return False
    return len(set(values)) > _FEW or len(set(values)) == 1


def _as_numbers(values: list[Any], name: str) -> F64:
    try:
        numbers = np.array([float(v) for v in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"column {name!r} is to be numeric, but {error}") from error
    if not np.isfinite(numbers).all():
        raise UsageError(f"column {name!r} holds an infinite number; leave it empty if it is unknown")
    return numbers


def _numeric(x: F32, numbers: F64, table: ScoreTable) -> tuple[F64, F64]:
    """Return s0 and s1 of numbers (n,) given rows x (n, p)."""
    n = numbers.size
    spread = float(np.ptp(numbers)) if n else 0.0
    if n < 2 or spread <= 1e-12 * float(np.abs(numbers).max()):
        return np.zeros(n), np.zeros(n)
    # In units of the range first, so that squares of very large numbers stay finite.
    scaled = (numbers - numbers.min()) / spread
    target = ((scaled - scaled.mean()) / scaled.std())[:, None].astype(np.float32)
    reduced = principal_components(x, max(1, min(table.image_dims, x.shape[1], n // 4)))
    moments = pair_sums(reduced, target)
    family = LinearGaussian.fit(moments, best_ridge(moments, reduced, target))
    s0 = -LinearGaussian.null(moments).leave_one_out(reduced[:, :0], target)
    return s0, -family.leave_one_out(reduced, target)


def _categorical(x: F32, values: list[Any], name: str, table: ScoreTable) -> tuple[F64, F64]:
    """Return s0 and s1 of categories given rows x (n, p)."""
    if not values:
        return np.zeros(0), np.zeros(0)
    label, count = _codes(values)
    if count > MAX_CLASSES:
        raise UsageError(
            f"column {name!r} has {count} different values; above {MAX_CLASSES} it holds ids or free text, not classes"
        )
    model = LabelModel(class_sums(x, label, count), table)
    seen: B1 = np.ones(label.size, dtype=np.bool_)
    columns = model.score(model.project(x), label, seen)
    return columns["s0_label"].astype(np.float64), columns["s1_label"].astype(np.float64)


def _codes(values: list[Any]) -> tuple[I64, int]:
    """Return each value's class, numbered in the order of their texts, and how many there are."""
    texts = [re.sub(r"\.0$", "", str(v)) if isinstance(v, float | np.floating) else str(v) for v in values]
    names, label = np.unique(np.array(texts, dtype=str), return_inverse=True)
    return label.astype(np.int64), names.size
