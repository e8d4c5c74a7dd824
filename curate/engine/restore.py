"""Opening a pool for growth: the kept set from its admitted rows, the sums from the last checkpoint and later rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curate.engine import checkpoint

if TYPE_CHECKING:
    from curate.engine.core import Engine


def restore(engine: Engine) -> None:
    """Bring a new engine to the state that its pool's newest version names, bit for bit."""
    for batch in engine.pool.scan(engine.columns("uid", "pixel_hash"), where="decision = 'admit'"):
        image, text, has_text, _ = engine.table_rows(batch)
        uids, pixels = (batch.column(name).to_pylist() for name in ("uid", "pixel_hash"))
        engine.index.add(uids, image, text, has_text, pixels)
    saved = engine.state.checkpoint
    if saved is None:
        engine.gate.warming = engine.recipe.clean.captions
    else:
        checkpoint.load(engine, saved)
    _replay(engine, saved.batches if saved else 0)


def _replay(engine: Engine, first: int) -> None:
    """Add the batches from number `first` on to the sums, each as a whole, as they were added at arrival."""
    import pyarrow as pa

    waiting: list[Any] = []
    for scanned in engine.pool.scan(engine.columns("batch", "counted"), where=f"batch >= {first}"):
        waiting.append(scanned)
        table = pa.Table.from_batches(waiting).combine_chunks()
        stops = np.flatnonzero(np.diff(table.column("batch").to_numpy())) + 1
        start = 0
        for stop in stops:  # the last batch may go on in the next scan
            _add(engine, table.slice(start, stop - start).combine_chunks())
            start = int(stop)
        waiting = table.slice(start).to_batches()
    if waiting:
        _add(engine, pa.Table.from_batches(waiting).combine_chunks())


def _add(engine: Engine, batch: Any) -> None:
    image, text, has_text, labels = engine.table_rows(batch)
    counted = batch.column("counted").to_numpy()
    engine.count(engine.gate_rows(image, text, has_text, labels, counted))
