"""Who may write to a pool: a file lock beside a local one, a lease that runs out in an object store."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from curate.errors import PoolLockedError, RemoteError
from curate.files import canonical_json
from curate.remote import Place, Remote

_LEASE = 60.0  # seconds until a lease that is not renewed runs out; it is renewed three times as often


class Lock(Protocol):
    """Held by one process at a time."""

    def acquire(self) -> None:
        """Take it. Raises PoolLockedError, naming the holder, when another process has it."""

    def check(self) -> None:
        """Raise PoolLockedError if it was lost; called before each commit."""

    def release(self) -> None:
        """Give it back, if it is held."""


def pool_lock(path: Place) -> Lock:
    """Return the lock of the pool at a path."""
    return Lease(path / "write.lock") if isinstance(path, Remote) else FolderLock(path)


class FolderLock:
    """The operating system's lock on POOL/write.lock; it ends with the process, however that ends."""

    def __init__(self, pool: Path) -> None:
        from filelock import FileLock

        self._pool = pool
        self._lock = FileLock(str(pool / "write.lock"), timeout=0)

    def acquire(self) -> None:
        """Take it, and write down who has it."""
        from filelock import Timeout

        try:
            self._lock.acquire()
        except Timeout as error:
            raise PoolLockedError(
                f"the pool at {self._pool} is being written by {self._holder()}; wait for it to end"
            ) from error
        (self._pool / "writer.json").write_text(json.dumps(_me()))

    def check(self) -> None:
        """Do nothing: the system keeps it."""

    def release(self) -> None:
        """Give it back."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                (self._pool / "writer.json").unlink(missing_ok=True)
        self._lock.release()

    def _holder(self) -> str:
        try:
            return _named(json.loads((self._pool / "writer.json").read_text()))
        except (OSError, ValueError, AttributeError):  # it may be written this instant
            return "another process"


class Lease:
    """An object that says who writes and until when, made only where there is none, renewed by a thread.

    After it has run out it may be taken over: replaced if it is still the same object. Clocks of hosts must agree to
    some seconds. Stores that know no conditional writes leave a moment in which two could take it; `check` then finds
    out at the next renewal.
    """

    def __init__(self, path: Remote) -> None:
        self._path = path
        self._token = ""
        self._until = 0.0
        self._stop = threading.Event()
        self._renewer: threading.Thread | None = None
        self._lost = ""

    def acquire(self) -> None:
        """Take it, where there is none or it has run out."""
        self._token = secrets.token_hex(8)
        try:
            self._write(mode="create")
        except FileExistsError:
            self._take_over()
        self._renewer = threading.Thread(target=self._renew, name="curate-lease", daemon=True)
        self._renewer.start()

    def _take_over(self) -> None:
        stamp, held = self._read()
        if self._is_ours(held):
            return
        conditions = {"IfMatch": stamp} if stamp and self._path.scheme == "s3" else {"mode": "create"}
        until = float(held.get("until", 0.0))
        if until > time.time():
            self._token = ""
            raise PoolLockedError(
                f"the pool at {self._path.parent} is being written by {_named(held)}; wait for it to end."
                f" If it was killed, its lease runs out at {datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC"
            )
        try:
            if stamp and self._path.scheme != "s3":
                self._path.unlink(missing_ok=True)
            self._write(**conditions)
        except (FileExistsError, RemoteError) as error:
            if self._is_ours(self._read()[1]):
                return
            self._token = ""
            raise PoolLockedError(
                f"the lease of the pool at {self._path.parent}, which had run out, could not be taken over ({error});"
                " another process may just have done so: try again later"
            ) from error

    def _is_ours(self, held: dict[str, Any]) -> bool:
        """Tell whether a try to write the lease, whose answer was lost, succeeded; it is held from then on."""
        if held.get("token") != self._token:
            return False
        self._until = float(held["until"])
        return True

    def check(self) -> None:
        """Raise PoolLockedError if the lease was taken over, or ran out while this process stood still."""
        if not self._lost and time.time() < self._until:
            return
        why = self._lost or "it was not renewed in time"
        raise PoolLockedError(
            f"this process lost its lease of the pool at {self._path.parent} ({why}); what was committed stays,"
            " run it again"
        )

    def release(self) -> None:
        """Delete the object, if it is still ours."""
        self._stop.set()
        if self._renewer is not None:
            self._renewer.join()
            self._renewer = None
        if self._token and not self._lost and time.time() < self._until:
            with contextlib.suppress(RemoteError):  # it runs out by itself
                self._path.unlink(missing_ok=True)
        self._token = ""

    def _renew(self) -> None:
        while not self._stop.wait(_LEASE / 3):
            try:
                stamp, held = self._read()
                if held.get("token") != self._token:
                    self._lost = f"it was taken over by {_named(held)}"
                    return
                self._write(**({"IfMatch": stamp} if self._path.scheme == "s3" else {}))
            except (RemoteError, ValueError) as error:
                if time.time() > self._until:
                    self._lost = str(error)
                    return

    def _write(self, **conditions: str) -> None:
        until = time.time() + _LEASE
        self._path.write_bytes(canonical_json({**_me(), "token": self._token, "until": until}), **conditions)
        self._until = until

    def _read(self) -> tuple[str, dict[str, Any]]:
        """Return the lease's entity tag and content; nothing where it has just been given back.

        The lock file of a local pool that was copied here is empty, and holds nobody off.
        """
        try:
            stamp = self._path.status().stamp
            data = self._path.read_bytes()
        except FileNotFoundError:
            return "", {}
        held = json.loads(data) if data else {}
        return stamp, held if isinstance(held, dict) else {}


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": os.uname().nodename}


def _named(held: dict[str, Any]) -> str:
    return f"process {held['pid']} on {held.get('host')}" if held.get("pid") else "another process"
