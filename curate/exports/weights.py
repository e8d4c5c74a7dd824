"""Training weights as whole numbers of repeats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate.errors import ExportError
from curate.exports.options import Options

_MOST = 1 << 20  # repeats of one row: more is a mistake, and would fill any disk


def repeats(weight: NDArray[np.float32], start: int, options: Options) -> NDArray[np.int64]:
    """Return how often each row is repeated. weight: (n,) of the rows from ordinal `start` on; 0 leaves a row out.

    With `options.rounding` a weight w becomes floor(w), plus 1 with chance w - floor(w), so that its expectation is w;
    a row's draw depends on the seed and its ordinal only.

    Raises ExportError for a weight that is no number of repeats: negative, not finite, or a fraction without rounding.
    """
    value = weight.astype(np.float64)
    bad = ~np.isfinite(value) | (value < 0) | (value > _MOST)
    whole = np.floor(np.where(bad, 0, value))
    if not options.rounding:
        bad |= value != whole
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        hint = "; --round stochastic --seed N rounds fractions" if 0 <= value[row] <= _MOST else ""
        raise ExportError(f"weight {value[row]:g} of row {start + row} is not a number of repeats{hint}")
    if options.rounding:
        draws = np.random.PCG64(options.seed).advance(start)
        whole += np.random.Generator(draws).random(len(value)) < value - whole
    return whole.astype(np.int64)
