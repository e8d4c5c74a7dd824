"""From sources to rows that the pool has not decided yet, with their identity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from curate.engine.state import SourceState
from curate.pool import Pool
from curate.samples import Sample, Source, content_hash, sample_uid

if TYPE_CHECKING:
    from curate.engine.forget import Bar


@dataclass(frozen=True, slots=True)
class Arrival:
    """A row to decide. `position` is how many rows of its source are decided once this one is.

    found: what another machine found out about it, and then sent no bytes of
    """

    sample: Sample
    uid: str
    sha256: str
    source: Source
    position: int
    found: Any = None


class Entry(NamedTuple):
    """Where a source is entered: at a row of it, or at its first where any may be `decided` already."""

    source: Source
    start: int
    entered: bool
    decided: Decided


class Row(NamedTuple):
    """A sample as it was read. found: see `Arrival`."""

    sample: Sample
    sha256: str
    found: Any = None


Read = Callable[[Sequence[Entry]], Iterator[Iterable[Row]]]  # gives the rows of each entry, one after the other


def read(entries: Sequence[Entry]) -> Iterator[Iterable[Row]]:
    """Read the rows in this process."""
    for entry in entries:
        yield (
            Row(sample, sample.embedded.sha256 if sample.embedded else content_hash(sample.data))
            for sample in entry.source.rows(entry.start)
        )


class Arrivals:
    """Every undecided row of some sources, in order; what was decided before is counted in `known`, what a takedown
    keeps out in `barred`.

    A source whose listing is unchanged since the pool read it is entered at the saved position. Any other is
    compared row by row with what was decided: same source id, key and bytes are known.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        saved: Mapping[str, SourceState],
        pool: Pool | None,
        bar: Bar | None = None,
        read: Read = read,
    ) -> None:
        self.known = 0
        self._read = read
        self.barred = 0
        self._bar = bar
        self._sources = sources
        self._saved = dict(saved)
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
        entries = [self._entry(source) for source in self._sources]
        for (source, start, entered, decided), rows in zip(entries, self._read(entries), strict=True):
            self.known += start
            for position, (sample, sha256, found) in enumerate(rows, start + 1):
                if self._bar is not None and self._bar.holds(sample.source, sample.key, sha256):
                    self.barred += 1
                    continue
                names = self._names(sample, sha256, position)
                # Entered at a position, only a row whose uid is taken can be known: it moved behind the position.
                suspect = not entered or names[0] in self
                if suspect and (sample.key, sha256) in decided:
                    self.known += 1
                else:
                    yield Arrival(sample, self._take(names), sha256, source, position, found)

    def _entry(self, source: Source) -> Entry:
        saved = self._saved.get(source.id)
        entered = saved is not None and saved.fingerprint == source.fingerprint
        decided = Decided(source.id, self._pool if saved else None)
        return Entry(source, saved.position if saved and entered else 0, entered, decided)

    def _names(self, sample: Sample, sha256: str, position: int) -> list[str]:
        """Return the uids that a row may have, the best first: its own, the derived one, one that holds its position.

        A key that its source repeats with the same bytes (a table with several captions of one image) has the identity
        of the first; its uid holds its position, so that the repeat is stored and counted.
        """
        derived = sample_uid(sample.source, sample.key, sha256)
        placed = sample_uid(sample.source, f"{sample.key}\0{position}", sha256)
        if sample.problem == "duplicate_key":
            return [placed]
        return [sample.uid, derived, placed] if sample.uid else [derived, placed]

    def _take(self, names: Sequence[str]) -> str:
        uid = next(name for name in names if name not in self)
        self._uids.add(bytes.fromhex(uid))
        return uid

    def __contains__(self, uid: str) -> bool:
        return bytes.fromhex(uid) in self._uids


class Decided:
    """The (key, SHA-256) of every decided row of a source, read from the pool when first asked for."""

    def __init__(self, source: str, pool: Pool | None) -> None:
        self._source, self._pool = source, pool
        self._pairs: set[tuple[str, str]] | None = None

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair in self.pairs

    @property
    def pairs(self) -> set[tuple[str, str]]:
        """The pairs themselves."""
        if self._pairs is None:
            self._pairs = set()
            if self._pool is not None:
                where = "source = '{}'".format(self._source.replace("'", "''"))
                for batch in self._pool.batches(["key", "sha256"], where=where, size=65536):
                    self._pairs.update(batch.iter_rows())
        return self._pairs
