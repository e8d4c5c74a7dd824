"""From sources to rows that the pool has not decided yet, with their identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from curate.engine.state import SourceState
from curate.pool import Pool
from curate.samples import Sample, Source, content_hash, sample_uid


@dataclass(frozen=True, slots=True)
class Arrival:
    """A row to decide. `position` is how many rows of its source are decided once this one is."""

    sample: Sample
    uid: str
    sha256: str
    source: Source
    position: int


class Arrivals:
    """Every undecided row of some sources, in order; what was decided before is counted in `known`.

    A source whose listing is unchanged since the pool read it is entered at the saved position. Any other is
    compared row by row with what was decided: same source id, key and bytes are known.
    """

    def __init__(self, sources: Sequence[Source], saved: dict[str, SourceState], pool: Pool | None) -> None:
        self.known = 0
        self._sources = sources
        self._saved = saved
        self._pool = pool
        self._uids: set[bytes] = set()
        if pool is not None:
            for batch in pool.batches(["uid"], size=65536):
                self._uids.update(bytes.fromhex(uid) for uid in batch["uid"])

    def batches(self, size: int) -> Iterator[list[Arrival]]:
        """Yield the rows in lists of `size`; only the last is shorter."""
        rows = self._rows()
        while batch := list(islice(rows, size)):
            yield batch

    def _rows(self) -> Iterator[Arrival]:
        for source in self._sources:
            saved = self._saved.get(source.id)
            start = saved.position if saved and saved.fingerprint == source.fingerprint else 0
            self.known += start
            decided = self._decided(source.id) if saved and not start else set()
            for position, sample in enumerate(source.rows(start), start + 1):
                sha256 = content_hash(sample.data)
                uid = None if (sample.key, sha256) in decided else self._uid(sample, sha256)
                if uid is None:
                    self.known += 1
                else:
                    yield Arrival(sample, uid, sha256, source, position)

    def _decided(self, source: str) -> set[tuple[str, str]]:
        if self._pool is None:
            return set()
        quoted = source.replace("'", "''")
        pairs: set[tuple[str, str]] = set()
        for batch in self._pool.batches(["key", "sha256"], where=f"source = '{quoted}'", size=65536):
            pairs.update(batch.iter_rows())
        return pairs

    def _uid(self, sample: Sample, sha256: str) -> str | None:
        """Return the row's uid: its own where that is free, else the derived one; None if that identity is decided."""
        for uid in (sample.uid, sample_uid(sample.source, sample.key, sha256)):
            if uid and bytes.fromhex(uid) not in self._uids:
                self._uids.add(bytes.fromhex(uid))
                return uid
        return None
