"""The index of a remote tar, kept on this machine: going on in the middle of a tar fetches none of what lies before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import zlib
from dataclasses import astuple, dataclass
from types import TracebackType
from typing import Self

from curate.files import atomic_write, cache_folder

_LOG = logging.getLogger("curate")
_SAVED_EVERY = 1024  # samples; later whenever half as many came again, so that n samples are written 3 n times at most


@dataclass(frozen=True, slots=True)
class Group:
    """One sample of a tar: `parts` maps each extension, in lower case, to its member's (offset, size) in bytes."""

    key: str
    parts: dict[str, tuple[int, int]]


class Remembered:
    """The samples of a tar found so far, and `after`, the offset of the header that follows them.

    name: tells one content of one tar from every other, such as URL, size and entity tag. Saved now and then and when
    the block ends; what cannot be read or saved costs time, no more. The last sample is never saved, so that what is
    wrong with the end of a tar is seen, and logged, by every pass.
    """

    def __init__(self, name: str) -> None:
        digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=16).hexdigest()
        self._file = cache_folder() / "tars" / f"{digest}.json.z"
        self.groups: list[Group] = []
        self.after = 0
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, zlib.error):
            saved = json.loads(zlib.decompress(self._file.read_bytes()))
            self.groups = [Group(key, {k: (at, size) for k, (at, size) in parts.items()}) for key, parts in saved["g"]]
            self.after = int(saved["after"])
        self._saved = len(self.groups)

    def add(self, group: Group, after: int) -> None:
        """Remember the next sample and where the header after it begins; -1, for the last, is not remembered."""
        if after < 0:
            return
        self.groups.append(group)
        self.after = after
        if len(self.groups) - self._saved >= max(_SAVED_EVERY, self._saved // 2):
            self._save()

    def _save(self) -> None:
        if len(self.groups) == self._saved:
            return
        data = json.dumps({"after": self.after, "g": [astuple(group) for group in self.groups]}).encode()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self._file, zlib.compress(data, 1))
        except OSError as error:
            _LOG.debug("the index of a tar is not remembered: %s", error)
        self._saved = len(self.groups)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._save()
