"""Opening a pool for growth: the kept set from its admitted rows, the sums from the last checkpoint and later rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from curate.engine import checkpoint
from curate.engine.gate import Gate
from curate.hashing import hash_words
from curate.neighbors import KeptIndex

if TYPE_CHECKING:
    from curate.engine.core import Engine


def restore(engine: Engine) -> None:
    """Bring a new engine to the state that its pool's newest version names, bit for bit."""
    engine.rebuild()
    saved = engine.state.checkpoint
    if saved is None:
        clean = engine.recipe.clean
        engine.gate = Gate(warming=clean.captions, judge_captions=clean.captions, judge_labels=clean.labels)
    else:
        checkpoint.load(engine, saved)
    _replay(engine, saved.batches if saved else 0)


def load_index(engine: Engine, index: KeptIndex, where: str) -> None:
    """Add the rows of the pool that a filter names to an index, in order of arrival."""
    for batch in engine.pool.scan(engine.columns("uid", "pixel_hash", "phash"), where=where):
        image, text, has_text, _ = engine.table_rows(batch)
        uids, pixels, hashes = (batch.column(name).to_pylist() for name in ("uid", "pixel_hash", "phash"))
        index.add(uids, image, text, has_text, pixels, hash_words(hashes))


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
