"""One sample as a source yields it, and the identity that it keeps for ever."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from curate_kernels.arrays import F32

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]

_UID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """What a source gives in place of an image's bytes.

    image: (d,), text: (t,) float32, of any length, the caption's vector None where the source has none
    sha256: of the image's bytes where the source tells it, else of the vector; of no bytes where neither is known
    width, height: of the image in pixels, 0 unknown
    """

    image: F32
    text: F32 | None
    sha256: str
    width: int = 0
    height: int = 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Embedded):
            return NotImplemented
        told = (self.sha256, self.width, self.height) == (other.sha256, other.width, other.height)
        return told and _equal(self.image, other.image) and _equal(self.text, other.text)

    __hash__ = None  # type: ignore[assignment]


def _equal(a: F32 | None, b: F32 | None) -> bool:
    import numpy as np

    return (a is b) if a is None or b is None else np.array_equal(a, b, equal_nan=True)


@dataclass(frozen=True, slots=True)
class Features:
    """Which embeddings a source gives: what it says that they are, "" where it says nothing, and their dimensions.

    text: 0 where it gives none of captions
    """

    name: str
    image: int
    text: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a source.

    `data` holds the encoded image as stored (b"" when there is none), `path`, `offset` and `size` say where those
    bytes lie relative to the source's root. `problem` is a refusal reason that the source itself knows
    (`download_failed`, `missing_file`, `duplicate_key`), else "". `alternatives` are its other captions or alt-texts,
    distinct and without the caption. Where `embedded` is there, no image is read, and no place of one is known.
    """

    source: str
    key: str
    path: str
    offset: int
    size: int
    data: bytes
    problem: str = ""
    uid: str = ""
    caption: str | None = None
    alternatives: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None
    meta: Mapping[str, Json] = field(default_factory=dict)
    embedded: Embedded | None = None


@runtime_checkable
class Source(Protocol):
    """Rows in a fixed order, from any ordinal on.

    `id` names the source for ever (no absolute path in it), `root` is the absolute folder that sample paths are
    relative to, `kind` one word. `fingerprint` changes whenever the listing changes (names, sizes, modification
    times), at a cost that does not read the images. `count` is the number of rows, or None where only reading tells.
    """

    id: str
    root: str
    kind: str
    fingerprint: str
    count: int | None

    def rows(self, start: int = 0) -> Iterator[Sample]:
        """Yield the samples from ordinal `start` on; the same ordinal is the same sample on every run."""
        ...


@runtime_checkable
class EmbeddingSource(Source, Protocol):
    """A source whose every sample is `embedded`."""

    features: Features

    def named(self, name: str) -> Self:
        """Return the source with the features of this name, or with its nameless ones under it; SourceError if none."""
        ...


def content_hash(data: bytes) -> str:
    """Return the SHA-256 of the stored image bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sample_uid(source: str, key: str, sha256: str) -> str:
    """Return the first 128 bits of SHA-256(source id, key, SHA-256 of the bytes) as 32 hex digits.

    The three are separated by NUL, which no key may hold.
    """
    return hashlib.sha256("\0".join((source, key, sha256)).encode()).hexdigest()[:32]


def is_uid(text: str) -> bool:
    """Tell whether a text is 32 lower-case hex digits."""
    return _UID.fullmatch(text) is not None
