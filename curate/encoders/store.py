"""Rows by the SHA-256 of the bytes that they were made from: in memory as numbers, on disk as files that only grow.

A store holds rows of one encoder as it computes on one machine (`identity`), so that what is read is what would be
computed, bit for bit. Several processes may use it at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

F16 = NDArray[np.float16]

_SHA = 32
_SUM = 8
_KEY = _SHA + _SUM
_RECENT = 65536


class Numbers:
    """Which number a SHA-256 was given last, told by its first 64 bits: 16 bytes of memory each.

    Two keys with the same 64 bits are taken for one, so that who asks must compare the whole.
    """

    def __init__(self) -> None:
        self._bits = np.zeros(0, np.uint64)
        self._number = np.zeros(0, np.int64)
        self._recent: dict[int, int] = {}

    def add(self, bits: NDArray[np.uint64], numbers: NDArray[np.int64]) -> None:
        """Number keys, given by their first 64 bits; of equal ones the last holds."""
        if len(self._recent) + bits.size < _RECENT:
            self._recent.update(zip(bits.tolist(), numbers.tolist(), strict=True))
            return
        recent = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        theirs = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        self._recent.clear()
        bits, numbers = np.concatenate([self._bits, recent, bits]), np.concatenate([self._number, theirs, numbers])
        order = np.argsort(bits, kind="stable")
        bits, numbers = bits[order], numbers[order]
        last = np.append(bits[1:] != bits[:-1], True)[: bits.size]
        self._bits, self._number = bits[last], numbers[last]

    def find(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of each key (hex digits), -1 where it has none."""
        bits = first_bits(keys)
        at = np.searchsorted(self._bits, bits)
        out = np.full(len(keys), -1, np.int64)
        if self._bits.size:
            at = at.clip(max=self._bits.size - 1)
            out = np.where(self._bits[at] == bits, self._number[at], out)
        for i, one in enumerate(bits.tolist()):
            out[i] = self._recent.get(one, out[i])
        return out


def first_bits(keys: Sequence[str]) -> NDArray[np.uint64]:
    """Return the first 64 bits of keys in hex digits."""
    return np.frombuffer(bytes.fromhex("".join(key[:16] for key in keys)), ">u8").astype(np.uint64)


class RowStore:
    """Float16 rows of one width in FOLDER/IDENTITY: `rows`, then `keys` with a checksum of each row.

    Rows are written before their keys, under a lock, so that a process killed in between leaves rows that no key names;
    the next writer cuts them off. A record whose checksum does not fit is as if it were not there.

    Raises OSError where the folder cannot be made.
    """

    def __init__(self, folder: Path, identity: str, width: int) -> None:
        from filelock import FileLock

        folder = folder / identity
        folder.mkdir(parents=True, exist_ok=True)
        self._keys, self._rows, self._width = folder / "keys", folder / "rows", width
        self._lock = FileLock(folder / "lock")
        self._numbers, self._read = Numbers(), 0

    def find(self, keys: Sequence[str]) -> dict[str, F16]:
        """Return {key: (width,) float16} of those that are stored; keys: SHA-256 in hex digits."""
        self._refresh()
        found: dict[str, F16] = {}
        numbers = self._numbers.find(keys)
        if not (numbers >= 0).any():
            return found
        size = 2 * self._width
        with self._keys.open("rb") as names, self._rows.open("rb") as rows:
            for key, number in zip(keys, numbers.tolist(), strict=True):
                if number < 0:
                    continue
                name = os.pread(names.fileno(), _KEY, number * _KEY)
                data = os.pread(rows.fileno(), size, number * size)
                if name == _record(bytes.fromhex(key), data) and len(data) == size:
                    found[key] = np.frombuffer(data, "<f2").astype(np.float16)
        return found

    def add(self, keys: Sequence[str], rows: F16) -> None:
        """Append rows (n, width); those that another process added meanwhile are appended again, which does no harm."""
        data = [row.astype("<f2").tobytes() for row in rows]
        names = [_record(bytes.fromhex(key), row) for key, row in zip(keys, data, strict=True)]
        with self._lock, self._keys.open("ab") as name_file, self._rows.open("ab") as row_file:
            whole = min(name_file.tell() // _KEY, row_file.tell() // (2 * self._width))
            name_file.truncate(whole * _KEY)
            row_file.truncate(whole * 2 * self._width)
            row_file.write(b"".join(data))
            row_file.flush()
            name_file.write(b"".join(names))

    def clear(self) -> None:
        """Remove every row."""
        with self._lock:
            for path in (self._keys, self._rows):
                path.write_bytes(b"")
        self._numbers, self._read = Numbers(), 0

    def _refresh(self) -> None:
        """Number the keys that were written since the last look."""
        size = self._keys.stat().st_size // _KEY if self._keys.exists() else 0
        if size < self._read:
            self._numbers, self._read = Numbers(), 0
        if size == self._read:
            return
        with self._keys.open("rb") as file:
            file.seek(self._read * _KEY)
            data = file.read((size - self._read) * _KEY)
        new = np.frombuffer(data[: len(data) // _KEY * _KEY], np.uint8).reshape(-1, _KEY)
        bits = new[:, :8].copy().view(">u8")[:, 0].astype(np.uint64)
        self._numbers.add(bits, np.arange(self._read, self._read + bits.size))
        self._read += bits.size


def _record(key: bytes, row: bytes) -> bytes:
    return key + hashlib.blake2b(key + row, digest_size=_SUM).digest()
