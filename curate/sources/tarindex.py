"""The samples of a WebDataset tar and where each of their members lies, from its headers alone."""

from __future__ import annotations

import logging
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curate.errors import SourceError

_LOG = logging.getLogger("curate")

# WebDataset's own rule: the key is everything up to the first dot of the basename, the extension everything after.
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)

# What tarfile raises over headers that lie, besides its own errors; MemoryError over a name said to have a terabyte.
_DAMAGED = (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError, MemoryError)


@dataclass(frozen=True, slots=True)
class Group:
    """One sample of a tar: `parts` maps each extension, in lower case, to its member's (offset, size) in bytes."""

    key: str
    parts: dict[str, tuple[int, int]]


def check_tar(path: Path) -> None:
    """Raise SourceError unless the file begins like an uncompressed tar; an archive of no members is one."""
    try:
        with path.open("rb") as file:
            block = file.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise SourceError(f"cannot read the tar {path}: {error.strerror}") from error
    if block and not block.strip(b"\0"):
        return
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise SourceError(f"{path} is not an uncompressed tar: {error}") from error


def index_tar(path: Path) -> list[Group]:
    """Return the samples of a tar in its order.

    A sample is a run of members with one key; an extension that comes again begins the next sample. Of a tar that is
    cut off or damaged, the samples before the damage are returned, the last one with the bytes that there are, and a
    warning is logged. Raises SourceError if not even the first header can be read.
    """
    groups: list[Group] = []
    for name, offset, size in _members(path):
        match = _NAME.fullmatch(name)
        if match is None:
            continue  # no extension, or a hidden file: not part of a sample
        key, extension = match[1], match[2].lower()
        if not groups or groups[-1].key != key or extension in groups[-1].parts:
            groups.append(Group(key, {}))
        groups[-1].parts[extension] = (offset, size)
    return groups


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of each regular member, the size cut to the bytes that are in the file."""
    end = path.stat().st_size
    linked = 0
    for member in _headers(path):
        if member.isreg() and not member.issparse():
            yield member.name, member.offset_data, max(0, min(member.size, end - member.offset_data))
        elif not member.isdir():
            linked += 1
    if linked:
        _LOG.warning("%s: %d links or sparse files, which hold no bytes of their own, are skipped", path, linked)


def _headers(path: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the headers up to the end of the archive or the first damage, which is logged; the data is seeked over."""
    try:
        tar = tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    except (OSError, *_DAMAGED) as error:
        raise SourceError(f"{path} cannot be read as an uncompressed tar: {error}") from error
    damage, position = None, -1
    with tar:
        try:
            while (member := tar.next()) is not None:
                if member.size < 0 or tar.offset <= position:
                    damage = "a header that leads backwards"  # tarfile would follow it round for ever
                    break
                position = tar.offset
                tar.members.clear()  # type: ignore[attr-defined]  # else tarfile keeps every header
                yield member
            else:
                damage = _ending(path, tar.offset)
        except _DAMAGED as error:
            damage = str(error) or type(error).__name__
        except OSError as error:
            raise SourceError(f"cannot read the tar {path}: {error.strerror}") from error
    if damage:
        _LOG.warning("%s is cut off or damaged before byte %d (%s): the rest is not read", path, tar.offset, damage)


def _ending(path: Path, offset: int) -> str | None:
    """Return what is wrong where tarfile stopped, None if the archive ends there: it does not tell the two apart."""
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        return "bad header"
    return None if block else "no end-of-archive mark"
