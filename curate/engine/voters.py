"""Which rows vote on labels, fixed from checkpoint to checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.scoring.labels import REFERENCE_ROWS, LabelModel
from curate.scoring.pairs import spread
from curate_kernels.arrays import B1, F32, I64

if TYPE_CHECKING:
    from curate.engine.core import Engine

_TILE = 4096


def class_numbers(engine: Engine, labels: Sequence[str | None]) -> I64:
    """Return the number of each label's class, -1 where it has none."""
    return np.array([-1 if name is None else engine.class_number.get(name, -1) for name in labels], dtype=np.int64)


def voters(counted: B1, number: I64) -> I64:
    """Return the ordinals of the rows that vote on labels until the next checkpoint."""
    return spread(np.flatnonzero(counted & (number >= 0)), REFERENCE_ROWS)


def let_vote(engine: Engine, model: LabelModel, voters: I64) -> None:
    """Let the rows with these ordinals vote in a label model."""

    def parts() -> Iterator[tuple[F32, I64]]:
        for low in range(0, voters.size, _TILE):
            rows = engine.pool.take(voters[low : low + _TILE].tolist(), engine.columns()).combine_chunks()
            image, _, _, labels = engine.table_rows(rows)
            yield engine.features(image), class_numbers(engine, labels)

    model.refer(parts())


def places(table: Any, voters: I64) -> I64:
    """Return which voter each row is, -1 for none; duplicates count as one another, lest they vouch for themselves."""
    place = np.full(table.height, -1, dtype=np.int64)
    place[voters] = np.arange(voters.size)
    voter = {uid: i for i, uid in enumerate(table["uid"][voters].to_list())}
    for i, twin in enumerate(table["duplicate_of"].to_list()):
        if twin is not None and place[i] < 0:
            place[i] = voter.get(twin, -1)
    # A better copy that took a voter's place: the voter duplicates it now.
    taken = {twin: at for at, twin in enumerate(table["duplicate_of"][voters].to_list()) if twin is not None}
    for i, uid in enumerate(table["uid"].to_list() if taken else ()):
        if place[i] < 0:
            place[i] = taken.get(uid, -1)
    return place
