"""What every subset selector checks before it starts, and the shape of what it gives back."""

from __future__ import annotations

import numpy as np

from curate_kernels.arrays import F32, I64
from curate_selectors.errors import SelectorError
from curate_selectors.types import Candidates, Selection


def check_count(data: Candidates, count: int) -> None:
    """Raise SelectorError unless 0 ≤ count ≤ n."""
    if not 0 <= count <= data.n:
        raise SelectorError(f"a count of {count} was asked of {data.n} candidates; it must lie between 0 and {data.n}")


def need_rows(data: Candidates, method: str) -> F32:
    """Return the embeddings (n, d) as contiguous float32, or raise SelectorError when there are none that fit."""
    if data.x is None:
        raise SelectorError(f"method {method!r} needs embeddings, and none were given")
    if data.x.ndim != 2 or data.x.shape[0] != data.n:
        raise SelectorError(f"embeddings have shape {data.x.shape}; ({data.n}, d) is needed")
    if not isinstance(data.x, np.ndarray):
        raise SelectorError(f"method {method!r} needs all embeddings in memory; these can only be sliced")
    for start in range(0, data.n, 4096):  # no mask as large as the rows
        if not np.isfinite(data.x[start : start + 4096]).all():
            raise SelectorError("embeddings hold NaN or infinity; drop or mend those rows")
    return np.ascontiguousarray(data.x, dtype=np.float32)


def need_text(data: Candidates, method: str) -> F32:
    """Return the caption embeddings (zero rows where there is none), or raise SelectorError."""
    return _matrix(data.text, data.n, "caption embeddings", method)


def need_target(data: Candidates, method: str) -> F32:
    """Return the target rows (m, d), at least one of as many dimensions as x, or raise SelectorError."""
    x = need_rows(data, method)
    target = _matrix(data.target, None, "a target set", method)
    if not target.shape[0] or target.shape[1] != x.shape[1]:
        raise SelectorError(f"the target has shape {target.shape}; (m, {x.shape[1]}) with m ≥ 1 is needed")
    return target


def _matrix(values: F32 | None, n: int | None, what: str, method: str) -> F32:
    if values is None:
        raise SelectorError(f"method {method!r} needs {what}, and none were given")
    if values.ndim != 2 or (n is not None and values.shape[0] != n):
        raise SelectorError(f"{what} have shape {values.shape}; ({'m' if n is None else n}, d) is needed")
    if not np.isfinite(values).all():
        raise SelectorError(f"{what} hold NaN or infinity; drop or mend those rows")
    return values


def need_labels(data: Candidates, method: str) -> I64:
    """Return the labels (n,), -1 where unknown, or raise SelectorError when none were given."""
    if data.label is None:
        raise SelectorError(f"method {method!r} needs labels, and none were given")
    if data.label.shape != (data.n,):
        raise SelectorError(f"labels have shape {data.label.shape}; ({data.n},) is needed")
    return data.label


def need_score(data: Candidates, name: str, method: str) -> F32:
    """Return `scores[name]` (n,), all finite, or raise SelectorError."""
    if name not in data.scores:
        raise SelectorError(f"method {method!r} needs the score {name!r}; given: {', '.join(sorted(data.scores))}")
    score = np.asarray(data.scores[name], dtype=np.float32)
    if score.shape != (data.n,) or not np.isfinite(score).all():
        raise SelectorError(f"scores[{name!r}] must be {data.n} finite numbers; its shape is {score.shape}")
    return score


def in_order(index: I64, gain: F32, weight: F32 | None = None) -> Selection:
    """Return the picks `index` of a deterministic method, with the gain (and the weight) of each, all (m,)."""
    ones = np.ones(index.shape[0], dtype=np.float32)
    return Selection(index.astype(np.int64), gain.astype(np.float32), ones.copy() if weight is None else weight, ones)
