"""One sample as a source yields it, and the identity that it keeps for ever."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]

_UID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a source.

    `data` holds the encoded image as stored (b"" when there is none), `path`, `offset` and `size` say where those
    bytes lie relative to the source's root. `problem` is a refusal reason that the source itself knows
    (`download_failed`, `missing_file`, `duplicate_key`), else "". `alternatives` are its other captions or alt-texts,
    distinct and without the caption.
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
