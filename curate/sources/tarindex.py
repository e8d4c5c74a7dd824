"""The samples of a WebDataset tar and where each of their members lies, from its headers alone."""

from __future__ import annotations

import logging
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from curate.errors import SourceError
from curate.remote import Place, Remote
from curate.sources.remembered import Group, Remembered

_LOG = logging.getLogger("curate")

# WebDataset's own rule: the key is everything up to the first dot of the basename, the extension everything after.
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)

# What tarfile raises over headers that lie, besides its own errors; MemoryError over a name said to have a terabyte.
_DAMAGED = (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError, MemoryError)


def check_tar(path: Place) -> None:
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


def index_tar(path: Place, file: BinaryIO) -> Iterator[Group]:
    """Yield the samples of a tar in its order, from the headers; what lies between them is not read.

    A sample is a run of members with one key; an extension that comes again begins the next sample. Of a tar that is
    cut off or damaged, the samples before the damage are yielded, the last one with the bytes that there are, and a
    warning is logged. A remote tar's index is remembered, so that the headers are fetched once, if its server
    gives a tag or time to know it again by.
    Raises SourceError if not even the first header can be read.
    """
    size, stamp = path.status() if isinstance(path, Remote) else (path.stat().st_size, "")
    if not stamp:  # the disk is near enough; and what a server tells nothing of may have changed
        for group, _ in _groups(path, file, size, 0):
            yield group
        return
    with Remembered(f"{path}\n{size}\n{stamp}") as index:
        yield from tuple(index.groups)
        for group, after in _groups(path, file, size, index.after):
            index.add(group, after)
            yield group


def _groups(path: Place, file: BinaryIO, end: int, start: int) -> Iterator[tuple[Group, int]]:
    """Yield each sample from a header's offset on, with the offset of the header after it, -1 after the last."""
    group: Group | None = None
    for name, header, offset, size in _members(path, file, end, start):
        match = _NAME.fullmatch(name)
        if match is None:
            continue  # no extension, or a hidden file: not part of a sample
        key, extension = match[1], match[2].lower()
        if group is None or group.key != key or extension in group.parts:
            if group is not None:
                yield group, header
            group = Group(key, {})
        group.parts[extension] = (offset, size)
    if group is not None:
        yield group, -1


def _members(path: Place, file: BinaryIO, end: int, start: int) -> Iterator[tuple[str, int, int, int]]:
    """Yield name, header, offset and size of each regular member, the size cut to the bytes that are in the file."""
    linked = 0
    for member in _headers(path, file, start):
        if member.isreg() and not member.issparse():
            size = max(0, min(member.size, end - member.offset_data))
            yield member.name, member.offset, member.offset_data, size
        elif not member.isdir():
            linked += 1
    if linked:
        _LOG.warning("%s: %d links or sparse files, which hold no bytes of their own, are skipped", path, linked)


def _headers(path: Place, file: BinaryIO, start: int) -> Iterator[tarfile.TarInfo]:
    """Yield the headers up to the end of the archive or the first damage, which is logged; the data is seeked over."""
    try:
        file.seek(start)
        tar = tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
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
                damage = _ending(file, tar.offset)
        except _DAMAGED as error:
            damage = str(error) or type(error).__name__
        except OSError as error:
            raise SourceError(f"cannot read the tar {path}: {error.strerror}") from error
    if damage:
        _LOG.warning("%s is cut off or damaged before byte %d (%s): the rest is not read", path, tar.offset, damage)


def _ending(file: BinaryIO, offset: int) -> str | None:
    """Return what is wrong where tarfile stopped, None if the archive ends there: it does not tell the two apart."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        return "bad header"
    return None if block else "no end-of-archive mark"
