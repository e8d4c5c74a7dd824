"""A folder that an export fills shard by shard: what is written stays, what is not yet is written by the next run.

While it is unfinished the folder holds `.curate-export/`: `job.json` says what is being exported, and one file a shard
that it is in place. A finished one holds `.curate-export.json` instead. Shards depend on nothing but the manifest, the
options and their own images, so that a killed run, run again, ends with the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from curate.errors import ExportError
from curate.files import atomic_write, canonical_json, sync_folder
from curate.remote import Place, Remote, listed

_WORK, _DONE = ".curate-export", ".curate-export.json"
_SYNC_ALL = 16  # beyond so many files, one sync of everything is cheaper than one of each

Entry = dict[str, Any]


class Folder:
    """One export's folder. `done` are its entries by shard: `samples`, `bytes`, `files`, `problems` as counts."""

    def __init__(self, at: Place, job: Mapping[str, Any]) -> None:
        self.at = at
        self.job = dict(job)
        self.done: dict[int, Entry] = {}
        self.finished: Entry | None = None
        self.stage = Path()
        self._is_stale = False
        self._work = at / _WORK

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Check that the folder is empty or this export's, and lock it; files are made in `stage` meanwhile.

        Raises ExportError when it holds something else, or another process writes it.
        """
        self._check()
        if isinstance(self.at, Remote):
            with tempfile.TemporaryDirectory() as folder:
                self.stage = Path(folder)
                self._begin()
                yield
            return
        work = self.at / _WORK
        work.mkdir(parents=True, exist_ok=True)
        with exclusive(work / "lock", self.at):
            self.stage = work / "stage"
            shutil.rmtree(self.stage, ignore_errors=True)
            self.stage.mkdir()
            self._begin()
            yield
            if self.finished is not None:
                shutil.rmtree(work, ignore_errors=True)

    def _check(self) -> None:
        names = {path.name for path in listed(self.at)}
        if not isinstance(self.at, Remote) and self.at.exists() and not self.at.is_dir():
            raise ExportError(f"{self.at} is a file; give a folder")
        if _DONE in names:
            self.finished = self._read(self.at / _DONE)
        known = self.finished or (self._read(self._work / "job.json") if _WORK in names else None)
        # Where the sources have moved, what is written names where they were: an unfinished export begins again.
        self._is_stale = known is None or known.get("job") != self.job
        if known and self.finished is None and self._is_stale and _alike(known.get("job"), self.job):
            return
        if known and known.get("job") != self.job:
            raise ExportError(
                f"{self.at} holds another export ({_told(known.get('job'))}); remove it, or choose another place"
            )
        if known is None and names - {_WORK}:
            raise ExportError(f"{self.at} is not empty; remove what it holds, or choose another place")

    def _read(self, path: Place) -> Entry | None:
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ExportError(f"{path} is damaged: {error}; remove {self.at} and export again") from error
        return found if isinstance(found, dict) else {}

    def _begin(self) -> None:
        """Read which shards are in place, or begin."""
        if self.finished is not None:
            return
        for path in listed(self._work, ".shard"):
            entry = None if self._is_stale else self._read(path)
            if entry and self._is_there(entry):
                self.done[int(Path(path.name).stem)] = _short(entry)
            else:
                path.unlink(missing_ok=True)
        atomic_write(self._work / "job.json", canonical_json({"job": self.job}))

    def _is_there(self, entry: Entry) -> bool:
        """Tell whether nobody removed a shard's files, to make room for instance; a store is not asked for each."""
        return isinstance(self.at, Remote) or all(os.path.lexists(self.at / name) for name in entry["names"])

    def entry(self, number: int) -> Entry:
        """Return all that was noted about a shard."""
        return self._read(self._work / f"{number:08d}.shard") or {}

    def reopen(self) -> None:
        """Forget shards that lack images, so that they are written again; a finished export begins anew."""
        if self.finished is not None:
            self.finished = None
            self._begin()
            (self.at / _DONE).unlink()
        for number in [number for number, entry in self.done.items() if entry["problems"]]:
            (self._work / f"{number:08d}.shard").unlink(missing_ok=True)
            del self.done[number]

    def publish(self, number: int, staged: Mapping[str, Path], entry: Entry) -> None:
        """Put a shard's files in place, then note it."""
        if isinstance(self.at, Remote):
            for name, path in staged.items():
                _below(self.at, name).write_file(path)  # type: ignore[union-attr]
        else:
            self._move(self.at, staged)
        atomic_write(self._work / f"{number:08d}.shard", canonical_json({**entry, "names": list(staged)}))
        self.done[number] = _short(entry)

    def _move(self, at: Path, staged: Mapping[str, Path]) -> None:
        if len(staged) > _SYNC_ALL and hasattr(os, "sync"):
            os.sync()
        else:
            for path in staged.values():
                sync(path)
        folders = set()
        for name, path in staged.items():
            to = at / name
            if to.parent not in folders:
                to.parent.mkdir(parents=True, exist_ok=True)
                folders.add(to.parent)
            os.replace(path, to)
        for folder in folders:
            sync_folder(folder)

    @contextmanager
    def put(self, name: str) -> Iterator[BinaryIO]:
        """Open a file that is put in place when the block ends: an index over the shards."""
        made = self.stage / "index"
        with made.open("wb") as file:
            yield file
        if isinstance(self.at, Remote):
            _below(self.at, name).write_file(made)  # type: ignore[union-attr]
        else:
            self._move(self.at, {name: made})

    def notes(self) -> Iterator[tuple[int, Any]]:
        """Yield number and notes of every shard in order, one at a time from disk."""
        for number in sorted(self.done):
            yield number, self.entry(number)["notes"]

    def finish(self, figures: Mapping[str, Any]) -> None:
        """Note that the export is whole, and remove what only resuming needs."""
        self.finished = {"job": self.job, **figures}
        with self.put(_DONE) as file:
            file.write(canonical_json(self.finished))
        if isinstance(self.at, Remote):
            for path in listed(self._work):
                path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove a local folder that turned out to hold nothing."""
        self.finished = {}
        if isinstance(self.at, Path):
            shutil.rmtree(self.at)


def _below(at: Place, name: str) -> Place:
    for part in name.split("/"):
        at = at / part
    return at


@contextmanager
def exclusive(lock: Path, out: Place) -> Iterator[None]:
    """Hold a lock file. Raises ExportError when another process does."""
    held = FileLock(str(lock))
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise ExportError(f"another process is exporting to {out}") from None
    try:
        yield
    finally:
        held.release()


def sync(path: Path) -> None:
    """Flush a file to its disk."""
    if path.is_symlink():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _alike(job: Any, other: dict[str, Any]) -> bool:
    """Tell whether two jobs differ in nothing but where the sources lie."""
    return isinstance(job, dict) and job | {"roots": None} == other | {"roots": None}


def _short(entry: Entry) -> Entry:
    """Return the part of an entry that is kept in memory."""
    short = {key: entry[key] for key in ("samples", "bytes", "files")}
    short["problems"] = len(entry["problems"])
    return short


def _told(job: Any) -> str:
    return f"to {job.get('format')}" if isinstance(job, dict) else "damaged"
