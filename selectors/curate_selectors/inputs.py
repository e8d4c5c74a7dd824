"""What every subset selector checks before it starts."""

from __future__ import annotations

import numpy as np

from curate_kernels.arrays import F32
from curate_selectors.errors import SelectorError
from curate_selectors.types import Candidates


def check_count(data: Candidates, count: int) -> None:
    """Raise SelectorError unless 0 ≤ count ≤ n."""
    if not 0 <= count <= data.n:
        raise SelectorError(f"a count of {count} was asked of {data.n} candidates; it must lie between 0 and {data.n}")


def need_rows(data: Candidates, method: str) -> F32:
    """Return the embeddings, or raise SelectorError when there are none or they do not fit the candidates."""
    if data.x is None:
        raise SelectorError(f"method {method!r} needs embeddings, and none were given")
    if data.x.ndim != 2 or data.x.shape[0] != data.n:
        raise SelectorError(f"embeddings have shape {data.x.shape}; ({data.n}, d) is needed")
    if not np.isfinite(data.x).all():
        raise SelectorError("embeddings hold NaN or infinity; drop or mend those rows")
    return data.x
