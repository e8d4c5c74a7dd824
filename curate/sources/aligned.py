"""Sources of embeddings: vectors of images, of their captions, and a table, of which row i is about the same sample."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from curate.errors import SourceError
from curate.patience import without_secrets
from curate.remote import Place
from curate.samples import Embedded, Sample, content_hash
from curate.sources.columns import (
    PATHS,
    Columns,
    Row,
    as_name,
    as_text,
    first_present,
    make_sample,
    read_fields,
)
from curate.sources.records import read_outline, stream_rows

if TYPE_CHECKING:
    from curate_kernels.arrays import B1, F32

_KEY = "key"
_SHA256 = "sha256"
_SIZES = (("original_width", "original_height"), ("width", "height"))
_MOST_SIDE = 2**31 - 1
_NOTHING = content_hash(b"")
_HEX = set("0123456789abcdef")


class Vectors(Protocol):
    """(rows, dim) numbers, given block by block from any row on."""

    rows: int
    dim: int

    def blocks(self, start: int = 0) -> Iterator[F32]:
        """Yield the rows from `start` on as (b, dim) float32."""
        ...


class Records(Protocol):
    """The rows of a table."""

    @property
    def columns(self) -> Sequence[str]:
        """Return their names."""
        ...

    @property
    def height(self) -> int:
        """Return the number of rows."""
        ...

    def rows(self, start: int = 0, only: Collection[str] | None = None) -> Iterator[Row]:
        """Yield the rows from `start` on, of some columns only."""
        ...


class TableFile:
    """The rows of a table on disk or behind a URL."""

    def __init__(self, path: Place) -> None:
        self.path = path
        self.columns, self.height = read_outline(path)

    def rows(self, start: int = 0, only: Collection[str] | None = None) -> Iterator[Row]:
        """Yield the rows from `start` on, of some columns only."""
        return stream_rows(self.path, start, only)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class Part:
    """Vectors with their table.

    keys: columns that tell a row's key, in order of preference; sizes: those of its width and height, or none
    """

    image: Vectors
    text: Vectors | None
    table: Records | None
    names: Columns = field(default_factory=Columns)
    keys: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()


def make_part(image: Vectors, text: Vectors | None, table: Records | None, columns: Columns, where: str) -> Part:
    """Return a part. Raises SourceError where its pieces have not equally many rows, or a column is missing.

    where: what the vectors are called in errors
    """
    if text is not None and text.rows != image.rows:
        raise SourceError(f"{where} has vectors of {image.rows} images and of {text.rows} captions: row i must be one")
    if table is None:
        columns.require((), f"{where}, which has no table beside it,")
        return Part(image, text, None)
    if table.height != image.rows:
        raise SourceError(f"{where} has {image.rows} rows and {table} {table.height}: row i of both must be one sample")
    columns.require(table.columns, f"the table {table}")
    names = replace(
        columns,
        path=columns.path or first_present(PATHS, table.columns),
        label=columns.label or first_present(("label",), table.columns),
        caption=columns.caption or first_present(("caption", "text", "title"), table.columns),
    )
    keys = tuple(name for name in (_KEY, names.path, "uid") if name is not None and name in table.columns)
    sizes = next((pair for pair in _SIZES if set(pair) <= set(table.columns)), ())
    return Part(image, text, table, names, keys, sizes)


def same_dims(parts: Sequence[Part], names: Sequence[str]) -> None:
    """Raise SourceError unless all parts have vectors of the same dimensions; names: what each is called."""
    for part, name in zip(parts, names, strict=True):
        for mine, first, what in ((part.image, parts[0].image, "images"), (part.text, parts[0].text, "captions")):
            dims = tuple(0 if vectors is None else vectors.dim for vectors in (mine, first))
            if dims[0] != dims[1]:
                raise SourceError(
                    f"{name} has vectors of {what} in {dims[0]} dimensions, and {names[0]} in {dims[1]}: they are of"
                    " different encoders"
                )


def samples(parts: Sequence[Part], source: str, start: int) -> Iterator[Sample]:
    """Yield the samples of all parts from ordinal `start` on; of the rows before it only the keys are read.

    A row's key is its `key`, else its path, else its uid, else `#` and its ordinal. A vector that is zero or not finite
    makes it a `bad_embedding`; a key that came before, a `duplicate_key`.
    """
    seen: set[str] = set()
    first = 0
    for part in parts:
        skip = min(max(start - first, 0), part.image.rows)
        seen.update(_keys(part, first, skip))
        if skip < part.image.rows:
            yield from _rows(part, source, first, skip, seen)
        first += part.image.rows


def _keys(part: Part, first: int, stop: int) -> Iterator[str]:
    """Yield the keys of the rows before `stop`."""
    if part.table is not None and stop:
        rows = part.table.rows(0, part.keys) if part.keys else iter(())
        for row, ordinal in zip(rows, range(first, first + stop), strict=False):
            yield _key(part, row, ordinal)


def _key(part: Part, row: Row, ordinal: int) -> str:
    for name in part.keys:
        if (text := as_text(row.get(name))) is not None:
            return as_name(without_secrets(text) if name == part.names.path else text)
    return f"#{ordinal}"


def _rows(part: Part, source: str, first: int, skip: int, seen: set[str]) -> Iterator[Sample]:
    rows = part.table.rows(skip) if part.table is not None else iter(())
    ordinal = first + skip
    for image, text in _blocks(part, skip):
        good = _usable(image)
        if text is not None:
            good &= _usable(text)
        for i, fine in enumerate(good.tolist()):
            row = next(rows, None) if part.table is not None else {}
            if row is None:
                raise SourceError(f"{part.table} became shorter while it was read")
            key = _key(part, row, ordinal)
            problem = "duplicate_key" if key in seen else "" if fine else "bad_embedding"
            seen.add(key)
            yield _sample(part, row, source, key, problem, image[i], None if text is None else text[i], fine)
            ordinal += 1


def _blocks(part: Part, start: int) -> Iterator[tuple[F32, F32 | None]]:
    """Yield vectors of the same rows together, whatever blocks their files come in."""
    if part.text is None:
        yield from ((block, None) for block in part.image.blocks(start))
        return
    texts = part.text.blocks(start)
    text = next(texts, None)
    for block in part.image.blocks(start):
        image = block
        while image.shape[0] and text is not None:
            b = min(image.shape[0], text.shape[0])
            yield image[:b], text[:b]
            image, text = image[b:], text[b:] if b < text.shape[0] else next(texts, None)


def _usable(x: F32) -> B1:
    import numpy as np

    with np.errstate(invalid="ignore"):  # signalling NaN
        return np.asarray(np.isfinite(x).all(axis=1) & x.any(axis=1))


def _sample(
    part: Part, row: Row, source: str, key: str, problem: str, image: F32, text: F32 | None, fine: bool
) -> Sample:
    sha256 = _stated(row.get(_SHA256)) if fine else _NOTHING  # so that a vector that is mended is taken in
    fields = read_fields(row, part.names, drop=(_KEY, *part.sizes, *([_SHA256] if fine and sha256 else [])))
    if text is not None and fields.caption is None:
        fields = replace(fields, caption="")  # what is said is in the vector alone
    sides = [_side(row.get(name)) for name in part.sizes] or [0, 0]
    return make_sample(
        fields,
        source=source,
        key=key,
        path="",
        problem=problem,
        embedded=Embedded(image, text, sha256 or content_hash(image.astype("<f4", copy=False).tobytes()), *sides),
    )


def _stated(value: object) -> str:
    """Return a SHA-256 that a table tells, or ""."""
    text = value.lower() if isinstance(value, str) else ""
    return text if len(text) == 64 and _HEX.issuperset(text) else ""


def _side(value: object) -> int:
    """Return a number of pixels, as CSV has it too; 0 for what is none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(number) if 0 <= number <= _MOST_SIDE else 0
