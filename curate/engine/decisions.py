"""A batch with everything that was found out and decided about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.engine.gate import HELD, Rows
from curate.engine.prepare import Prepared
from curate.hashing import U64
from curate_kernels.arrays import B1, F16, F32, I64
from curate_selectors.types import Decision

ADMIT, REFUSE, HOLD = "admit", "refuse", "hold"


@dataclass(frozen=True, slots=True)
class Pictures:
    """What tells b pictures apart besides their embeddings: uids, hashes of the pixels, perceptual hashes (b,)."""

    uids: Sequence[str]
    pixels: Sequence[str]
    hashes: U64


@dataclass(frozen=True, slots=True)
class Decided:
    """A selector's decision, what each row duplicates, and how many rows were kept when its gain was measured.

    twins[i] = (uid or "", equal pixels); kept: (b,) int64
    """

    decision: Decision
    twins: Sequence[tuple[str, bool]]
    kept: I64

    def outcome(self, i: int, refusal: str) -> tuple[str, str]:
        """Return (decision, reason) of row i, where `refusal` is what spoke against it before duplicates."""
        twin, exact = self.twins[i]
        if self.decision.admitted[i]:
            return ADMIT, "admitted"
        if twin:
            return REFUSE, "exact_duplicate" if exact else "near_duplicate"
        return (HOLD if refusal == HELD else REFUSE), refusal or "budget"


@dataclass(frozen=True, slots=True)
class Judged:
    """One batch, ready to be committed (b rows).

    image: (b, d), text: (b, t) float16 unit rows as stored; rows: what the gates read; scores: columns (b,) in bits
    refusals: (reason, detail) that spoke against each row before duplicates, ("", "") for none
    counted: (b,) bool, enters the sums: decodable, of good quality, no duplicate
    """

    batch: Sequence[Prepared]
    image: F16
    text: F16
    rows: Rows
    scores: Mapping[str, F32]
    decided: Decided
    refusals: Sequence[tuple[str, str]]
    counted: B1

    def outcomes(self) -> list[tuple[str, str]]:
        """Return (decision, reason) of every row."""
        return [self.decided.outcome(i, refusal) for i, (refusal, _) in enumerate(self.refusals)]


def history_entry(
    place: tuple[str, int], outcome: tuple[str, str], scores: Mapping[str, F32], i: int, thresholds: dict[str, float]
) -> dict[str, Any]:
    """Return one entry of a row's history: when it was decided, how, and by which scores and thresholds.

    place: ("batch", number) at arrival, ("checkpoint", step) for a decision that was revised
    """
    entry = {place[0]: place[1], "decision": outcome[0], "reason": outcome[1], "thresholds": thresholds}
    for name in ("pvi", "s1_label"):
        if np.isfinite(scores[name][i]):
            entry[name] = round(float(scores[name][i]), 4)
    return entry


def append_history(history: str, entry: dict[str, Any]) -> str:
    """Return a history (JSON list) with one more entry."""
    return json.dumps([*json.loads(history), entry])
