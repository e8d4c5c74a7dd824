"""Data sets of shards that an `index.json` lists: MDS (mosaicml-streaming) and LitData."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from curate.cells import cell_path
from curate.cells.packed import IMAGE_ENCODINGS, Column
from curate.errors import SourceError
from curate.remote import Place, place
from curate.samples import Sample
from curate.sources.columns import Columns, as_name, as_text, first_present, make_sample, read_fields
from curate.sources.layout import IMAGE_NAMES, KEYS
from curate.sources.listing import fingerprint, stat_entries
from curate.sources.records import named_errors
from curate.sources.shard_index import INDEX, Shard, read_index
from curate.sources.shard_rows import DECODERS, ShardRows, open_shard

_LABELS = ("label", "class", "cls")
_CAPTIONS = ("caption", "text")


class ShardSource:
    """The samples of shards, in their order. A key is the field `key` where there is one, else the sample's number.

    Images are found again as bytes of a shard, in a compressed one as `curate.cells` says. Fields that are arrays,
    pickles or raw pixels are passed over. Raises SourceError where a shard is missing or is not what the index says.
    """

    def __init__(self, kind: str, folder: Place, columns: Columns, name: str) -> None:
        self.kind = kind
        self.id = name
        self.root = str(folder)
        self._shards = read_index(kind, folder)
        shape = self._shards[0].columns if self._shards else ()
        readable = [column.name for column in shape if column.encoding in DECODERS]
        replace(columns, path=None).require(readable, f"the data set {folder}")
        self._image = _choose_image(shape, columns.path, folder) if self._shards else ""
        self._key = first_present(KEYS, readable)
        self._names = Columns(
            label=columns.label or first_present(_LABELS, readable),
            caption=columns.caption or first_present(_CAPTIONS, readable),
            alternatives=columns.alternatives,
            group=columns.group,
        )
        self.count: int | None = sum(shard.samples for shard in self._shards)
        self.fingerprint = fingerprint(columns, stat_entries(self.root, [INDEX, *(s.path for s in self._shards)]))

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; of those before it only the keys are read, if there are any."""
        seen: set[str] = set()
        first = 0
        for shard in self._shards:
            if first + shard.samples > start or self._key is not None:
                yield from self._of_shard(shard, first, start, seen)
            first += shard.samples

    def _of_shard(self, shard: Shard, first: int, start: int, seen: set[str]) -> Iterator[Sample]:
        path = place(self.root, shard.path)
        with named_errors(path), closing(open_shard(path, shard.columns, shard.is_packed)) as samples:
            if samples.count != shard.samples:
                raise ValueError(f"it holds {samples.count} samples and the index says {shard.samples}")
            readable = {column.name for column in shard.columns if column.encoding in DECODERS}
            begin = 0 if self._key is not None else max(0, start - first)
            for row in range(begin, shard.samples):
                key, repeated = str(first + row), False
                if self._key is not None:
                    key = as_name(as_text(samples.values(row, {self._key}).get(self._key)) or f"#{first + row}")
                    repeated = key in seen
                    seen.add(key)
                if first + row >= start:
                    yield self._sample(samples, readable, shard, row, key, repeated)

    def _sample(
        self, samples: ShardRows, readable: Collection[str], shard: Shard, row: int, key: str, repeated: bool
    ) -> Sample:
        found = samples.place(row, self._image)
        offset, size = found or (0, 0)
        problem = "duplicate_key" if repeated else "" if found else "unreadable_file"
        at = (cell_path(shard.path, self._image), row) if shard.is_packed else (shard.path, offset)
        return make_sample(
            read_fields(samples.values(row, readable), self._names, drop=(self._key or "",)),
            source=self.id,
            key=key,
            path=at[0],
            offset=at[1],
            data=samples.bytes_at(offset, size),
            problem=problem,
            is_cell=shard.is_packed,
        )


def open_mds(folder: Place, columns: Columns, name: str) -> ShardSource:
    """Return the source of an MDS data set."""
    return ShardSource("mds", folder, columns, name)


def open_litdata(folder: Place, columns: Columns, name: str) -> ShardSource:
    """Return the source of a LitData data set."""
    return ShardSource("litdata", folder, columns, name)


def _choose_image(columns: Sequence[Column], wanted: str | None, folder: Place) -> str:
    by_name = {column.name: column.encoding for column in columns}
    fits = [name for name, encoding in by_name.items() if encoding in IMAGE_ENCODINGS]
    fits += [name for name, encoding in by_name.items() if encoding == "bytes" and name in (*IMAGE_NAMES, wanted)]
    found = first_present((wanted,) if wanted else ("image", *fits), fits)
    if found is None:
        listed = ", ".join(f"{name} ({encoding})" for name, encoding in by_name.items())
        what = f"{wanted!r} is no column" if wanted else "there is no column"
        raise SourceError(
            f"{what} of encoded images in {folder}: jpeg, png, or bytes named with --path; it has {listed}"
        )
    return found
