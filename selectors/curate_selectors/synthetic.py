"""Made-up candidates with everything that a method may read, for the conformance suite and its like."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from curate_kernels.arrays import F32, unit_rows
from curate_selectors.entry import Entry
from curate_selectors.types import Candidates


def made_rows(n: int, d: int = 8, seed: int = 0) -> F32:
    """Return (n, d) unit rows in random directions."""
    return unit_rows(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def candidates(x: F32, made: Any, entry: Entry) -> Candidates:
    """Return candidates with rows x (n, d) and everything else that a method with this entry may read, made up."""
    n, d = x.shape
    rng = np.random.default_rng(7)
    words = [f"a {('red', 'green', 'small')[i % 3]} {('cat', 'dog', 'house', 'car')[i % 4]} no {i}" for i in range(n)]
    return Candidates(
        n=n,
        x=x,
        text=unit_rows(rng.normal(size=(n, d)).astype(np.float32)),
        target=unit_rows(rng.normal(size=(9, d)).astype(np.float32)),
        target_label=np.arange(9, dtype=np.int64) % 3,
        label=np.arange(n, dtype=np.int64) % 3,
        group=np.arange(n, dtype=np.int64) // 4,
        captions=words,
        scores={name: rng.uniform(0.05, 0.95, size=(n,)).astype(np.float32) for name in score_names(made, entry)},
    )


def score_names(made: Any, entry: Entry) -> list[str]:
    """Return the names of the scores that a method's entry names, with `{PARAMETER}` as the method has it."""
    values = {f.name: getattr(made, f.name) for f in fields(made)} if is_dataclass(made) else {}
    words = [word.format_map(values) for need in entry.needs for word in re.split(" or | else ", need)]
    # What is read where it is at hand (`?`), and `gain`, which the online rule measures, a method can do without.
    scores = {word for word in words if word.startswith("score:") and not word.endswith("?")}
    return sorted({word.removeprefix("score:") for word in scores} - {""})
