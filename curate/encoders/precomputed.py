"""The encoder that a pool has whose embeddings were given to it: it passes them on, as unit rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from curate.encoders.fingerprints import fingerprint
from curate.encoders.protocols import F32
from curate.encoders.rows import unit_rows

NAME = "precomputed"

# Distances below which two of CLIP's vectors are near duplicates: .94 is the similarity at which clip-retrieval's own
# server drops results as repeats, and what it shows loses less by a wrong one than a data set does.
IMAGE_EPSILON = 0.05
TEXT_EPSILON = 0.02


def is_precomputed(name: str) -> bool:
    """Tell whether an encoder's name is `precomputed` or `precomputed:NAME`."""
    return name == NAME or name.startswith(f"{NAME}:")


def precomputed_name(features: str) -> str:
    """Return the encoder's name for features of this name, "" for nameless ones."""
    return f"{NAME}:{features}" if features else NAME


def features_name(name: str) -> str:
    """Return the name of the features in an encoder's name."""
    return name.partition(":")[2].strip()


class Precomputed:
    """Both kinds of encoder: what it is given to encode are vectors.

    Its fingerprint holds the name that source or user declared and the dimension: no more is known of what made them.
    """

    nonnegative = False
    compute = ""

    def __init__(self, name: str, dim: int, epsilon: float) -> None:
        self.name, self.dim, self.fingerprint = name, dim, fingerprint(name, str(dim))
        self.epsilon: float | None = epsilon

    def prepare(self, pixels: Any) -> Any:
        """Return what is given."""
        return pixels

    def encode(self, given: Sequence[Any]) -> F32:
        """Return (n, dim) f32 unit rows; zeros for a vector that is zero or not finite, and for a text without one."""
        rows = np.zeros((len(given), self.dim), dtype=np.float32)
        for i, vector in enumerate(given):
            if isinstance(vector, np.ndarray):
                rows[i] = vector
        return unit_rows(rows)
