"""Keep probabilities by epoch: InfoGrowth's two-phase sampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate_kernels.arrays import F32
from curate_selectors.registry import make
from curate_selectors.types import Candidates, Selection

_GAINS = {"infogrowth": "gain", "infogrowth-reference": "gain_arrival"}
_LEAST = 0.1  # of an even epoch


def two_phase(data: Candidates, method: str, chosen: Selection, params: Mapping[str, Any]) -> dict[str, F32]:
    """Return the chance to keep each row in odd and in even epochs, for the methods that draw by gain; else nothing.

    With w = min(1, gain / G), G a quantile of all candidates' gains: w in odd epochs, max(.1, 1 - w) in even ones. What
    gives most is seen first, then what was passed over. Qin et al., ECCV 2024, arXiv:2405.18347.
    """
    column = _GAINS.get(method)
    if column is None or column not in data.scores or not chosen.index.size:
        return {}
    gain = np.asarray(data.scores[column], dtype=np.float32)
    top = float(np.quantile(gain, make(method, **params).quantile))
    odd = np.clip(gain[chosen.index] / top, 0.0, 1.0) if top > 0 else np.ones(chosen.index.size)
    return {"epoch_odd": odd.astype(np.float32), "epoch_even": np.maximum(_LEAST, 1.0 - odd).astype(np.float32)}
