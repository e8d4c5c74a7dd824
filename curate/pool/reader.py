"""A pool opened for reading."""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.errors import KeyNotFoundError, PoolError, UsageError
from curate.pool.schema import EVENT_PROPERTY, STATE_PROPERTY, vectors
from curate.pool.trouble import reads, trouble
from curate.remote import Place, listed, place, storage_options
from curate_kernels.arrays import F32, I64

if TYPE_CHECKING:
    import polars as pl


class Pool:
    """A pool opened for reading at its newest version (or at `version`). Readers never block and see one version."""

    def __init__(self, path: Place, dataset: Any) -> None:
        self.path = path
        self.dataset = dataset  # the lance.LanceDataset, for what this class does not offer

    @classmethod
    def open(cls, path: str | Place, version: int | None = None) -> Pool:
        """Open a pool. Raises PoolError when there is none, or when its table cannot be read."""
        import lance

        path = place(path)
        table = path / "samples.lance"
        if not table.is_dir():
            raise PoolError(f"there is no pool at {path}; `curate grow SOURCE --pool {path}` makes one")
        with trouble(path, "read", lambda: _openable(table) if version is None else "name another version"):
            return cls(path, lance.dataset(str(table), version=version, storage_options=storage_options(path)))

    @property
    def version(self) -> int:
        """Return the number of the version that this object reads."""
        return int(self.dataset.version)

    @property
    @reads
    def rows(self) -> int:
        """Return the number of rows, admitted and refused."""
        return int(self.dataset.count_rows())

    @property
    def columns(self) -> list[str]:
        """Return the names of all columns, embeddings included."""
        return list(self.dataset.schema.names)

    @property
    def vectors(self) -> list[str]:
        """Return the names of the columns that hold embeddings or patch tokens."""
        return [field.name for field in self.dataset.schema if hasattr(field.type, "list_size")]

    @reads
    def versions(self) -> list[dict[str, Any]]:
        """Return every version, oldest first: {"version", "timestamp"}."""
        return [{"version": v["version"], "timestamp": v["timestamp"].isoformat()} for v in self.dataset.versions()]

    @reads
    def tags(self) -> dict[str, int]:
        """Return {name: version} of every tag, by name."""
        return {name: int(value["version"]) for name, value in sorted(self.dataset.tags.list().items())}

    @reads
    def frame(self, columns: Sequence[str] | None = None, where: str | None = None) -> pl.DataFrame:
        """Return rows in order of arrival as a polars frame: all columns but the embeddings, unless named.

        where: a filter in Lance's SQL, for instance "decision = 'admit'".
        """
        import polars as pl

        names = list(columns) if columns is not None else [c for c in self.columns if c not in self.vectors]
        self._known(names)
        wanted = names if "row" in names else [*names, "row"]
        frame = pl.from_arrow(self.dataset.to_table(columns=wanted, filter=where))
        assert isinstance(frame, pl.DataFrame)
        return frame.sort("row").select(names)

    def batches(self, columns: Sequence[str], where: str | None = None, size: int = 4096) -> Iterator[pl.DataFrame]:
        """Stream rows in order of arrival, `size` rows or fewer at a time; memory does not grow with the pool."""
        import polars as pl

        self._known(columns)
        for batch in self.scan(columns, where, size):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame

    @reads
    def embeddings(
        self,
        view: str,
        where: str | None = None,
        memory_gb: float | None = None,
        order: I64 | None = None,
    ) -> F32:
        """Return the unit rows of a view, (n, d) float32; zero rows where there is none.

        view: `image`, `text`, or the name of a further encoder; of `image_patches` rows hold all tokens end to end,
            as the network gives them.

        Rows come in order of arrival, or as `order` says: row i of the answer is the order[i]-th to arrive.

        Raises UsageError when they need more memory than the recipe's limits.memory_gb: use `batches` then.
        """
        limit = memory_gb if memory_gb is not None else float(self.state()["recipe"]["limits"]["memory_gb"])
        if view not in self.vectors:
            raise UsageError(f"this pool has no {view} embeddings; it has: {', '.join(self.vectors)}")
        dim = self.dataset.schema.field(view).type.list_size
        n = int(self.dataset.count_rows(filter=where))
        if n * dim * 4 > limit * 1e9:
            raise UsageError(
                f"{n} x {dim} float32 embeddings take {n * dim * 4 / 1e9:.1f} GB, more than limits.memory_gb = {limit};"
                " read them with Pool.batches, or raise the limit"
            )
        out = np.zeros((n, dim), dtype=np.float32)
        place = np.arange(n) if order is None else np.argsort(order)
        at = 0
        for batch in self.dataset.to_batches(columns=[view], filter=where, batch_size=8192, scan_in_order=True):
            rows = vectors(batch.column(0), dim)
            out[place[at : at + rows.shape[0]]] = rows
            at += rows.shape[0]
        return out

    def scan(self, columns: Sequence[str], where: str | None = None, size: int = 4096) -> Iterator[Any]:
        """Stream Arrow record batches in order of arrival; the engine's own way to read embeddings."""
        read = {"columns": list(columns), "filter": where, "batch_size": size, "scan_in_order": True}
        with trouble(self.path, "read"):
            for batch in self.dataset.to_batches(**read):
                if batch.num_rows:
                    yield batch

    @reads
    def take(self, rows: Sequence[int], columns: Sequence[str]) -> Any:
        """Return an Arrow table of the rows with these ordinals, in this order."""
        return self.dataset.take(list(rows), columns=list(columns))

    @reads
    def find(self, key_or_uid: str) -> dict[str, Any]:
        """Return the row with this uid, `SOURCE:KEY` or key, as a dictionary without embeddings.

        Raises KeyNotFoundError when there is none, or when several rows have the key (they are listed).
        """
        asked = key_or_uid.encode("utf-8", "backslashreplace").decode()  # as keys that are not UTF-8 are stored
        quoted = asked.replace("'", "''")
        names = [c for c in self.columns if c not in self.vectors]
        where = f"uid = '{quoted}' OR key = '{quoted}' OR source || ':' || key = '{quoted}'"
        found = self.dataset.to_table(columns=names, filter=where).to_pylist()
        exact = [row for row in found if row["uid"] == asked]
        if len(exact or found) == 1:
            return dict((exact or found)[0])
        if not found:
            raise KeyNotFoundError(f"no row of {self.path} has the key or uid {asked!r}")
        listed = "\n".join(f"  {row['uid']}  {row['source']}:{row['key']}  {row['decision']}" for row in found[:20])
        raise KeyNotFoundError(f"{len(found)} rows have the key {asked!r}; name one by its uid:\n{listed}")

    def state(self, version: int | None = None) -> dict[str, Any]:
        """Return the engine's state that belongs to this version, or to an older one.

        Raises PoolError when it is missing or damaged, with the version to go back to.
        """
        state = dict(json.loads(self._read_state(self.state_name(version), ".json")))
        # Pools from before there was a choice hold hashes of pixels at full size; two kinds would never be equal.
        if "encode" in state.get("recipe", {}):
            state["recipe"]["encode"].setdefault("decode", "full")
        return state

    def state_name(self, version: int | None = None) -> str:
        """Return `<step>-<digest>` of the newest version that carries one; later ones changed no statistics."""
        for number in range(version or self.version, 0, -1):
            properties = self._properties(number)
            if STATE_PROPERTY in properties:
                return str(properties[STATE_PROPERTY])
        raise PoolError(f"no version of the pool at {self.path} names an engine state; it is not one of ours")

    @reads
    def event(self, version: int) -> dict[str, Any]:
        """Return what the commit of a version did: {"what": …} and its figures."""
        properties = self._properties(version)
        if EVENT_PROPERTY in properties:
            return dict(json.loads(properties[EVENT_PROPERTY]))
        return {"what": "commit" if STATE_PROPERTY in properties else "layout"}

    @reads
    def _properties(self, version: int) -> dict[str, str]:
        transaction = self.dataset.read_transaction(version)
        return dict((transaction.transaction_properties if transaction is not None else None) or {})

    def sums(self, name: str) -> dict[str, Any]:
        """Return the named arrays that `Writer.save_sums` saved under this name. Raises PoolError as `state` does."""
        from safetensors.numpy import load

        return dict(load(self._read_state(name, ".safetensors")))

    def verify(self) -> None:
        """Raise PoolError unless this version's state, and every file that it names, are as they were written."""
        for name in state_files(json.loads(self._checked(self.state_name(), ".json"))):
            self._checked(name, ".safetensors")

    def _read_state(self, name: str, suffix: str) -> bytes:
        try:
            return self._checked(name, suffix)
        except PoolError as error:
            raise PoolError(f"{error}; {self._way_back()}") from error

    def _checked(self, name: str, suffix: str) -> bytes:
        path = self.path / "state" / f"{name}{suffix}"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise PoolError(f"the pool's state {path} cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest()[:32] != name.rpartition("-")[2]:
            raise PoolError(f"the pool's state {path} is damaged: its content does not match its name")
        return data

    def _way_back(self) -> str:
        for version in range(self.version - 1, 0, -1):
            with contextlib.suppress(PoolError):
                Pool.open(self.path, version).verify()
                return (
                    f"restore the file from a backup, or go back to the newest version whose state is whole:"
                    f" `curate rollback {self.path} {version}`"
                )
        return "restore the file from a backup; no older version's state is whole"

    def _known(self, columns: Sequence[str]) -> None:
        missing = [c for c in columns if c not in self.columns]
        if missing:
            raise UsageError(f"this pool has no column {', '.join(missing)}; it has: {', '.join(self.columns)}")

    def _repr_html_(self) -> str:
        """Return the counts as a table, for notebooks."""
        counts = self.frame(["decision", "reason"]).group_by("decision", "reason").len().sort("len", descending=True)
        lines = "".join(f"<tr><td>{d}</td><td>{r}</td><td>{n:,}</td></tr>" for d, r, n in counts.iter_rows())
        head = f"<b>Pool</b> {html.escape(str(self.path))}, version {self.version}, {self.rows:,} rows"
        return f"{head}<table><tr><th>decision</th><th>reason</th><th>rows</th></tr>{lines}</table>"

    def __repr__(self) -> str:
        return f"Pool({str(self.path)!r}, version={self.version}, rows={self.rows})"


def state_files(state: dict[str, Any]) -> list[str]:
    """Return the names of the files beside a state that it needs: sums, and registered evaluation sets."""
    return [*(state["checkpoint"] or {"sums": {}})["sums"].values(), *state["guards"]]


def _openable(table: Place) -> str:
    """Return what to do about a table whose newest version does not open."""
    import lance

    newer: list[str] = []
    options = storage_options(table.parent)
    for file in listed(table / "_versions", ".manifest"):  # the newest first: names count down
        version = 2**64 - 1 - int(file.name.removesuffix(".manifest"))
        try:
            with trouble(table.parent, "read", str):
                lance.dataset(str(table), version=version, storage_options=options).count_rows()
        except PoolError:
            newer.append(str(file))
        else:
            return f"restore it from a backup, or go back to the version before: move {', '.join(newer)} away"
    return "restore it from a backup; no older version opens either"
