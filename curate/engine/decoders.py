"""Decode processes, each with an image of its own: what kills or holds up one costs that image, and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any

import numpy as np

from curate.crops import Crop
from curate.engine.examine import Examined, Terms
from curate.engine.worker import receive, send
from curate.errors import WorkerError

ENTRY = "curate.engine.worker"  # the module whose main() a process runs
AVAILABLE = os.name == "posix"  # elsewhere no open file can be handed down

_START_SECONDS = 300.0  # kernels may have to be compiled first, on a busy machine
_BOOT = (
    "import sys, json, importlib; sys.path[:] = json.loads(sys.argv[1]); importlib.import_module(sys.argv[2]).main()"
)


class _DiedError(Exception):
    """The process ended instead of answering; the words say how."""


class _NoStartError(_DiedError):
    """It ended before its first image."""


class Decoders:
    """`count` decode processes. `examine` may be called from as many threads at once; its answers are `examine`'s.

    seconds: that an image may take. A process that takes longer is killed, and its image refused (`decode_timeout`).
    An image whose process dies is tried once more in a new one while nothing else is decoded, because the machine may
    have been short of memory; then it is refused (`decoder_crash`).
    """

    def __init__(self, count: int, terms: Terms, crop: Crop, seconds: float) -> None:
        first = {"terms": terms.as_dict(), "crop": dataclasses.asdict(crop), "seconds": seconds}
        self._first, self._shape = json.dumps(first).encode(), (crop.height, crop.width, 3)
        self._seconds = seconds
        self._count = count
        self._closed = False
        self._alone = threading.Lock()
        self._all: set[_Worker] = set()
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        try:
            for _ in range(count):
                worker = self._new()
                worker.start()  # now, so that all start at once; a later one starts when it is needed
                self._idle.put(worker)
        except WorkerError:
            self.close()
            raise

    def examine(self, data: bytes) -> Examined:
        """Return what the bytes of an image give.

        Raises WorkerError when no process can be started, or when examining failed beyond refusal.
        """
        worker = self._idle.get()
        try:
            return worker.ask(data)
        except TimeoutError:
            worker = self._replace(worker)
            return Examined("decode_timeout", f"decoding took more than {self._seconds:g} s (limits.decode_seconds)")
        except _DiedError:
            worker = self._replace(worker)
        finally:
            self._idle.put(worker)
        return self._retry(data)

    def _retry(self, data: bytes) -> Examined:
        with self._alone:
            workers = [self._idle.get() for _ in range(self._count)]
            try:
                workers[0] = self._replace(workers[0])
                return workers[0].ask(data)
            except TimeoutError:
                words = f"decoding took more than {self._seconds:g} s (limits.decode_seconds)"
                workers[0] = self._replace(workers[0])
                return Examined("decode_timeout", words)
            except _NoStartError as error:
                raise WorkerError(f"a decode process does not start ({error}); set encode.workers = 0") from error
            except _DiedError as error:
                workers[0] = self._replace(workers[0])
                return Examined("decoder_crash", f"the process that decoded it died twice: {error}")
            finally:
                for worker in workers:
                    self._idle.put(worker)

    def _new(self) -> _Worker:
        worker = _Worker(self._first, self._shape, self._seconds)
        self._all.add(worker)
        return worker

    def _replace(self, worker: _Worker) -> _Worker:
        if self._closed:
            raise WorkerError("the decode processes were closed")
        worker.close()
        self._all.discard(worker)
        return self._new()

    def kill(self) -> None:
        """Kill all processes; every thread that waits for one gets an error."""
        self._closed = True
        for worker in list(self._all):
            worker.kill()

    def close(self) -> None:
        """Kill all processes and give back what they held; no thread may wait for one any more."""
        self.kill()
        for worker in self._all:
            worker.close()


class _Worker:
    """One process, the socket to it, and the memory shared with it."""

    def __init__(self, first: bytes, shape: tuple[int, int, int], seconds: float) -> None:
        self._first, self._shape, self._seconds = first, shape, seconds
        self._size = shape[0] * shape[1] * shape[2]
        self._ready = self._killed = False
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process. Raises WorkerError where the system lets none start."""
        try:
            with contextlib.ExitStack() as ours, contextlib.ExitStack() as handed_over:
                link, theirs = socket.socketpair()
                ours.callback(link.close)
                handed_over.callback(theirs.close)
                memory = _anonymous_file(self._size)
                handed_over.callback(os.close, memory)
                block = mmap.mmap(memory, self._size)
                ours.callback(block.close)
                handed = (theirs.fileno(), memory)
                self._process = subprocess.Popen(  # noqa: S603  # our own interpreter, our own module
                    [sys.executable, "-c", _BOOT, json.dumps(sys.path), ENTRY, *map(str, handed)],
                    pass_fds=handed,
                    stdin=subprocess.DEVNULL,
                )
                self._link, self._block = link, block
                ours.pop_all()  # they stay open
        except OSError as error:
            raise WorkerError(f"a decode process does not start ({error}); set encode.workers = 0") from error
        if self._killed:  # meanwhile
            self.kill()

    def ask(self, data: bytes) -> Examined:
        """Return what the bytes give. Raises TimeoutError, _DiedError, WorkerError."""
        self._await_start()
        answer = self._exchange(data, self._seconds)
        if "error" in answer:
            raise WorkerError(f"an image could not be examined: {answer['error']}")
        crop = np.frombuffer(self._block, dtype=np.uint8).reshape(self._shape).copy() if answer["cut"] else None
        return Examined.from_dict(answer["found"], crop)

    def _await_start(self) -> None:
        if self._ready:
            return
        if self._process is None:
            self.start()
        try:
            self._exchange(self._first, _START_SECONDS)
        except TimeoutError as error:
            raise _NoStartError(f"it was not ready after {_START_SECONDS:g} s") from error
        except _DiedError as error:
            raise _NoStartError(str(error)) from error
        self._ready = True

    def _exchange(self, message: bytes, seconds: float) -> dict[str, Any]:
        try:
            self._link.settimeout(seconds)
            send(self._link, message)
            answer = receive(self._link)
        except TimeoutError:
            raise
        except OSError as error:
            raise _DiedError(self._ending()) from error
        if answer is None:
            raise _DiedError(self._ending())
        return dict(json.loads(answer))

    def _ending(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(10) if self._process else 0
            return f"signal {-code}" if code < 0 else f"exit status {code}"
        return "it closed its socket"

    def kill(self) -> None:
        self._killed = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Kill the process, if there is one, and close the socket to it. May be called again."""
        self.kill()
        if self._process is not None:
            self._link.close()


def _anonymous_file(size: int) -> int:
    """Return the number of an open file without a name, `size` bytes of zeros; in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("curate-crop")
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    try:
        os.truncate(number, size)
    except OSError:
        os.close(number)
        raise
    return number
