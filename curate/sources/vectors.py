"""Rows of vectors in `.npy` files and in members of `.npz` archives: read block by block, never unpickled."""

from __future__ import annotations

import ast
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from curate.errors import SourceError
from curate.remote import Place, Remote

if TYPE_CHECKING:
    from curate_kernels.arrays import F32

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 10_000  # bytes, as numpy itself
_MOST_DIMS = 65_536
_BLOCK = 1 << 20  # values that are held at once, or one row
_MOST_RATIO = 50  # of an honest member's size to its compressed one; float16 vectors reach 2, bombs 1,000
_FLOAT = re.compile(r"[<>=]f[248]")
_DAMAGED = (
    OSError, EOFError, ValueError, LookupError, SyntaxError, TypeError, MemoryError, OverflowError, RuntimeError,
    struct.error, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error,
)  # fmt: skip


class VectorFile:
    """(n, d) rows of floating-point numbers in an `.npy` file, or in one member of an `.npz`.

    Opening reads the header. Raises SourceError for anything else: pickled objects, whole numbers, one axis or three.
    """

    def __init__(self, path: Place, member: str = "") -> None:
        self.path, self.member = path, member
        with self._stream() as (stream, size):
            descr, shape = _header(stream, str(self))
            if len(shape) != 2 or not 0 < shape[1] <= _MOST_DIMS:
                raise SourceError(f"{self} has the shape {shape}; it must be (rows, dimensions)")
            self._dtype, self._width = descr, shape[1] * int(descr[-1])
            self.rows, self.dim = shape
            self._start = stream.tell()
            need, have = self._start + shape[0] * self._width, size
            if have < need:
                raise SourceError(f"{self} is cut off: {shape[0]} rows need {need:,} bytes, and it has {have:,}")

    def blocks(self, start: int = 0) -> Iterator[F32]:
        """Yield the rows from `start` on as (b, d) float32, some at a time; what exceeds float32 becomes infinite.

        Raises SourceError where the file is damaged or has become shorter.
        """
        import numpy as np

        width = self._width
        with self._stream() as (stream, _):
            stream.seek(self._start + start * width)
            while start < self.rows:
                rows = min(max(1, _BLOCK // self.dim), self.rows - start)
                data = stream.read(rows * width)
                if len(data) < rows * width:
                    raise SourceError(f"{self} is cut off at row {start + len(data) // width}")
                with np.errstate(over="ignore", invalid="ignore"):
                    yield np.frombuffer(data, self._dtype).reshape(rows, self.dim).astype(np.float32)
                start += rows

    @contextmanager
    def _stream(self) -> Iterator[tuple[BinaryIO, int]]:
        """Yield the array's stream and its size in bytes."""
        try:
            if not self.member:
                size = self.path.status().size if isinstance(self.path, Remote) else self.path.stat().st_size
                with self.path.open("rb") as file:
                    yield file, size
                return
            with self.path.open("rb") as file, zipfile.ZipFile(file) as archive:
                found = archive.getinfo(f"{self.member}.npy")
                _refuse_bomb(str(self), found)
                with archive.open(found) as stream:
                    yield stream, found.file_size  # type: ignore[misc]
        except SourceError:
            raise
        except _DAMAGED as error:
            raise SourceError(f"cannot read {self}: {error or type(error).__name__}") from error

    def __str__(self) -> str:
        return f"{self.member} of {self.path}" if self.member else str(self.path)


def members(path: Place) -> list[str]:
    """Return the names of the arrays of an `.npz`, in its order. Raises SourceError if it is none."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except _DAMAGED as error:
        raise SourceError(f"{path} cannot be read as an .npz: {error or type(error).__name__}") from error


def _refuse_bomb(where: str, found: zipfile.ZipInfo) -> None:
    if found.file_size > _MOST_RATIO * found.compress_size:
        raise SourceError(f"{where} says that {found.compress_size:,} bytes hold {found.file_size:,}: no embeddings do")


def _header(stream: BinaryIO, where: str) -> tuple[str, tuple[int, ...]]:
    """Return dtype and shape; the stream stands at the first number after it. Nothing in it is executed."""
    start = stream.read(8)
    if start[:6] != _MAGIC or len(start) < 8 or start[6] not in (1, 2, 3):
        raise SourceError(f"{where} is no .npy array of format 1 to 3")
    size = int.from_bytes(stream.read(2 if start[6] == 1 else 4), "little")
    if size > _MOST_HEADER:
        raise SourceError(f"{where} has a header of {size:,} bytes; it may have {_MOST_HEADER:,}")
    header = ast.literal_eval(stream.read(size).decode("utf-8" if start[6] == 3 else "latin-1").strip())
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise SourceError(f"{where} has a header without descr, fortran_order and shape")
    descr, shape = header["descr"], header["shape"]
    if isinstance(descr, str) and "O" in descr:
        raise SourceError(f"{where} holds Python objects, which are never unpickled: save an array of floats")
    if not (isinstance(descr, str) and _FLOAT.fullmatch(descr)):
        raise SourceError(f"{where} holds {str(descr)[:80]!r}; embeddings are float16, float32 or float64")
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
        raise SourceError(f"{where} has the shape {str(shape)[:80]}")
    if header["fortran_order"] is not False and min(shape, default=0) > 1:
        raise SourceError(f"{where} is stored column by column: save np.ascontiguousarray(x)")
    return descr, shape
