"""The one process that writes to a pool."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from curate.errors import PoolError, RemoteError
from curate.files import atomic_write, canonical_json
from curate.pool.lock import pool_lock
from curate.pool.operations import rewritten, without
from curate.pool.reader import Pool, state_files
from curate.pool.schema import CAPTIONS, EMBEDDINGS, EVENT_PROPERTY, STATE_PROPERTY, table_schema
from curate.pool.trouble import trouble, writes
from curate.remote import Place, listed, place, storage_options
from curate_kernels.arrays import F32, I64

if TYPE_CHECKING:
    import pyarrow as pa

_COMPACT_ABOVE = 64  # fragments, and batches between two looks
_OURS = {"samples.lance", "state", "write.lock", "writer.json", "forgotten", "receipts", "reviews"}
_STATE_FILE = re.compile(r"(?P<temporary>\.)?(?P<step>\d{8,})-[0-9a-f]{32}\.(json|safetensors)")
_FRAGMENT_ROWS = 65536


class Writer:
    """The one process that may write to a pool. Use as a context manager; it makes the pool if there is none.

    Raises PoolLockedError, naming the holder, when another process writes.
    """

    def __init__(self, path: str | Place) -> None:
        self.path = place(path)
        self._lock = pool_lock(self.path)
        self.finished: dict[str, Any] | None = None  # the takedown that was under way when the pool was locked

    def __enter__(self) -> Self:
        with trouble(self.path, "written"):
            try:
                (self.path / "state").mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
            except OSError as error:
                self._lock.release()
                if isinstance(error, RemoteError):
                    raise PoolError(f"the pool at {self.path} cannot be written: {error}") from error
                raise
        from curate.pool.takedown import finish

        try:
            self.finished = finish(self)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def pool(self) -> Pool | None:
        """Return the pool as it is now, or None before its first commit."""
        versions = self.path / "samples.lance" / "_versions"
        committed = versions.is_dir() and any(path.suffix == ".manifest" for path in versions.iterdir())
        return Pool.open(self.path) if committed else None

    @writes
    def remove_orphans(self, step: int) -> None:
        """Delete state of later steps than the committed one: a killed process wrote it and committed nothing."""
        for path in (self.path / "state").iterdir():
            ours = _STATE_FILE.match(path.name)
            if ours and (ours["temporary"] or int(ours["step"]) > step):
                path.unlink()

    def save_sums(self, step: int, arrays: dict[str, Any]) -> str:
        """Write named arrays beside the state, and return the name under which the state must name them."""
        from safetensors.numpy import save

        return self._save(step, save(arrays), ".safetensors")

    @writes
    def _save(self, step: int, data: bytes, suffix: str) -> str:
        self._lock.check()
        name = f"{step:08d}-{hashlib.sha256(data).hexdigest()[:32]}"
        atomic_write(self.path / "state" / f"{name}{suffix}", data)
        return name

    @writes
    def create(self, image_dim: int, state: dict[str, Any]) -> Pool:
        """Commit an empty table with its first state."""
        import lance

        foreign = sorted({path.name for path in self.path.iterdir()} - _OURS)
        if foreign:
            raise PoolError(f"{self.path} holds other things ({', '.join(foreign[:3])}); give the pool a new folder")
        self.remove_orphans(-1)
        properties = self._properties(state, {"what": "created"})
        dataset = lance.write_dataset(
            table_schema(image_dim).empty_table(),
            str(self.path / "samples.lance"),
            storage_options=storage_options(self.path),
            transaction_properties=properties,
        )
        return Pool(self.path, dataset)

    @writes
    def append(self, pool: Pool, rows: pa.Table, state: dict[str, Any]) -> Pool:
        """Commit a batch's rows together with the state that they lead to."""
        import lance

        admitted = sum(decision == "admit" for decision in rows.column("decision").to_pylist())
        properties = self._properties(state, {"what": "batch", "rows": rows.num_rows, "admitted": admitted})
        dataset = lance.write_dataset(rows, pool.dataset, mode="append", transaction_properties=properties)
        appended = self._next(pool, dataset)
        return appended if state["step"] % _COMPACT_ABOVE else self._compacted(appended)

    @writes
    def touch(self, pool: Pool, state: dict[str, Any], event: dict[str, Any] | None = None) -> Pool:
        """Commit a state without any rows: sources were moved, or what the event says."""
        import lance

        properties = self._properties(state, event or {"what": "moved"})
        return self.commit(pool, lance.LanceOperation.Append([]), properties)

    @writes
    def restore(self, pool: Pool, version: int, state: dict[str, Any]) -> Pool:
        """Commit a version that equals an old one, with the state that belongs to it."""
        import lance

        properties = self._properties(state, {"what": "rollback", "equals": version})
        return self.commit(pool, lance.LanceOperation.Restore(version), properties)

    @writes
    def add_view(self, pool: Pool, name: str, dim: int) -> Pool:
        """Add an embedding column, null for every row so far. Changes no statistics."""
        import pyarrow as pa

        pool.dataset.add_columns(pa.field(name, pa.list_(pa.float16(), dim)))
        return Pool.open(self.path)

    @writes
    def add_text(self, pool: Pool, name: str) -> Pool:
        """Add a text column, null for every row so far. Changes no statistics."""
        import pyarrow as pa

        pool.dataset.add_columns(pa.field(name, pa.string()))
        return Pool.open(self.path)

    @writes
    def update(
        self,
        pool: Pool,
        changes: pa.Table,
        state: dict[str, Any],
        some: Sequence[tuple[I64, pa.Table]] = (),
        what: str = "checkpoint",
    ) -> Pool:
        """Commit new values of some columns for every row, in order of arrival, with the state that they lead to.

        changes: one row per row of the pool, with `uid` and the columns to replace
        some: (ordinals ascending, a table of other columns for these rows alone); only fragments that hold such rows
        are rewritten in these columns, so that embeddings elsewhere stay where they are
        what: `checkpoint`, `review`, or `eviction` where nothing was fitted or scored anew
        """
        event: dict[str, Any] = {"what": what, "rows": changes.num_rows}
        if "decision" in changes.column_names:
            event["admitted"] = sum(decision == "admit" for decision in changes.column("decision").to_pylist())
        return self._compacted(self.commit(pool, rewritten(pool, changes, some), self._properties(state, event)))

    @writes
    def add_scores(self, pool: Pool, columns: dict[str, F32]) -> Pool:
        """Commit score columns, (n,) float32 in order of arrival, null where NaN. Changes no statistics.

        A killed process leaves at most columns of nulls, which the next call fills.
        """
        import pyarrow as pa

        new = [pa.field(name, pa.float32()) for name in columns if name not in pool.columns]
        if new:
            pool.dataset.add_columns(pa.schema(new))
            pool = Pool.open(self.path)
        values = {name: pa.array(column, mask=np.isnan(column)) for name, column in columns.items()}
        changes = pa.table({"uid": pa.array(pool.frame(["uid"])["uid"].to_list(), pa.string()), **values})
        if not changes.num_rows:
            return pool
        event = canonical_json({"what": "scores", "columns": sorted(columns)}).decode()
        return self._compacted(self.commit(pool, rewritten(pool, changes), {EVENT_PROPERTY: event}))

    @writes
    def tag(self, pool: Pool, name: str, version: int) -> None:
        """Give a version a name, which must be free."""
        pool.dataset.tags.create(name, version)

    @writes
    def untag(self, pool: Pool, name: str) -> None:
        """Take a name away."""
        pool.dataset.tags.delete(name)

    @writes
    def purge(self, pool: Pool, where: str, state: dict[str, Any]) -> Pool:
        """Remove rows for good: from the table, from every older version, and with them every older state.

        The others are renumbered in the same commit. Tags go, for they would hold old versions. Killed in between, it
        can be repeated.
        """
        from datetime import timedelta

        import lance

        doomed = int(pool.dataset.count_rows(filter=where))
        properties = self._properties(state, {"what": "forget", "rows": doomed})
        if doomed:
            pool = self.commit(pool, without(pool, where), properties)
        pool.dataset.optimize.compact_files(
            target_rows_per_fragment=_FRAGMENT_ROWS, materialize_deletions_threshold=0.0
        )
        pool = Pool.open(self.path)
        for name in pool.tags():
            self.untag(pool, name)
        pool = self.commit(pool, lance.LanceOperation.Append([]), properties)
        self._lock.check()
        pool.dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
        named = {properties[STATE_PROPERTY], *state_files(state)}
        self._lock.check()
        for path in (self.path / "state").iterdir():
            if path.name.partition(".")[0] not in named:
                path.unlink()
        for path in listed(self.path / CAPTIONS):
            path.unlink(missing_ok=True)
        if isinstance(self.path, Path):
            shutil.rmtree(self.path / EMBEDDINGS, ignore_errors=True)
        self._remove_unfinished()
        return Pool.open(self.path)

    def _remove_unfinished(self) -> None:
        """Delete what Lance was writing when a process was killed: its clean-up knows whole files only."""
        if isinstance(self.path, Path):  # a store shows whole objects only
            for path in sorted((self.path / "samples.lance").rglob(".tmp*")):
                path.unlink()

    def _properties(self, state: dict[str, Any], event: dict[str, Any]) -> dict[str, str]:
        """Save a state; return the transaction properties of the commit that it belongs to."""
        name = self._save(state["step"], canonical_json(state), ".json")
        return {STATE_PROPERTY: name, EVENT_PROPERTY: canonical_json(event).decode()}

    def commit(self, pool: Pool, operation: Any, properties: dict[str, str]) -> Pool:
        """Commit a Lance operation; return the pool after it."""
        import lance
        from lance.dataset import Transaction

        transaction = Transaction(pool.version, operation, transaction_properties=properties)
        self._lock.check()
        return self._next(pool, lance.LanceDataset.commit(pool.dataset, transaction))

    def _next(self, pool: Pool, dataset: Any) -> Pool:
        """Return the pool after a commit; PoolError if another process committed in between, which no lock let it."""
        if int(dataset.version) != pool.version + 1:
            raise PoolError(
                f"another process wrote to the pool at {self.path} at the same time;"
                f" `curate rollback {self.path} {pool.version}` undoes what both did"
            )
        return Pool(self.path, dataset)

    def _compacted(self, pool: Pool) -> Pool:
        """Merge small fragments when there are many; order, rows and statistics stay as they are."""
        if len(pool.dataset.get_fragments()) >= _COMPACT_ABOVE:
            pool.dataset.optimize.compact_files(target_rows_per_fragment=_FRAGMENT_ROWS)
        return Pool.open(self.path)
