"""Array types, and the one check that every embedding matrix passes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]
B1 = NDArray[np.bool_]

_TINY = 1e-17  # squares of smaller norms are no normal float32


def as_rows(x: Any, name: str = "x") -> F32:
    """Return an (n, d) array as float32, C-contiguous; copied only when it is not so already.

    Raises:
        ValueError: x has not two dimensions, or holds NaN or infinity (the first such row is named).
    """
    rows = np.ascontiguousarray(x, dtype=np.float32)
    if rows.ndim != 2:
        raise ValueError(f"{name} has shape {rows.shape}; an (n, d) array is needed")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(f"{name} has NaN or infinity in {bad.size} rows, first in row {bad[0]}; drop or mend them")
    return rows


def unit_rows(x: F32) -> F32:
    """Return the rows scaled to norm 1; rows of norm 0 stay 0. x: (n, d) float32."""
    with np.errstate(over="ignore"):
        norm = np.linalg.norm(x, axis=1, keepdims=True)
    scaled: F32 = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
    odd = np.flatnonzero((norm[:, 0] < _TINY) | np.isinf(norm[:, 0]))  # squares that under- or overflow; rows of zeros
    for low in range(0, odd.size, 4096):
        at = odd[low : low + 4096]
        most = np.abs(x[at]).max(axis=1, initial=0.0)
        at, most = at[most > 0], most[most > 0]
        small = x[at] / most[:, None]
        scaled[at] = small / np.linalg.norm(small, axis=1, keepdims=True)
    return scaled
